"""The drop-in's networks against the published ones, and against pinned keys and counts where there is no checkout."""

import copy
import time

import pytest
import torch
from torch import nn

from fastdd import compat, models
from fastdd.compat import dc, fairdd, mtt
from fastdd.compat.hook import checkout
from fastdd.core import rng

DEPTHS = [f"ConvNetD{depth}" for depth in range(1, 9)]
WIDTHS = [f"ConvNetW{width}" for width in (32, 64, 128, 256)]
COMMON = [
    *("MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "VGG11BN", "ResNet18", "ResNet18BN_AP", *DEPTHS[:4], *WIDTHS),
    *("ConvNetAS", "ConvNetAR", "ConvNetAL", "ConvNetNN", "ConvNetBN", "ConvNetLN", "ConvNetIN", "ConvNetGN"),
    *("ConvNetNP", "ConvNetMP", "ConvNetAP"),
]
# Every name that the published get_network takes.
NAMES = {
    "dc": [*COMMON, "AlexNetBN", "ResNet18BN", "ConvNetASwish", "ConvNetASwishBN"],
    "mtt": [*COMMON, "ResNet18_AP", *DEPTHS[4:], "ConvNetW512", "ConvNetW1024", "ConvNetKIP"],
    "tesla": ["ConvNet", *DEPTHS],
}
NAMES["fairdd"] = NAMES["dc"]
GET = {
    "dc": dc.get_network,
    "fairdd": fairdd.get_network,
    "mtt": mtt.get_network,
    "tesla": mtt.get_network,
}
# Of FairDD's networks, these have heads for 64x64 pixels.
OF_64 = {"AlexNet", "VGG11", "VGG11BN", "ResNet18", "ResNet18BN"}
# Parameters for 10 classes: (three channels, 32x32; one channel, 28x28), counted on the published networks.
COUNTS = {
    "MLP": (411_146, 118_282),
    "ConvNet": (320_010, 317_706),
    "LeNet": (62_006, 61_706),
    "AlexNet": (1_872_202, 1_865_802),
    "AlexNetBN": (1_874_122, 1_867_722),
    "VGG11": (9_231_114, 9_229_962),
    "VGG11BN": (9_231_114, 9_229_962),
    "ResNet18": (11_173_962, 11_172_810),
    "ResNet18BN": (11_173_962, 11_172_810),
    "ResNet18_AP": (11_250_762, 11_213_770),
    "ResNet18BN_AP": (11_250_762, 11_213_770),
    "ConvNetD1": (331_530, 329_226),
    "ConvNetD2": (233_610, 231_306),
    "ConvNetD3": (320_010, 317_706),
    "ConvNetD4": (452_490, 450_186),
    "ConvNetD5": (596_490, 594_186),
    "ConvNetW32": (24_714, 24_138),
    "ConvNetW64": (86_282, 85_130),
    "ConvNetW128": (320_010, 317_706),
    "ConvNetW256": (1_229_834, 1_225_226),
    "ConvNetW512": (4_818_954, 4_809_738),
    "ConvNetW1024": (19_075_082, 19_056_650),
    "ConvNetKIP": (19_068_938, 19_050_506),
    **dict.fromkeys(("ConvNetAS", "ConvNetAR", "ConvNetAL", "ConvNetASwish", "ConvNetASwishBN"), (320_010, 317_706)),
    **dict.fromkeys(("ConvNetBN", "ConvNetIN", "ConvNetGN", "ConvNetMP", "ConvNetAP"), (320_010, 317_706)),
    "ConvNetNN": (319_242, 316_938),
    "ConvNetLN": (663_306, 661_002),
    "ConvNetNP": (1_610_250, 1_607_946),
}


def draws(number, *shape):
    return rng.normal(rng.key(number, "drop-in"), torch.Size(shape).numel()).view(shape)


@pytest.fixture
def clock(monkeypatch):
    """Stops the clock that the published code seeds torch with."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.123)


@pytest.fixture
def published(public_checkout):
    """``published(family)``: the checkout's utils and networks."""

    def find(family):
        return checkout.modules(public_checkout(family), ("utils", "networks"))

    return find


def assert_same(ours, theirs, images):
    """The same parameters and buffers in the same order; and outputs, exactly but for rounding.

    Outputs in float64 agree to it; in float32 ours are no further from those than four times theirs: twice for a
    convolution by Winograd's method, and twice for the luck of a few outputs. Embeddings, of more values, twice.
    """
    own, expected = ours.state_dict(), theirs.state_dict()
    assert list(own) == list(expected)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert all(own[key].dtype == expected[key].dtype for key in own)
    assert all(map(torch.equal, own.values(), expected.values()))
    for net in (ours, theirs):
        net.eval()
    with torch.no_grad():
        truth = copy.deepcopy(theirs).double()(images.double())
        assert (copy.deepcopy(ours).double()(images.double()) - truth).norm() <= 1e-12 * truth.norm()
        error = (theirs(images) - truth).norm()
        assert (ours(images) - truth).norm() <= 4 * error + 1e-6 * truth.norm()
        if hasattr(theirs, "embed"):
            found, embedded = ours.embed(images), theirs.embed(images)
            truth = copy.deepcopy(theirs).double().embed(images.double())
            assert found.shape == embedded.shape
            assert (found - truth).norm() <= 2 * (embedded - truth).norm() + 1e-6 * truth.norm()


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in NAMES.items() for name in names])
@pytest.mark.parametrize("channels", [1, 3])
def test_get_network_is_the_published_one(published, clock, family, name, channels):
    utils, _ = published(family)
    size = 64 if family == "fairdd" and name in OF_64 else 28 if channels == 1 else 32
    if name in DEPTHS[5:]:
        size = 2 ** int(name[-1])
    state = torch.get_rng_state()
    theirs = utils.get_network(name, channels, 10, (size, size))
    drawn = torch.get_rng_state()
    torch.set_rng_state(state)
    ours = GET[family](name, channels, 10, (size, size), rng="legacy")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert_same(ours, theirs, draws(1, 2, channels, size, size))


