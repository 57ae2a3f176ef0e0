"""``fastdd run``: a script runs as Python runs it, and the end says what was replaced."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from field_code import path_of_a_script
from forked import Script

FAMILY = """
import torch

def DiffAugment(x, strategy='', seed=-1, param=None):
    raise AssertionError("the script's own")

def get_loops(ipc):
    return 1, 1

def get_daparam(dataset, model, model_eval, ipc):
    return {}

def augment(images, dc_aug_param, device):
    return images
"""
USES = """
import sys
import torch
from utils import DiffAugment, augment
images = DiffAugment(torch.rand(2, 3, 8, 8), "flip", seed=1)
print(list(images.shape), sys.argv[1:])
"""


@pytest.fixture
def script(tmp_path):
    """``script(text, **others)``: writes script.py, and other modules beside it; its path."""

    def write(text, **others):
        folder = tmp_path / "code"
        folder.mkdir()
        for name, content in {"script": text, **others}.items():
            (folder / f"{name}.py").write_text(content)
        return folder / "script.py"

    return write


def python(*arguments, cwd=None, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )
    return done.returncode, done.stdout, done.stderr


def forked(source, *arguments):
    done = Script(source, *arguments)
    return done.end(), done.output, done.errors


@pytest.fixture
def in_process(run, monkeypatch):
    """``fastdd run`` in this process: (exit code, stdout, stderr)."""
    for name, value in {"argv": sys.argv, "path": path_of_a_script(), "meta_path": list(sys.meta_path)}.items():
        monkeypatch.setattr(sys, name, value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    yield lambda *arguments: run("run", *arguments)
    for name in ("broken", "helper", "utils", "own_code", "own_code.utils"):
        sys.modules.pop(name, None)


TELLING = """
import inspect, os, pickle, sys
from helper import where
class Thing: pass
print(__name__, __file__, __package__, __spec__, sys.argv, sys.path[0], os.getcwd(), where())
print(sys.modules["__main__"].Thing is Thing, type(pickle.loads(pickle.dumps(Thing()))) is Thing)
print(inspect.getsource(where), sorted(name for name in globals() if name.startswith("__") and name[2] != "a"))
"""


def test_a_script_cannot_tell(script, tmp_path, in_process):
    path = script(TELLING, helper="def where():\n    return __file__, __name__, __loader__.get_source('helper')\n")
    arguments = (os.path.relpath(path, tmp_path), "--seed", "3", "--debug", "-x")
    code, out, _ = python(*arguments, cwd=tmp_path)
    assert (code, out.count("\n") > 3) == (0, True)
    assert in_process(*arguments)[:2] == (0, out)


@pytest.mark.parametrize(
    "text",
    [
        "import sys; print('out'); sys.exit(3)",
        "import sys; sys.exit('what is wrong')",
        "raise SystemExit",
        "import broken",
        "def f(:\n",
        "import sys\nsys.excepthook = lambda *_: print('hooked')\nraise ValueError('x')",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise RuntimeError('second') from error",
    ],
)
def test_exit_codes_and_tracebacks_are_the_scripts_own(script, text, in_process):
    path = script(text, broken="def inner():\n    return {}['key']\n\ninner()\n")
    code, out, err = python(path)
    assert in_process(path) == (
        code,
        out,
        f"{err}fastdd: no module that the script imports defines functions that fastdd knows: nothing was replaced\n",
    )


def test_names_are_replaced_and_the_summary_says_so(script, tmp_path, in_process):
    path = script(USES, utils=FAMILY)
    code, out, err = in_process("--json", tmp_path / "summary.json", path, "--ipc", 10)
    assert (code, out) == (0, "[2, 3, 8, 8] ['--ipc', '10']\n")
    assert "replaced by fastdd, rng fast" in err
    document = json.loads((tmp_path / "summary.json").read_text())
    rows = {row["name"]: row for row in document["rows"]}
    assert set(rows) == {"DiffAugment", "augment"}
    assert rows["DiffAugment"] | {"seconds": 0, "notes": []} == {
        "name": "DiffAugment",
        "module": "utils",
        "ours": "fastdd.compat.dc.DiffAugment",
        "calls": 1,
        "seconds": 0,
        "checked": 0,
        "agreed": 0,
        "original": 0,
        "notes": [],
    }
    assert document["meta"]["rng"] == "fast"


def test_nothing_is_replaced_where_the_environment_forbids_it(script, in_process, monkeypatch):
    monkeypatch.setenv("FASTDD_COMPAT", "0")
    code, _, err = in_process(script(USES, utils=FAMILY))
    assert code == 1
    assert "AssertionError: the script's own" in err
    assert "fastdd: FASTDD_COMPAT=0, nothing was replaced" in err.splitlines()[-1]


def test_seeds_reach_the_draws(script, in_process):
    path = script(
        "import torch\n"
        "from utils import DiffAugment\n"
        "print([DiffAugment(torch.arange(64.).view(1, 1, 8, 8), 'crop').sum().item() for _ in range(6)])\n",
        utils=FAMILY,
    )
    first, other, again = (in_process("--seed", seed, path)[1] for seed in (1, 2, 1))
    assert first == again != other


def test_the_summary_comes_once_and_after_an_exception_too(script):
    """Not of workers of loaders, nor of forked children; what the script leaves for the end comes later."""
    path = script(
        """
