"""``make upstream``: recipes of published code, data for it, what is compared, and a run of each kind."""

import cProfile
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdd.compat.hook.torchvision_substitute import datasets
from fastdd.exchange import torch_files

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools" / "upstream"
_NAMES = ("recipes", "data", "parity", "exchange", "report", "runs")

pytestmark = pytest.mark.skipif(not (TOOLS / "recipes.py").is_file(), reason="not in a source tree")


@pytest.fixture
def tools(monkeypatch):
    """Modules of the tool, by name."""
    monkeypatch.syspath_prepend(str(TOOLS))
    for name in _NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = {name: importlib.import_module(name) for name in _NAMES}
    yield found
    for name in _NAMES:
        sys.modules.pop(name, None)


def test_every_recipe_is_one_and_takes_what_an_earlier_script_wrote(tools):
    found = tools["recipes"].load()
    assert len({recipe.name for recipe in found}) == len(found) >= 15
    for recipe in found:
        assert recipe.scripts or recipe.why_not
        before: set[str] = set()
        for name, script in recipe.scripts.items():
            assert set(script.takes) <= before, name
            assert script.results
            before.add(name)


def test_a_recipe_with_a_slip_is_an_error_that_names_it(tools, tmp_path):
    (tmp_path / "a.yaml").write_text("name: A\nsource: x\nentries: [a.py]\nscript: {}\n")
    with pytest.raises(ValueError, match=r"a\.yaml.*\n?.*script"):
        tools["recipes"].load(tmp_path)


def test_checkouts_are_told_apart_whatever_they_are_called(tools, tmp_path):
    found = tools["recipes"].load()
    for number, recipe in enumerate(found):
        for entry in recipe.entries:
            path = tmp_path / f"{number:02}" / entry
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for number, recipe in enumerate(found):
        assert recipe.checkout(tmp_path) == tmp_path / f"{number:02}", recipe.name
        assert recipe.checkout(tmp_path / f"{number:02}") == tmp_path / f"{number:02}"
    (tmp_path / "empty").mkdir()
    assert found[0].checkout(tmp_path / "empty") is None


