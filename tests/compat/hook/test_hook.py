"""A script's own modules get our functions in place of those that are known, and nothing else changes."""

import copy
import importlib
import inspect
import pickle
import re
import subprocess
import sys

import pytest
import torch
from field_code import IDC_NETWORK, NETWORKS, UTILS

from fastdd import compat, ops
from fastdd.compat.hook import finder as hooks
from fastdd.compat.hook import verify
from fastdd.compat.hook.replacements import TABLE

NET = (3, 4, 8, 2, "relu", "instancenorm", "avgpooling", (16, 16))
STRATEGY = "color_crop_cutout_flip_scale_rotate"


def rows(hook):
    return {row["name"]: row for row in hook.report().rows}


def gradients(seed):
    torch.manual_seed(seed)
    return [torch.randn(shape, requires_grad=True) for shape in ((4, 3, 3, 3), (4,), (5, 16))]


def test_known_names_are_ours_in_the_module_and_for_who_imports_from_it(hooked, folder):
    hook, utils = hooked()
    networks = sys.modules["networks"]
    assert utils.DiffAugment.__module__ == "utils"
    assert utils.ConvNet is networks.ConvNet
    assert "fastdd" in networks.ConvNet.__mro__[1].__module__
    assert {name: row["module"] for name, row in rows(hook).items()} == {
        "ConvNet": "networks",
        **dict.fromkeys(("DiffAugment", "augment", "distance_wb", "match_loss", "epoch"), "utils"),
    }
    assert utils.get_loops.__code__.co_filename == str(folder / "utils.py")  # the script's own


