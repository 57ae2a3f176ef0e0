"""Published modules under the hook: every call of every replaced name agrees with the original's."""

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fastdd import compat
from fastdd.compat.hook import finder as hooks
from fastdd.compat.hook import substitutes

STRATEGY = "color_crop_cutout_flip_scale_rotate"


@pytest.fixture
def published(public_checkout, tmp_path, monkeypatch):
    """``published(family, *names)``: the hook, comparing every call, and modules of a checkout."""
    own, before = {"utils", "networks", "misc", "models", "data_handler", "reparam_module"}, set(sys.modules)
    own |= {"dc_utils", "dc_networks", "utils_edc", "augment_edc"}
    for name in ("tqdm", "kornia", "wandb"):  # what they import besides
        (tmp_path / f"{name}.py").write_text("tqdm = trange = None\n")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(hooks, "CHECKS", 10**9)

    def call(family, *names):
        folder = public_checkout(family)
        sys.path.insert(0, str(folder))
        substitutes.install()
        hook = hooks.Hook(folder, verify=True)
        hook.install()
        return hook, *(importlib.import_module(name) for name in names)

    with compat.use_rng("fast"):
        yield call
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in own | {"tqdm", "kornia", "wandb", "torchvision"}:
            del sys.modules[name]


def check(hook, **calls):
    """All agreed, as often as said; and nothing that the modules define was left alone."""
    rows = {row["name"]: row for row in hook.report().rows}
    for name, count in calls.items():
        row = rows[name]
        assert (row["calls"], row["agreed"], row["notes"]) == (count, count, []), row
    assert not [row for row in rows.values() if row["ours"] is None]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", ["dc", "fairdd", "mtt", "tesla"])
def test_augmentations(published, family):
    hook, utils = published(family, "utils")
    x = torch.randn(5, 3, 16, 16, requires_grad=True)
    calls = 0
    for mode in ("S", "M"):
        param = utils.ParamDiffAug()
        param.aug_mode = mode
        for strategy in (*STRATEGY.split("_"), STRATEGY, "none"):
            for seed in (-1, 7, 1234):
                utils.DiffAugment(x, strategy, seed=seed, param=param)
                calls += 1
    check(hook, DiffAugment=calls)


@pytest.mark.parametrize("family", ["dc", "fairdd", "mtt", "tesla"])
def test_networks(published, family):
    hook, networks = published(family, "networks")
    settings = [
        (3, 10, 16, 3, "relu", "instancenorm", "avgpooling", (32, 32)),
        (1, 10, 8, 3, "relu", "instancenorm", "avgpooling", (28, 28)),
        (3, 4, 8, 2, "sigmoid", "batchnorm", "maxpooling", (16, 16)),
        (3, 4, 8, 1, "leakyrelu", "layernorm", "none", (16, 16)),
        (3, 4, 8, 4, "relu", "groupnorm", "avgpooling", (64, 64)),
        (3, 4, 8, 2, "relu", "none", "avgpooling", (16, 16)),
    ]
    for setting in settings:
        torch.manual_seed(0)
        networks.ConvNet(*setting)
    check(hook, ConvNet=len(settings))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", ["dc", "fairdd", "mtt", "tesla"])
def test_epochs(published, family):
    hook, utils = published(family, "utils")
    torch.manual_seed(0)
    net = utils.ConvNet(3, 4, 16, 2, "relu", "instancenorm", "avgpooling", (16, 16))
    data = utils.TensorDataset(torch.randn(48, 3, 16, 16), torch.arange(48) % 4)
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    args = SimpleNamespace(device="cpu", dsa=True, dsa_strategy=STRATEGY, dsa_param=utils.ParamDiffAug(), dataset="X")
    args.teacher_label = False
    for _ in range(4):
        utils.epoch("train", loader, net, optimizer, nn.CrossEntropyLoss(), args, True)
    args.dsa = False
    args.dc_aug_param = {"crop": 2, "scale": 0.2, "rotate": 45, "noise": 0.001, "strategy": "crop_scale_rotate"}
    for _ in range(4):
        utils.epoch("train", loader, net, optimizer, nn.CrossEntropyLoss(), args, True)
    with torch.no_grad():
        utils.epoch("test", loader, net, optimizer, nn.CrossEntropyLoss(), args, False)
    check(hook, epoch=9)


