"""Run settings: presets as published, errors in one line."""

from importlib import resources

import pytest
import yaml

from fastdd.data.sets import DATASETS
from fastdd.experts import ExpertSettings
from fastdd.methods import configure
from fastdd.presets import preset


def test_published_dm_settings():
    config = configure(dataset="c-mnist-fg", ipc=10)
    assert (config.iterations, config.batch_real, config.lr_img, config.momentum) == (20_000, 256, 1.0, 0.5)
    assert (config.arch, config.init, config.sampling) == ("ConvNet", "real", "random")
    assert config.dsa_strategy == "color_crop_cutout_flip_scale_rotate"


@pytest.mark.parametrize(("ipc", "lr"), [(1, 1.0), (50, 1.0), (100, 10.0), (500, 10.0)])
def test_learning_rate_grows_from_100_images_per_class(ipc, lr):
    assert configure(dataset="cifar10", ipc=ipc).lr_img == lr


@pytest.mark.parametrize(
    ("method", "debias", "init"),
    [("dc", "none", "noise"), ("dc", "fairdd", "real"), ("dc", "kde", "noise"), ("dsa", "none", "real")],
)
def test_published_settings_of_gradient_matching(method, debias, init):
    config = configure(dataset="cifar10", ipc=10, method=method, debias=debias)
    assert (config.iterations, config.batch_real, config.lr_img, config.momentum) == (1000, 256, 0.1, 0.5)
    assert (config.outer_loop, config.inner_loop, config.lr_net, config.batch_train) == (10, 50, 0.01, 256)
    assert (config.metric, config.init) == ("ours", init)
    assert config.dsa_strategy == ("none" if method == "dc" else "color_crop_cutout_flip_scale_rotate")


TABLE = [
    # data set, network, IPC: N, M, max_start, batch_syn, ZCA, lr_img, lr_lr, lr_teacher
    ("cifar10", "ConvNet", 1, 50, 2, 2, None, True, 100, 1e-7, 0.01),
    ("cifar10", "ConvNet", 10, 30, 2, 20, None, True, 100, 1e-5, 0.001),
    ("cifar10", "ConvNet", 50, 30, 2, 40, None, False, 1000, 1e-5, 0.001),
    ("cifar100", "ConvNet", 1, 20, 3, 20, None, True, 1000, 1e-5, 0.01),
    ("cifar100", "ConvNet", 10, 20, 2, 20, None, False, 1000, 1e-5, 0.01),
    ("cifar100", "ConvNet", 50, 80, 2, 40, 125, True, 1000, 1e-5, 0.01),
    ("tiny-imagenet", "ConvNetD4", 1, 10, 2, 10, None, False, 10000, 1e-4, 0.01),
    ("tiny-imagenet", "ConvNetD4", 10, 20, 2, 40, 200, False, 10000, 1e-4, 0.01),
    ("tiny-imagenet", "ConvNetD4", 50, 20, 2, 40, 300, False, 10000, 1e-4, 0.01),
    ("imagewoof", "ConvNetD5", 1, 20, 2, 10, None, False, 1000, 1e-6, 0.01),
    ("imagenette", "ConvNetD5", 10, 20, 2, 10, 20, False, 1000, 1e-6, 0.01),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}-{row[2]}")
def test_published_settings_of_trajectory_matching(row):
    dataset, network, ipc, *settings = row
    config = configure(dataset=dataset, ipc=ipc, method="mtt")
    experts = ExpertSettings.configure(dataset=dataset, ipc=ipc)
    found = [config.syn_steps, config.expert_epochs, config.max_start_epoch, config.batch_syn, experts.zca]
    assert [*found, config.lr_img, config.lr_lr, config.lr_teacher] == settings
    assert (config.arch, experts.arch) == (network, network)
    assert (config.iterations, config.momentum, config.init) == (5000, 0.5, "real")
    assert config.dsa_strategy == "color_crop_cutout_flip_scale_rotate"
    assert (config.unroll, config.step_size, config.soft_labels) == ("exact", "log", "none")


def test_loops_follow_from_the_ipc_unless_given():
    assert configure(dataset="cifar10", ipc=50, method="dc").outer_loop == 50
    config = configure(dataset="cifar10", ipc=7, method="dc", inner_loop=3)
    assert (config.outer_loop, config.inner_loop) == (7, 3)