def test_calls_are_counted_and_give_what_the_original_gives(hooked):
    hook, utils = hooked()
    syn, real = gradients(0), [x.detach() for x in gradients(1)]
    for _ in range(5):
        loss = utils.match_loss(syn, real, type("Args", (), {"dis_metric": "ours", "device": "cpu"}))
    expected = sum(
        (1 - torch.cosine_similarity(s.flatten(1), r.flatten(1), dim=1)).sum()
        for s, r in zip(syn, real, strict=True)
        if s.dim() > 1
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    row = rows(hook)["match_loss"]
    assert (row["calls"], row["checked"], row["agreed"], row["original"]) == (5, 3, 3, 0)
    assert row["seconds"] > 0


def test_fast_draws_leave_the_global_generator_alone_and_compared_calls_leave_it_as_the_original_does(hooked):
    hook, utils = hooked()
    x, param = torch.rand(4, 3, 16, 16), utils.ParamDiffAug()
    for call in range(6):
        torch.manual_seed(5)
        out = utils.DiffAugment(x, STRATEGY, seed=7, param=param)
        assert out.shape == x.shape
        assert (torch.initial_seed() == 5) == (call >= hooks.CHECKS)
    assert rows(hook)["DiffAugment"]["agreed"] == hooks.CHECKS


def test_classes_behave_as_classes(hooked, folder):
    hook, utils = hooked()
    torch.manual_seed(0)
    net = utils.ConvNet(*NET)
    (folder / "more.py").write_text(
        "from networks import ConvNet\n"
        "class MyNet(ConvNet):\n"
        "    def __init__(self):\n"
        f"        super(MyNet, self).__init__(*{NET!r})\n"
        "    def forward(self, x):\n"
        "        return 2 * super().forward(x)\n"
    )
    mine = importlib.import_module("more").MyNet()
    assert isinstance(net, utils.ConvNet)
    assert isinstance(mine, utils.ConvNet)
    mine.load_state_dict(net.state_dict())
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(mine(x), 2 * net(x))
    loaded = pickle.loads(pickle.dumps(net))
    assert type(loaded) is utils.ConvNet
    torch.testing.assert_close(loaded(x), net(x))
    assert rows(hook)["ConvNet"]["calls"] == 2
    assert rows(hook)["ConvNet"]["agreed"] == 1  # subclasses are not compared


WITHOUT_US = """
import sys
sys.modules["fastdd"] = None  # an import of it fails
sys.path.insert(0, sys.argv[1])
import torch
for file in sys.argv[2:]:
    net, part, x, expected = torch.load(file, weights_only=False)
    kinds = {type(layer) for layer in net.modules()} - {type(net)}
    assert {kind.__module__.partition(".")[0] for kind in kinds} == {"torch"}, kinds
    assert part is next(layer for layer in net.modules() if isinstance(layer, type(part)))
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
"""


def test_networks_saved_whole_load_where_we_are_not(hooked, folder):
    """And where the hook is, they are ours again, as copies are."""
    (folder / "more.py").write_text(IDC_NETWORK)
    hook, utils = hooked()
    x = torch.rand(2, 3, 16, 16)
    nets = [utils.ConvNet(*NET), importlib.import_module("more").ConvNet(4, net_width=8, net_depth=2, im_size=(16, 16))]
    for number, (net, first) in enumerate(zip(nets, (nets[0].features, nets[1].layers["conv"][0]), strict=True)):
        assert "fastdd" in type(net).__mro__[1].__module__
        content = pickle.dumps(net)
        assert b"fastdd" not in content
        expected = net(x).detach()
        for again in (pickle.loads(content), copy.deepcopy(net)):
            assert [*map(type, again.modules())] == [*map(type, net.modules())]
            assert torch.equal(again(x), expected)
        torch.save((net, first, x, expected), folder / f"{number}.pt")
    assert sum(isinstance(layer, ops.Conv2d) for net in nets for layer in net.modules()) == 4
    assert [row["agreed"] for row in hook.report().rows if row["name"] == "ConvNet"] == [1, 1]
    files = [str(folder / f"{number}.pt") for number in range(len(nets))]
    subprocess.run([sys.executable, "-c", WITHOUT_US, str(folder), *files], check=True, cwd=folder)


def test_an_epoch_trains_as_the_original_does(hooked):
    hook, utils = hooked()
    torch.manual_seed(0)
    net = utils.ConvNet(*NET)
    data = torch.utils.data.TensorDataset(torch.randn(24, 3, 16, 16), torch.arange(24) % 4)
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    args = type("Args", (), {"device": "cpu", "dsa": True, "dsa_strategy": STRATEGY, "dsa_param": utils.ParamDiffAug()})
    losses = [utils.epoch("train", loader, net, optimizer, torch.nn.CrossEntropyLoss(), args, True) for _ in range(12)]
    assert losses[-1][0] < losses[0][0]
    row = rows(hook)["epoch"]
    assert (row["calls"], row["checked"], row["agreed"]) == (12, 3, 3)
    assert rows(hook)["DiffAugment"]["calls"] == 0  # those inside an epoch are no calls of the script's


def test_names_that_differ_go_back_to_the_original(hooked, folder):
    text = UTILS.replace("return sum(distance_wb", "return 2 * sum(distance_wb")
    (folder / "utils.py").write_text(text)
    hook, utils = hooked()
    syn, real = gradients(0), [x.detach() for x in gradients(1)]
    args = type("Args", (), {"dis_metric": "ours", "device": "cpu"})
    first, second = (utils.match_loss(syn, real, args) for _ in range(2))
    assert torch.equal(first, second)
    assert first.item() == pytest.approx(
        2 * sum(utils.distance_wb(r, s).item() for s, r in zip(syn, real, strict=True))
    )
    row = rows(hook)["match_loss"]
    assert (row["checked"], row["agreed"], row["original"]) == (1, 0, 1)
    assert "call 1 differs: loss differs by 0.5, relative" in row["notes"][0]
    assert "differs from the original, which was used instead: match_loss" in hook.summary()


def test_what_ours_sets_besides_on_param_is_no_difference(hooked):
    """After an epoch of ours, param has ``batchmode``, which an original of the other family never sets."""
    _, utils = hooked()
    original = utils.DiffAugment.__wrapped__

    def sets_no_batchmode(x, strategy="", seed=-1, param=None):
        kept = param.batchmode
        made = original(x, strategy, seed, param)
        param.batchmode = kept
        return made

    param, x = utils.ParamDiffAug(), torch.rand(3, 3, 16, 16)
    param.batchmode = False
    arguments = {"x": x, "strategy": STRATEGY, "seed": 4, "param": param}
    _, difference = verify.diff_augment(sets_no_batchmode, original, arguments)
    assert difference is None
    _, difference = verify.diff_augment(original, sets_no_batchmode, arguments | {"param": utils.ParamDiffAug()})
    assert difference is not None


def test_a_network_that_differs_goes_back_to_the_original_everywhere(hooked, folder):
    (folder / "networks.py").write_text(
        NETWORKS.replace("self.classifier(self.embed(x))", "self.classifier(self.embed(x)) + 1")
    )
    hook, utils = hooked()
    kept = utils.ConvNet
    net = utils.ConvNet(*NET)
    assert type(net).__mro__[1] is torch.nn.Module
    assert utils.ConvNet is sys.modules["networks"].ConvNet is type(net)
    assert type(kept(*NET)) is type(net)
    assert rows(hook)["ConvNet"]["original"] == 2


def test_an_epoch_goes_back_with_what_it_calls(hooked, folder):
    text = UTILS.replace('rng="legacy")', 'rng="legacy") + 1')
    (folder / "utils.py").write_text(text)
    hook, utils = hooked()
    utils.DiffAugment(torch.rand(2, 3, 16, 16), STRATEGY, param=utils.ParamDiffAug())
    net = utils.ConvNet(*NET)
    loader = [(torch.randn(4, 3, 16, 16), torch.arange(4))]
    args = type("Args", (), {"device": "cpu", "dsa": False})
    utils.epoch("test", loader, net, None, torch.nn.CrossEntropyLoss(), args, False)
    assert rows(hook)["epoch"]["notes"][0] == "DiffAugment fell back"


@pytest.mark.parametrize(
    ("old", "new", "name", "why"),
    [
        ("criterion, args, aug)", "criterion, args, aug, step)", "epoch", r"aug, step\) has other parameters"),
        ("return total / seen, right / seen", "return total, right, seen", "epoch", "returns 3 values, not 2"),
        ("def augment(images, dc_aug_param, device)", "def augment(images)", "epoch", "module's own augment"),
        ("def augment(", "@torch.no_grad()\ndef augment(", "augment", "decorated"),
        ("def distance_wb(gwr, gws)", "def distance_wb(gws, gwr)", "match_loss", "module's own distance_wb"),
    ],
)
def test_changed_functions_are_left_alone_and_reported(hooked, folder, old, new, name, why):
    assert old in UTILS
    (folder / "utils.py").write_text(UTILS.replace(old, new))
    hook, _ = hooked()
    row = rows(hook)[name]
    assert row["ours"] is None
    assert re.search(why, row["notes"][0])
    assert name not in [row["name"] for row in hook.report().rows if row["ours"]]
    assert "left alone" in hook.summary()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("def embed(self, x)", "def features_of(self, x)", "its method features_of"),
        ("def forward(self, x)", "def forward(self, x, train=False)", "its method forward"),
        ("class ConvNet(nn.Module)", "class Base(nn.Module):\n    pass\n\nclass ConvNet(Base)", "derives from Base"),
        ("im_size=(32, 32)", "im_size=(64, 64)", "other parameters"),
    ],
)
def test_changed_networks_are_left_alone(hooked, folder, old, new, why):
    (folder / "networks.py").write_text(NETWORKS.replace(old, new))
    hook, _ = hooked()
    row = rows(hook)["ConvNet"]
    assert row["ours"] is None
    assert why in row["notes"][0]