def test_published_names_are_all_there_are(published, capsys):
    utils, _ = published("dc")
    for name in ("ConvNetD9", "resnet18", ""):
        with pytest.raises(SystemExit) as theirs:
            utils.get_network(name, 3, 10)
        with pytest.raises(SystemExit) as ours:
            dc.get_network(name, 3, 10)
        assert ours.value.code == theirs.value.code == f"unknown model: {name}"
    utils, _ = published("mtt")
    for get in (utils.get_network, mtt.get_network):
        with pytest.raises(SystemExit, match="DC error: unknown model"):
            get("ConvNetX", 3, 10)


FACTORIES = [
    ("dc", name, 32)
    for name in ("VGG13", "VGG16", "VGG19", "ResNet34", "ResNet50", "ResNet18_AP", "ResNet18BN_AP", "ResNet18BN")
]
FACTORIES += [("fairdd", name, 64) for name in ("AlexNet", "VGG11", "VGG11BN", "VGG16", "ResNet18", "ResNet34")]
FACTORIES += [("fairdd", "ResNet50", 32), ("mtt", "ResNet18ImageNet", 64), ("mtt", "ResNet6ImageNet", 64)]


@pytest.mark.parametrize(("family", "name", "size"), FACTORIES)
def test_constructors_draw_the_published_parameters(published, family, name, size):
    _, networks = published(family)
    made = []
    for module in ({"dc": dc, "fairdd": fairdd, "mtt": mtt}[family], networks):
        torch.manual_seed(5)
        made.append(getattr(module, name)(channel=3, num_classes=4))
    assert_same(*made, draws(2, 2, 3, size, size))


