"""The linter of imports sees all rooms, those outside of fastdd/ too (kernels/ and bench/)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")
ROOT = Path(__file__).resolve().parent.parent


def lint(folder):
    script = ROOT / "tools" / "lint_imports.py"
    return subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=60)


def test_imports_point_down():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


# Module, a line added to it, and what the linter says of that one.
UPWARD = [
    ("fastdd/core/rng.py", "import fastdd.kernels", "fastdd.core.rng -> fastdd.kernels"),
    ("fastdd/core/rng.py", "import fastdd.bench", "fastdd.core.rng -> fastdd.bench"),
    ("fastdd/ops/kde.py", "from fastdd.bench.oracles import dm", "fastdd.ops.kde -> fastdd.bench.oracles.dm"),
    ("kernels/kde.py", "from fastdd import models", "fastdd.kernels.kde -> fastdd.models"),
    ("fastdd/newroom.py", "import fastdd.core", "newroom"),
    (
        "fastdd/methods/parts/draws.py",
        "from fastdd.methods import dm",
        "fastdd.methods.parts.draws -> fastdd.methods.dm",
    ),
    (
        "bench/framework/case.py",
        "from fastdd.bench.baselines import plain",
        "fastdd.bench.framework.case -> fastdd.bench.baselines.plain",
    ),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the linter says of a copy of what is linted, with all of them."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for room in ("fastdd", "kernels", "bench"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for module, line, _ in UPWARD:
        with open(folder / module, "a") as file:
            file.write(f"\n{line}\n")
    done = lint(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(("module", "line", "said"), UPWARD)
def test_an_import_that_points_up_is_seen(told, module, line, said):
    assert said in told


@pytest.mark.parametrize(
    "contract", ["Rooms point down", "What methods share knows no method", "Bench: cases measure baselines, .*"]
)
def test_contracts_that_they_break_are_named(told, contract):
    assert re.search(f"{contract} BROKEN", told)