def test_what_is_given_wins_and_none_is_not_given():
    config = configure(dataset="c-digits", ipc=100, lr_img=3.0, width=None, arch="convnetbn")
    assert (config.lr_img, config.width, config.depth, config.arch) == (3.0, 64, 2, "ConvNetBN")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dx"}, "unknown method 'dx'"),
        ({"ipc": 0}, "IPC must be at least 1, not 0"),
        ({"ipc": -3}, "IPC must be at least 1, not -3"),
        ({"iterations": 0}, "iterations must be at least 1, not 0"),
        ({"debias": "fair"}, "unknown debias mode 'fair'"),
        ({"arch": "resnet"}, "arch: unknown network 'resnet'"),
        ({"dsa_strategy": "colour"}, "dsa_strategy: .*colour"),
        ({"lr_img": float("nan")}, "lr_img"),
        ({"init": "zero"}, "init: must be one of real, balanced, noise, or the path of a stored set, such as ./zero"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16, not 'fp16'"),
        ({"learning_rate": 1}, "there is no setting 'learning_rate'"),
        ({"outer_loop": 5}, "outer_loop is a setting of dc.*, not of dm"),
        ({"metric": "ours"}, "metric must be one of l2, l1, cos, not 'ours'"),
        ({"method": "dc", "metric": "l1"}, "metric must be one of ours, mse, cos, not 'l1'"),
        ({"method": "dc", "dsa_strategy": "color"}, "dc has no augmentation; with 'color' it is method dsa"),
        ({"method": "dsa", "outer_loop": 0}, "outer_loop must be at least 1, not 0"),
        ({"syn_steps": 5}, "syn_steps is a setting of mtt, not of dm"),
        ({"method": "mtt", "batch_real": 5}, "batch_real is a setting of dm.*, not of mtt"),
        ({"method": "mtt", "sampling": "stratified"}, "sampling is a setting of dm.*, not of mtt"),
        ({"method": "mtt", "step_size": "exp"}, "step_size must be one of log, raw, not 'exp'"),
        ({"method": "mtt", "lr_label": 1.0}, "lr_label goes with soft_labels=learned, here none"),
        ({"method": "mtt", "published_factor": True}, "published_factor is TESLA's, not that of unroll=exact"),
        ({"sampling": "weighted"}, "sampling weighted is for debias kde, not none"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        configure(**{"dataset": "c-digits", **settings})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["dm", "dc", "dsa"])
@pytest.mark.parametrize(
    ("dataset", "arch"),
    [
        ("celeba", "ConvNet"),
        ("tiny-imagenet-s", "ConvNetD4"),
        ("imagenette", "ConvNetD5"),
        ("imagesquawk-s", "ConvNetD5"),
    ],
)
def test_networks_grow_with_the_images_where_trajectory_matchings_do(method, dataset, arch):
    assert configure(dataset=dataset, method=method).arch == arch
    assert configure(dataset=dataset, method=method, arch="ConvNetD3").arch == "ConvNetD3"


def test_rules_name_data_sets_that_there_are():
    for file in resources.files("fastdd.presets").iterdir():
        if file.name.endswith(".yaml"):
            for rule in yaml.safe_load(file.read_text(encoding="utf-8")).get("rules", ()):
                assert set(rule["when"].get("dataset", ())) <= DATASETS.keys(), file.name


def test_gray_or_colour_sets_have_the_presets_of_what_they_are_made_of():
    for dataset in ("tiny-imagenet", "imagewoof"):
        made = [
            {**preset(method, name, 10), "dataset": None}
            for name in (dataset, f"{dataset}-s")
            for method in ("dm", "mtt", "experts")
        ]
        assert made[:3] == made[3:]


def test_width_and_depth_of_a_preset_are_not_those_of_a_network_that_has_its_own():
    shipped = configure(dataset="c-digits")
    assert (shipped.width, shipped.depth) == (64, 2)
    for arch, size in (("lenet", None), ("ConvNetBN", 64)):
        assert configure(dataset="c-digits", arch=arch).width == size
        assert ExpertSettings.configure(dataset="c-digits", arch=arch).width == size