def test_a_network_that_others_in_its_module_derive_from_is_left_alone(hooked, folder):
    (folder / "networks.py").write_text(NETWORKS + "\nclass Wide(ConvNet):\n    pass\n")
    hook, _ = hooked()
    assert rows(hook)["ConvNet"]["notes"] == ["Wide derives from it"]


def test_modules_with_few_known_names_are_not_touched(hooked, folder):
    epoch = UTILS[UTILS.index("def epoch") : UTILS.index("def get_loops")]
    (folder / "utils.py").write_text(epoch)
    hook, utils = hooked()
    assert utils.epoch.__code__.co_filename == str(folder / "utils.py")
    assert hook.report().rows == []
    assert "nothing was replaced" in hook.summary()


def test_modules_in_packages_count_and_installed_ones_do_not(hooked, folder):
    for package in ("misc", "site-packages"):
        (folder / package).mkdir()
        (folder / package / "nets.py").write_text(NETWORKS)
    hook, _ = hooked()
    assert "fastdd" in importlib.import_module("misc.nets").ConvNet.__mro__[1].__module__
    sys.path.insert(0, str(folder / "site-packages"))
    assert importlib.import_module("nets").ConvNet.__mro__[1] is torch.nn.Module
    del sys.modules["nets"]
    assert [row["module"] for row in hook.report().rows if row["name"] == "ConvNet"] == ["networks", "misc.nets"]


def test_a_loader_with_its_own_generator_is_compared_from_the_same_state(hooked):
    hook, utils = hooked()
    net = utils.ConvNet(*NET)
    data = torch.utils.data.TensorDataset(torch.randn(16, 3, 16, 16), torch.arange(16) % 4)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))
    args = type("Args", (), {"device": "cpu", "dsa": False})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    utils.epoch("train", loader, net, optimizer, torch.nn.CrossEntropyLoss(), args, False)
    assert rows(hook)["epoch"]["agreed"] == 1