def test_constructors_of_classes(published):
    _, networks = published("mtt")
    setting = {"net_width": 16, "net_depth": 2, "net_act": "relu", "net_norm": "instancenorm"}
    setting["net_pooling"] = "avgpooling"
    for name in ("ConvNet", "ConvNetGAP"):
        made = []
        for module in (mtt, networks):
            torch.manual_seed(6)
            made.append(getattr(module, name)(3, 4, **setting, im_size=(16, 16)))
        assert_same(*made, draws(3, 2, 3, 16, 16))
    _, networks = published("dc")
    made = []
    for module in (dc, networks):
        torch.manual_seed(7)
        made.append(module.ResNet(module.Bottleneck, [1, 1, 1, 1], channel=1, num_classes=3, norm="batchnorm"))
    assert_same(*made, draws(4, 2, 1, 28, 28))
    assert isinstance(dc.ResNet18(3, 10), dc.ResNet)
    assert dc.BasicBlock.expansion == 1
    assert dc.Bottleneck_AP.expansion == 4


@pytest.mark.parametrize("name", COUNTS)
def test_counts_keys_and_shapes(name):
    get = mtt.get_network if name in NAMES["mtt"] else dc.get_network
    for (channels, size), count in zip(((3, 32), (1, 28)), COUNTS[name], strict=True):
        net = get(name, channels, 10, (size, size))
        assert sum(parameter.numel() for parameter in net.parameters()) == count
        with torch.no_grad():
            assert net(torch.zeros(2, channels, size, size)).shape == (2, 10)
            assert net.embed(torch.zeros(2, channels, size, size)).shape == (2, net.embedding_dim)


def test_the_names_that_scripts_use():
    net = dc.get_network("ConvNet", 3, 10)
    assert isinstance(net, dc.ConvNet)
    assert isinstance(net.features, nn.Sequential)
    assert isinstance(net.features[0], nn.Conv2d)
    assert isinstance(net.features[1], nn.GroupNorm)
    assert isinstance(net.classifier, nn.Linear)
    assert isinstance(dc.get_network("ConvNetBN", 3, 10).features[1], nn.BatchNorm2d)


def test_three_channels_of_28_pixels_fit():
    """The published code counts on 32x32 and fails."""
    assert dc.get_network("ConvNet", 3, 10, (28, 28))(torch.zeros(1, 3, 28, 28)).shape == (1, 10)


def test_mtt_builds_variants_for_32_pixels():
    for name in ("ConvNetW64", "ConvNetBN", "ConvNetAR", "ConvNetIN", "ConvNetAP", "ConvNetNP"):
        net = mtt.get_network(name, 3, 10, (64, 64))
        assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    for name in ("ConvNet", "ConvNetD4", "AlexNet"):
        assert mtt.get_network(name, 3, 10, (64, 64))(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


def test_fastdc_are_a_function_of_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        compat.seed(3)
        runs.append([dc.get_network("ConvNetBN", 3, 10).state_dict() for _ in range(2)])
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1].values(), runs[1][1].values(), strict=True))
    assert not torch.equal(runs[0][0]["features.0.weight"], runs[0][1]["features.0.weight"])


def test_parameters_have_memory_of_their_own():
    net = dc.get_network("ConvNet", 3, 10)
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in net.parameters())
    assert all(p.is_leaf and p.requires_grad for p in net.parameters())


def test_legacy_seeds_torch_with_the_clock(clock):
    made = []
    for _ in range(2):
        with compat.use_rng("legacy"):
            made.append(dc.get_network("LeNet", 3, 10))
        assert torch.initial_seed() == 1_700_000_000_123 % 100_000
    torch.manual_seed(1_700_000_000_123 % 100_000)
    made.append(dc.LeNet(3, 10))
    for own in made[1:]:
        assert all(map(torch.equal, own.state_dict().values(), made[0].state_dict().values()))


def test_several_gpus_are_one_data_parallel_network(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert isinstance(mtt.get_network("ConvNet", 3, 10, dist=False), dc.ConvNet)
    placed = []
    monkeypatch.setattr(models, "initialised", lambda make, key, device: placed.append(device) or make())
    monkeypatch.setattr(nn, "DataParallel", lambda net: ("parallel", net))
    kind, net = dc.get_network("ConvNet", 3, 10)
    assert (kind, type(net), placed) == ("parallel", dc.ConvNet, ["cuda"])
