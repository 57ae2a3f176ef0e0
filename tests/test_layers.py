"""The linter of imports sees all rooms, those outside of fastdd/ too (kernels/ and bench/)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path):
    """A copy of what is linted."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("fastdd", "kernels", "bench"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return tmp_path


def lint(folder):
    script = ROOT / "tools" / "lint_imports.py"
    return subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=60)


def test_imports_point_down():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("fastdd/core/rng.py", "import fastdd.kernels", "Rooms point down BROKEN"),
        ("fastdd/core/rng.py", "import fastdd.bench", "Rooms point down BROKEN"),
        ("fastdd/ops/kde.py", "from fastdd.bench.oracles import dm", "Rooms point down BROKEN"),
        ("kernels/kde.py", "from fastdd import models", "Rooms point down BROKEN"),
        ("fastdd/newroom.py", "import fastdd.core", "Rooms point down BROKEN"),
        ("fastdd/methods/parts/draws.py", "from fastdd.methods import dm", "knows no method BROKEN"),
        ("bench/framework/case.py", "from fastdd.bench.baselines import plain", "BROKEN"),
    ],
)
def test_an_import_that_points_up_is_seen(checkout, module, line, contract):
    with open(checkout / module, "a") as file:
        file.write(f"\n{line}\n")
    done = lint(checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert contract in " ".join(done.stdout.split())
