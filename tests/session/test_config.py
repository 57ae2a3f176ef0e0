"""Run settings: presets as published, errors in one line."""

import pytest

from fastdd.session import RunConfig


def test_published_dm_settings():
    config = RunConfig.for_run(dataset="c-mnist-fg", ipc=10)
    assert (config.iterations, config.batch_real, config.lr_img, config.momentum) == (20_000, 256, 1.0, 0.5)
    assert (config.arch, config.init, config.sampling) == ("ConvNet", "real", "random")
    assert config.dsa_strategy == "color_crop_cutout_flip_scale_rotate"


@pytest.mark.parametrize(("ipc", "lr"), [(1, 1.0), (50, 1.0), (100, 10.0), (500, 10.0)])
def test_learning_rate_grows_from_100_images_per_class(ipc, lr):
    assert RunConfig.for_run(dataset="cifar10", ipc=ipc).lr_img == lr


@pytest.mark.parametrize(
    ("method", "debias", "init"),
    [("dc", "none", "noise"), ("dc", "fairdd", "real"), ("dc", "kde", "noise"), ("dsa", "none", "real")],
)
def test_published_settings_of_gradient_matching(method, debias, init):
    config = RunConfig.for_run(dataset="cifar10", ipc=10, method=method, debias=debias)
    assert (config.iterations, config.batch_real, config.lr_img, config.momentum) == (1000, 256, 0.1, 0.5)
    assert (config.outer_loop, config.inner_loop, config.lr_net, config.batch_train) == (10, 50, 0.01, 256)
    assert (config.metric, config.init) == ("ours", init)
    assert config.dsa_strategy == ("none" if method == "dc" else "color_crop_cutout_flip_scale_rotate")


def test_loops_follow_from_the_ipc_unless_given():
    assert RunConfig.for_run(dataset="cifar10", ipc=50, method="dc").outer_loop == 50
    config = RunConfig.for_run(dataset="cifar10", ipc=7, method="dc", inner_loop=3)
    assert (config.outer_loop, config.inner_loop) == (7, 3)


def test_what_is_given_wins_and_none_is_not_given():
    config = RunConfig.for_run(dataset="c-digits", ipc=100, lr_img=3.0, width=None, arch="convnetbn")
    assert (config.lr_img, config.width, config.depth, config.arch) == (3.0, 64, 2, "ConvNetBN")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dx"}, "unknown method 'dx'"),
        ({"ipc": 0}, "IPC must be at least 1, not 0"),
        ({"ipc": -3}, "IPC must be at least 1, not -3"),
        ({"iterations": 0}, r"iterations: .* \(got 0\)"),
        ({"debias": "fair"}, "debias: unknown debias mode 'fair'"),
        ({"arch": "resnet"}, "arch: unknown network 'resnet'"),
        ({"dsa_strategy": "colour"}, "dsa_strategy: .*colour"),
        ({"lr_img": float("nan")}, "lr_img"),
        ({"init": "zero"}, "init: "),
        ({"precision": "fp16"}, r"precision: .*\(got .fp16.\)"),
        ({"learning_rate": 1}, "learning_rate: "),
        ({"metric": "ours"}, "metric is a setting of dc and dsa, not of dm"),
        ({"method": "dc", "metric": "l1"}, "metric: "),
        ({"method": "dc", "dsa_strategy": "color"}, "dc has no augmentation; with 'color' it is method dsa"),
        ({"method": "dsa", "outer_loop": 0}, "outer_loop: "),
        ({"sampling": "weighted"}, "sampling weighted is for debias kde, not none"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        RunConfig.for_run(**{"dataset": "c-digits", **settings})
    assert "\n" not in str(error.value)
