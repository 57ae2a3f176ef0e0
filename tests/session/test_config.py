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
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        RunConfig.for_run(**{"dataset": "c-digits", **settings})
    assert "\n" not in str(error.value)