class _Output(nn.Module):
    """A network of several outputs, as forks have them: the logits at a place."""

    def __init__(self, net, place):
        super().__init__()
        self.net, self.place = net, place

    def forward(self, x):
        logits = self.net(x)
        return logits if self.place is None else (logits, x)[:: 1 if self.place == 0 else -1]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("family", "module", "place", "known"),
    [
        ("cafe", "utils", 0, {"epoch"}),
        ("datadam", "utils", 1, {"DiffAugment"}),
        ("idm", "dc_utils", None, {"DiffAugment", "epoch"}),
    ],
)
def test_functions_of_forks_that_need_no_comparison(published, family, module, place, known):
    hook, utils = published(family, module)
    entries = {entry.name: entry for entry in hook.entries if entry.module == module and entry.replacement}
    assert {name for name in ("DiffAugment", "epoch") if entries[name].published} == known
    torch.manual_seed(0)
    net = _Output(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 4)), place)
    data = utils.TensorDataset(torch.randn(24, 3, 16, 16), torch.arange(24) % 4)
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    args = SimpleNamespace(device="cpu", dsa=True, dsa_strategy=STRATEGY, dsa_param=utils.ParamDiffAug())
    for mode in ("train", "train", "test"):
        utils.epoch(mode, loader, net, optimizer, nn.CrossEntropyLoss(), args, mode == "train")
    x = torch.randn(5, 3, 16, 16, requires_grad=True)
    for seed in (-1, 7):
        utils.DiffAugment(x, STRATEGY, seed=seed, param=args.dsa_param)
    assert (entries["epoch"].agreed, entries["epoch"].differences) == (3, [])
    assert (entries["DiffAugment"].agreed, entries["DiffAugment"].differences) == (2, [])


@pytest.mark.parametrize(
    ("family", "dataset", "teacher_label", "why"),
    [("mtt", "ImageNet", False, "args.dataset is ImageNet"), ("tesla", "CIFAR10", True, "args.teacher_label")],
)
def test_epochs_that_only_the_module_can_do_stay_with_it(published, family, dataset, teacher_label, why):
    hook, utils = published(family, "utils")
    net = utils.ConvNet(3, 4, 8, 2, "relu", "instancenorm", "avgpooling", (16, 16))
    loader = [(torch.randn(4, 3, 16, 16), torch.eye(4) if teacher_label else torch.arange(4))]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    args = SimpleNamespace(device="cpu", dsa=False, dataset=dataset, teacher_label=teacher_label)
    if dataset == "ImageNet":
        utils.config.img_net_classes = [1, 2, 3, 4]
    utils.epoch("train", loader, net, optimizer, nn.CrossEntropyLoss(), args, False)
    row = next(row for row in hook.report().rows if row["name"] == "epoch")
    assert (row["calls"], row["checked"], row["original"]) == (1, 0, 1)
    assert why in row["notes"][0]


@pytest.mark.parametrize("family", ["dc", "fairdd"])
def test_matching_losses(published, family):
    hook, utils = published(family, "utils")
    net = utils.ConvNet(3, 4, 8, 2, "relu", "instancenorm", "avgpooling", (16, 16))
    x = torch.randn(6, 3, 16, 16, requires_grad=True)
    for metric in ("ours", "mse", "cos"):
        loss = nn.functional.cross_entropy(net(torch.randn(9, 3, 16, 16)), torch.arange(9) % 4)
        real = [gradient.detach() for gradient in torch.autograd.grad(loss, list(net.parameters()))]
        loss = nn.functional.cross_entropy(net(x), torch.arange(6) % 4)
        synthetic = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        utils.match_loss(synthetic, real, SimpleNamespace(device="cpu", dis_metric=metric))
    for parameter in net.parameters():
        utils.distance_wb(torch.randn_like(parameter), torch.randn_like(parameter, requires_grad=True))
    check(hook, match_loss=3, distance_wb=len(list(net.parameters())))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_idc(published):
    hook, augment, convnet = published("idc", "misc.augment", "models.convnet")
    x = torch.randn(5, 3, 16, 16, requires_grad=True)
    calls = 0
    for batch in (False, True):
        for strategy in (STRATEGY, "flip_translate", "none", "color", "crop_rotate_scale"):
            augmentation = augment.DiffAug(strategy=strategy, batch=batch, ratio_cutout=0.3)
            for single, seed in ((True, -1), (False, -1), (True, 5), (False, 5)):
                augmentation(x, single_aug=single, seed=seed)
                calls += 1
    for norm, size in (("instance", (32, 32)), ("batch", (16, 16)), ("layer", (16, 16)), ("group", (16, 16))):
        convnet.ConvNet(7, net_norm=norm, net_depth=2, net_width=8, im_size=size)
    check(hook, DiffAug=calls, ConvNet=4)
    assert augmentation.cutout_inv_fn(x).shape == x.shape  # the module's own, as no strategy names it