def test_operations_of_the_modules_own_stay_with_the_original(hooked, folder):
    text = UTILS.replace(
        "    return dc.DiffAugment(",
        "    if strategy == 'mix':\n        return x * 0\n    return dc.DiffAugment(",
    )
    (folder / "utils.py").write_text(text)
    hook, utils = hooked()
    assert not utils.DiffAugment(torch.ones(1, 3, 16, 16), "mix").any()
    row = rows(hook)["DiffAugment"]
    assert (row["calls"], row["original"]) == (1, 1)
    assert "mix is the module's own" in row["notes"][0]


def test_an_original_that_cannot_run_here_is_not_compared(hooked, folder):
    text = UTILS.replace(
        "    return sum(distance_wb", "    raise AssertionError('no CUDA')\n    return sum(distance_wb"
    )
    (folder / "utils.py").write_text(text)
    hook, utils = hooked()
    args = type("Args", (), {"dis_metric": "ours", "device": "cpu"})
    assert utils.match_loss(gradients(0), [x.detach() for x in gradients(1)], args).item() > 0
    assert "not compared: the original raised AssertionError: no CUDA" in rows(hook)["match_loss"]["notes"]


def test_with_a_gpu_originals_draw_on_the_host_while_they_are_compared(hooked, folder, monkeypatch):
    # The device "meta" has no generator: what is drawn for it leaves the host's alone, unless the host draws.
    (folder / "utils.py").write_text(
        UTILS.replace("    return images", "    torch.rand(3, device='meta')\n    return images")
    )
    _, utils = hooked()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    images, draw = torch.ones(1, 3, 4, 4), torch.rand
    torch.manual_seed(0)
    utils.augment(images, {"strategy": "none"}, "cpu")
    after = torch.get_rng_state()
    torch.manual_seed(0)
    torch.rand(3)
    assert torch.equal(after, torch.get_rng_state())
    assert torch.rand is draw


def test_install_reaches_modules_that_are_there_already(folder, monkeypatch):
    importlib.invalidate_caches()
    main = type(sys)("__main__")
    main.__file__ = str(folder / "main.py")
    utils = importlib.import_module("utils")
    main.DiffAugment, main.ConvNet, main.utils = utils.DiffAugment, utils.ConvNet, utils
    monkeypatch.setitem(sys.modules, "__main__", main)
    hook = compat.install(rng="legacy")
    assert main.DiffAugment is utils.DiffAugment
    assert hasattr(main.DiffAugment, "__wrapped__")
    assert main.ConvNet is sys.modules["networks"].ConvNet
    assert "fastdd" in main.ConvNet.__mro__[1].__module__
    assert "rng legacy" in hook.summary()


def test_install_reaches_what_the_script_itself_has_defined(folder, monkeypatch):
    text = UTILS.replace("from networks import ConvNet", "")
    (folder / "main.py").write_text(text)
    main = type(sys)("__main__")
    main.__file__ = str(folder / "main.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    before, after = text.split("def match_loss")
    exec(before, vars(main))
    hook = compat.install()
    assert [hasattr(vars(main).get(name), "__wrapped__") for name in ("augment", "match_loss")] == [True, False]
    exec("def match_loss" + after, vars(main))
    assert compat.install() is hook
    assert hasattr(main.match_loss, "__wrapped__")
    assert main.match_loss.__wrapped__.__globals__["distance_wb"] is main.distance_wb


def test_install_replaces_nothing_where_the_environment_forbids_it(folder, monkeypatch):
    importlib.invalidate_caches()
    main = type(sys)("__main__")
    main.__file__ = str(folder / "main.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setenv("FASTDD_COMPAT", "0")
    hook = compat.install()
    assert not hasattr(importlib.import_module("utils").DiffAugment, "__wrapped__")
    assert hook.report().rows == []


@pytest.mark.parametrize("known", TABLE, ids=lambda known: known.ours.rpartition(".")[2])
def test_what_takes_a_place_fits_it(known):
    ours = known.load()
    parameters = [p for p in inspect.signature(ours).parameters.values() if p.name != "rng"]
    plain = [p.replace(annotation=p.empty) for p in parameters]
    assert str(inspect.Signature(plain)) == known.signature
    assert isinstance(ours, type) == bool(known.methods)
    if "ConvNet" in known.ours:
        assert not [name for name in known.methods if not name.startswith("_") and not hasattr(ours, name)]


def test_install_refuses_another_rng():
    with pytest.raises(ValueError, match=r"rng must be one of fast, legacy, not 'philox'"):
        compat.install(rng="philox")
