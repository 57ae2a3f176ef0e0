import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fastdd import __version__
from fastdd.core import ext as _ext

ROOT = Path(__file__).resolve().parent.parent
SETUP = ROOT / "setup.py"

built = pytest.mark.skipif(not _ext.available(), reason="fastdd._C is not built")
source = pytest.mark.skipif(not SETUP.is_file(), reason="not in a source tree")


@built
def test_build_info_says_how_it_was_built():
    info = _ext.build_info()
    assert info["version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{16}", info["source_hash"])
    assert re.match(r"(gcc|clang) \d+", info["compiler"])
    assert info["build_type"] in ("release", "debug")
    assert info["torch_target"] == "2.10"
    assert info["simd_active"] in info["simd"].split(";")
    assert info["cuda"] == bool(info["cuda_archs"]) == _ext.has_cuda_kernels()


@built
@source
def test_extension_is_as_old_as_its_sources():
    assert not _ext.stale(), _ext.reason()
    assert _ext.reason() == ""


@built
def test_stale_extension_is_reported_not_refused(monkeypatch):
    monkeypatch.setattr(_ext, "source_hash", lambda folder: "0" * 16)
    assert _ext.available()
    if SETUP.is_file():
        assert "older than csrc/" in _ext.reason()
        assert _ext.build_info()["stale"]


def test_source_hash_sees_names_and_contents(tmp_path):
    (tmp_path / "a.cpp").write_text("int a;")
    first = _ext.source_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("not compiled")
    assert _ext.source_hash(tmp_path) == first
    (tmp_path / "a.cpp").rename(tmp_path / "b.cpp")
    second = _ext.source_hash(tmp_path)
    (tmp_path / "b.cpp").write_text("int b;")
    assert len({first, second, _ext.source_hash(tmp_path)}) == 3


@source
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FASTDD_BUILD_EXT", "yes", "FASTDD_BUILD_EXT='yes' is not auto, 0 or 1"),
        ("FASTDD_CUDA", "on", "FASTDD_CUDA='on' is not auto, 0 or 1"),
        ("TORCH_CUDA_ARCH_LIST", "Hopper", "'Hopper' is not like 9.0 or 9.0+PTX"),
    ],
)
def test_switches_are_checked_first(name, value, message):
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert message in done.stderr


@pytest.fixture
def tree(tmp_path):
    """A copy of what a build needs."""
    for name in ("fastdd", "kernels", "bench", "csrc", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for path in ROOT.iterdir():
        if path.suffix in (".py", ".toml", ".in", ".md", ".yml") or path.name == "LICENSE":
            shutil.copy(path, tmp_path)
    for name in ("README.md", "LICENSE"):
        (tmp_path / name).touch()
    return tmp_path


def build(tree, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tree / "dist"), *arguments, str(tree)],
        env={**os.environ, "FASTDD_CUDA": "0", **environment},
        capture_output=True,
        text=True,
    )


@source
@pytest.mark.slow
def test_wheel_holds_the_extension_and_the_mapped_folders(tree):
    done = build(tree, "--wheel", FASTDD_BUILD_EXT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(re.fullmatch(r"fastdd/_C\..*\.so", name) for name in names)
    assert {"fastdd/kernels/segment_mean.py", "fastdd/kernels/configs/sm_90.json"} <= set(names)
    assert {"fastdd/bench/__init__.py", "fastdd/bench/oracles/dm.py"} <= set(names)
    assert not any(name.startswith(("kernels/", "bench/", "tests/")) for name in names)


@source
@pytest.mark.slow
def test_sdist_holds_the_sources_of_the_extension(tree):
    done = build(tree, "--sdist", FASTDD_BUILD_EXT="0")
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    assert {f"csrc/{path.name}" for path in (ROOT / "csrc").iterdir()} <= names
    assert {"kernels/configs/sm_90.json", "kernels/segment_mean.py", "setup.py"} <= names
    assert {"CHANGELOG.md", "mkdocs.yml", "docs/index.md", "docs/demo-dm.png", "docs/reference/api.md"} <= names


@source
@pytest.mark.slow
@pytest.mark.parametrize(("switch", "pure"), [("0", True), ("auto", False)])
def test_install_without_a_compiler_is_pure_python(tree, switch, pure):
    done = build(tree, "--wheel", FASTDD_BUILD_EXT=switch, CXX="no-such-compiler")
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    assert not any(name.startswith("fastdd/_C.") for name in zipfile.ZipFile(wheel).namelist())
    assert ("py3-none-any" in wheel.name) == pure
    assert ("no C++ compiler was found (no-such-compiler)" in done.stdout + done.stderr) == (switch == "auto")


@source
@pytest.mark.slow
def test_extension_that_must_be_built_fails_the_install(tree):
    done = build(tree, "--wheel", FASTDD_BUILD_EXT="1", CXX="no-such-compiler")
    assert done.returncode != 0
    assert "fastdd._C: no C++ compiler was found (no-such-compiler)" in done.stdout + done.stderr