import atexit, os, sys
import torch
from torch.utils.data import DataLoader, Dataset
from utils import DiffAugment

class Images(Dataset):
    def __len__(self): return 4
    def __getitem__(self, index): return DiffAugment(torch.rand(1, 3, 8, 8), "flip")[0]

if __name__ == "__main__":
    print(sum(len(batch) for batch in DataLoader(Images(), batch_size=2, num_workers=1)))
    sys.stdout.flush()
    if os.fork() == 0:
        sys.exit(5)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
    atexit.register(print, "bye")
    1 / 0
""",
        utils=FAMILY,
    )
    code, out, err = python("-m", "fastdd.run", path)
    assert (code, out) == (1, "4\n5\nbye\n")
    assert err.count("replaced by fastdd") == 1
    assert err.index("ZeroDivisionError") < err.index("replaced by fastdd")


SPAWNS = """
import multiprocessing
from torch.utils.data import DataLoader, Dataset
from utils import DiffAugment

class Kinds(Dataset):
    def __len__(self): return 1
    def __getitem__(self, index): return hasattr(DiffAugment, "__wrapped__")

def ask(answers):
    answers.put(hasattr(DiffAugment, "__wrapped__"))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=ask, args=(answers,))
    process.start()
    print(answers.get(), *DataLoader(Kinds(), num_workers=1, multiprocessing_context="spawn"))
    process.join()
"""


@pytest.mark.full
def test_processes_started_anew_replace_the_same(script):
    code, out, err = python("-m", "fastdd.run", script(SPAWNS, utils=FAMILY))
    assert (code, out) == (0, "True tensor([True])\n")
    assert err.count("replaced by fastdd") == 1


RELATIVE = """
import sys
from .utils import augment
print(hasattr(augment, "__wrapped__"), __package__, __spec__.name, sys.argv)
"""


def test_a_module_runs_as_by_python_m(script, tmp_path, monkeypatch, in_process):
    package = script(RELATIVE, utils=FAMILY, __init__="").parent.rename(tmp_path / "own_code")
    monkeypatch.chdir(tmp_path)
    code, out, err = in_process("-m", "own_code.script", "--seed", "3")
    assert (code, out) == (0, f"True own_code own_code.script ['{package / 'script.py'}', '--seed', '3']\n")
    assert "fastdd.compat.dc.augment" in err
    assert in_process("-m", "own_code.nowhere")[::2] == (1, "error: there is no module own_code.nowhere\n")


def test_installing_in_a_script_does_the_same(script):
    path = script(
        "from fastdd import compat\nhook = compat.install()\n" + USES + "\nprint(hook.summary())", utils=FAMILY
    )
    source = "import os, runpy, sys\nsys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
    code, out, err = forked(f"{source}runpy.run_path(sys.argv[1], run_name='__main__')", path)
    assert code == 0, err
    assert "fastdd.compat.dc.DiffAugment" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "error: there is no script nowhere.py"),
        (["."], "error: . is a folder, not a script"),
        (["--rng", "philox", "x.py"], "error: rng must be one of fast, legacy, not 'philox'"),
        (["--json", "no/where.json", "x.py"], "error: the folder of no/where.json does not exist"),
        ([], "error: Missing argument 'SCRIPT'."),
        (["--device", "cuda", "x.py"], "error: --device must be cpu, or left to the script, not 'cuda'"),
        (["--fast", "x.py"], "error: there is no option --fast"),
    ],
)
def test_bad_usage_is_one_line(run, arguments, message):
    Path("x.py").write_text("print('ran')")
    code, out, err = run("run", *arguments)
    assert (code, out) == (2 if "json" not in message else 1, "")
    assert err.strip() == message


LOGGED = """
import torch
import wandb
wandb.init(config={"ipc": 3})
wandb.log({"device": str(torch.zeros(2).cuda().to("cuda").device)})
print(wandb.config._items, torch.zeros(1, device="cuda").device)
"""


def test_scripts_for_cuda_that_log_run_without_both(script):
    path = script(LOGGED)
    source = "import sys\nfrom fastdd.cli import main\nmain(['run', *sys.argv[1:]])"
    code, out, err = forked(source, "--device", "cpu", "--wandb-stand-in", path)
    assert (code, out) == (0, "{'ipc': 3} cpu\n")
    assert "CUDA was asked for and the CPU given: Tensor.cuda 1, Tensor.to 1, torch.zeros 1" in err
    assert "wandb is not installed: a stand-in took its place, and nothing was logged" in err


def test_missing_packages_are_told_before_the_script_starts(script, in_process):
    path = script("import no_such_log as log\nlog.init()\n")
    code, out, err = in_process(path)
    assert (code, out) == (1, "")
    assert err.startswith("fastdd: not installed, and imported by the script: no_such_log (init; script.py)\n")
    path.write_text("import wandb\nwandb.Api().runs()\n")
    code, _, err = in_process("--wandb-stand-in", path)
    assert code == 2
    assert err == f"error: {path} does more with wandb than log (Api): install wandb\n"