def test_a_few_images_are_where_torchvision_has_them(tools, tmp_path):
    images = np.arange(40 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(40, 1, 28, 28)
    labels = np.arange(40) % 10
    rows = tools["data"].first_of_each(labels, 2)
    assert rows.tolist() == list(range(20))
    tools["data"]._mnist(tmp_path, True, images[rows], labels[rows])
    tools["data"]._mnist(tmp_path, False, images[30:], labels[30:])
    read = datasets.MNIST(str(tmp_path), train=True)
    assert np.array_equal(np.asarray(read.data), images[:20, 0])
    assert np.asarray(read.targets).tolist() == labels[:20].tolist()
    colours = np.arange(40 * 3072, dtype=np.uint32).astype(np.uint8).reshape(40, 3, 32, 32)
    for train in (True, False):
        tools["data"]._cifar10(tmp_path, train, colours, labels)
    for train in (True, False):
        read = datasets.CIFAR10(str(tmp_path), train=train)
        assert np.array_equal(np.asarray(read.data), colours.transpose(0, 2, 3, 1))
        assert list(read.targets) == labels.tolist()


def test_parity_is_of_stored_tensors_and_printed_figures(tools, tmp_path):
    images = torch.linspace(-2, 2, 24).view(2, 3, 2, 2)
    for name, off in (("a", 0.0), ("b", 1e-3)):
        (tmp_path / name / "run").mkdir(parents=True)
        torch_files.save({"data": [[images + off, torch.arange(2)]]}, tmp_path / name / "run" / "res.pt")
    said = "[2026-01-01] iter = 3, loss = 0.5, train acc: 0.81", "iter = 3, loss = 0.4, train acc: 0.80"
    found = tools["parity"].compare(tmp_path / "a", tmp_path / "b", ["run/*.pt"], said)
    assert found.tensors == (2, 2)
    assert found.difference == pytest.approx(1e-3 / 2.001, rel=1e-3)
    assert (found.loss, found.accuracy) == (pytest.approx(0.2), pytest.approx(1.0))
    assert str(found) == "all tensors within 5.0e-04, losses 2.0e-01, accuracy 1 points"
    nothing = tools["parity"].compare(tmp_path / "a", tmp_path / "b", ["*.pt"], ("", ""))
    assert str(nothing) == "nothing to compare"


def test_files_go_in_and_out(tools, tmp_path):
    torch_files.save({"data": [[torch.randn(10, 1, 28, 28), torch.arange(10)]]}, tmp_path / "res_DM_MNIST_MLP_1ipc.pt")
    files = tools["recipes"].Files(path="res_*.pt", options={"dataset": "mnist", "to": "dc"})
    said = tools["exchange"].there_and_back(files, tmp_path, tmp_path)
    assert said == "res_DM_MNIST_MLP_1ipc.pt: 10 images in and out as dc, bits equal"
    absent = tools["recipes"].Files(path="no_*.pt", options={"dataset": "mnist", "to": "dc"})
    assert tools["exchange"].there_and_back(absent, tmp_path, tmp_path) == "no_*.pt: not written"


SCRIPT = """
import sys, time
import numpy as np
import torch
import absent
from torchvision import transforms
print("loss = %.6f" % (torch.rand(1).item() + np.random.rand() + time.time() + time.time()))
torch.save(torch.zeros(2).cuda(), "result.pt")
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.full
def test_a_script_runs_both_ways_from_the_same_state(tools, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "distill.py").write_text(SCRIPT)
    scripts = {
        name: {"run": "distill.py", "arguments": status, "options": "--device cpu", "results": ["result.pt"]}
        for name, status in (("ends", "0"), ("fails", "3"))
    }
    recipe = tools["recipes"].Recipe(
        name="Own", source="", entries=["distill.py"], stand_ins={"absent": ""}, scripts=scripts
    )
    runs = tools["runs"]
    place = runs.Place(tmp_path / "work", lambda images: tmp_path, seconds=100)
    checkout = recipe.checkout(tmp_path)
    off, fast = (runs.run(recipe, "ends", kind, 0, checkout, place) for kind in ("off", "profile"))
    assert (off.why, fast.why) == ("", "")
    assert off.output == fast.output != ""
    assert fast.profile
    assert 0 < off.cpu < off.wall + 5
    found = tools["parity"].compare(off.folder, fast.folder, ["result.pt"], (off.output, fast.output))
    assert (found.difference, found.loss) == (0, 0)
    assert runs.run(recipe, "fails", "fast", 0, checkout, place).why.startswith("exit code 3")
    assert not (tmp_path / "code" / "result.pt").exists()


def test_larger_settings_override(tools):
    script = tools["recipes"].Script(
        run="a.py",
        arguments="--ipc 1",
        files={"a.yaml": "ipc: 1\nlr: 2\n"},
        larger={"arguments": "--ipc 5", "changes": {"ipc: 1": "ipc: 5"}, "images": 64, "end": 3},
    )
    assert script.sized(False) is script
    larger = script.sized(True)
    assert larger.arguments == "--ipc 1 --ipc 5"  # the last counts
    assert (larger.files, larger.images) == ({"a.yaml": "ipc: 5\nlr: 2\n"}, 64)


def test_what_a_recipe_changes_for_larger_settings_is_in_its_files(tools):
    for recipe in tools["recipes"].load():
        for script in recipe.scripts.values():
            for before in script.larger.changes:
                assert any(before in text for text in script.files.values()), (recipe.name, before)


def test_a_copy_in_double_precision_says_so(tools, tmp_path):
    (tmp_path / "a.py").write_text("x = x.float() + float(y) + torch.zeros(1, dtype=torch.float)\nz = torch.float64\n")
    tools["runs"]._in_double(tmp_path)
    said = (tmp_path / "a.py").read_text()
    assert said == "x = x.double() + float(y) + torch.zeros(1, dtype=torch.float64)\nz = torch.float64\n"


def test_rows_of_the_same_settings_are_kept(tools, tmp_path):
    report, about = tools["report"], {"seed": 0, "load": "1.0"}
    rows = [{"code": "A", "script": f"{name}.py", "ratio": ratio, "took": 1.0} for name, ratio in (("a", 3), ("b", 1))]
    spent = {"code": "A", "script": "c.py", "ends": "not run: the code base's 9 s a script are spent"}
    report.write([*rows, spent, {"code": "B", "ends": "not there"}], about, tmp_path)
    assert set(report.done(tmp_path, about | {"load": "9.0"})) == {("A", "a.py"), ("A", "b.py")}
    assert report.done(tmp_path, about | {"seed": 1}) == report.done(tmp_path / "none", about) == {}
    assert "median 2.00 of 2 scripts" in (tmp_path / "upstream.md").read_text()


def test_figures_that_are_no_numbers_in_both_agree(tools, tmp_path):
    found = tools["parity"].compare(tmp_path, tmp_path, [], ("mean = nan", "mean = nan"))
    assert (found.accuracy, found.tensors) == (0.0, (0, 0))


def test_a_profile_counts_the_dispatchers_time_for_its_callers(tools):
    start, names = importlib.import_module("start"), {}
    busy = "def {0}(call):\n    {1}\n"
    for file, name, body in (
        ("/x/torch/_ops.py", "redispatch", "for _ in range(200_000): pass"),
        ("/x/fastdd/ops/augment.py", "augment", "call()"),
        ("/x/script.py", "quick", "call(None)"),
    ):
        exec(compile(busy.format(name, body), file, "exec"), names)
    profile = cProfile.Profile()
    profile.runcall(names["quick"], lambda _: names["augment"](lambda: names["redispatch"](None)))
    shares = dict(start.shares(profile))
    assert not any(name.startswith("torch/") for name in shares)
    assert max(shares, key=shares.get) == "tests/test_upstream.py:<lambda>"


def _of_main(tools):
    """The command's own module."""
    spec = importlib.util.spec_from_file_location("upstream_main", TOOLS / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_further_step_lies_between_two_of_one_run(tools, tmp_path):
    script = tools["recipes"].Script(
        run="a.py",
        arguments="--ipc 1",
        larger={"arguments": "--ipc 5", "images": 64},
        further={"own": (1, 3), "ours": (2, 4), "arguments": "--steps 9", "each": 10, "published": 100},
    )
    sized = script.for_further_steps(256)
    assert (sized.arguments, sized.images) == ("--ipc 1 --ipc 5 --steps 9", 64)
    runs, kinds = tools["runs"], tools["runs"].KINDS
    place = runs.Place(tmp_path, lambda images: tmp_path)
    counted = [runs._counted(script, kinds[kind], place) for kind in ("off-further", "fast-further", "off")]
    assert counted == [["--end=30"], ["--end=40"], []]
    networks = script.model_copy(update={"further": script.further.model_copy(update={"of": "networks"})})
    assert runs._counted(networks, kinds["fast-further"], place) == ["--networks", "--end=40"]

    main, seconds = _of_main(tools), {"off-further": [4.0 + 0.5 * k for k in range(30)]}
    seconds["fast-further"] = [5.0] * 20 + [5.0 + 0.1 * k for k in range(20)]

    class Run:
        def __init__(self):
            self.script = script

        def __call__(self, kind):
            return runs.Ran(tmp_path, 0, 0.0, 0.0, steps=seconds[kind])

    class Given:
        further = True

    found = main._further(Run(), Given)
    # A step of its own is ten of 0.5 s; on fastdd (5.0 + 1.9 - 5.0) / 2.
    assert found["further"] == pytest.approx([5.0, 0.95, 5 / 0.95])
    assert found["extrapolated"] == [100, pytest.approx((8.5 + 99 * 5.0) / (5.0 + 98 * 0.95))]
    cell = tools["report"].markdown([{"code": "A", "script": "a.py", **found}], {})
    assert "| 5, 0.95, 5.26 | 5.13 (100) |" in cell
    assert "of a further step: median 5.26 of 1 scripts" in cell
    seconds["fast-further"] = seconds["fast-further"][:30]
    assert main._further(Run(), Given) == {"further": "fast-further: 30 steps"}
