"""Wheels for a machine without network: collected where there is one, split to be carried, checked and joined there.

    python tools/wheels.py DIR        (bench/gpu.sh wheels DIR)

DIR/base is what fastdd, its build and its tests need besides PyTorch and Triton, DIR/faiss is faiss-gpu with the CUDA
libraries that it was built for; both for CPython 3.12 on Linux x86-64. A wheel of more than 60 MiB lies there as
NAME.whl.part-00, -01, ...; SHA256SUMS has the sums of wheels, whole ones and split ones, and of parts. Parts may be
carried one after the other: what is missing is told when it is needed.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
SUMS = "SHA256SUMS"
MIB = 1 << 20
PART_BYTES = 60 * MIB
# The machine has these, built for its driver.
_THERE = ("torch", "triton")
# Of the extra "dev": what builds and tests, and neither lints nor packs.
_DEV = ("pytest", "hypothesis", "setuptools", "pybind11", "ninja")
# The smallest cuBLAS that faiss-gpu takes; the newest is half as large again, and wants the run-time compiler too.
_CONSTRAINTS = {"base": [], "faiss": ["nvidia-cublas-cu12<12.7"]}
_TARGET = ["--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:"]
for _glibc in ("2_28", "2_27", "2_26", "2_24", "2_17"):
    _TARGET += ["--platform", f"manylinux_{_glibc}_x86_64"]
_TARGET += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux2010_x86_64"]


def requirements(root: Path = ROOT) -> dict[str, list[str]]:
    """What goes into each folder, as pyproject.toml asks for it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    base = [line for line in project["dependencies"] if _name(line) not in _THERE]
    return {"base": base + [line for line in extras["dev"] if _name(line) in _DEV], "faiss": list(extras["gpu"])}


def _name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()


def collect(folder: Path) -> None:
    """Download all wheels into ``folder``, split the large ones, and print what there is to carry."""
    for name, needed in requirements().items():
        part = folder / name
        part.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *_TARGET]
        subprocess.run([*command, "--dest", str(part), *needed, *_CONSTRAINTS[name]], check=True)
        for path in folder.glob("base/*.whl"):
            if name != "base":
                (part / path.name).unlink(missing_ok=True)  # installed before
        split(part)
        files = sorted(path for path in part.iterdir() if path.name != SUMS)
        for path in files:
            print(f"{path.stat().st_size / MIB:8.1f} MiB  {path.relative_to(folder)}")
        print(f"{sum(path.stat().st_size for path in files) / MIB:8.1f} MiB  {name}: {len(files)} files")


def split(folder: Path, size: int = PART_BYTES) -> None:
    """Cut wheels of more than ``size`` bytes into parts, which take their place, and write the sums."""
    sums = {}
    for wheel in sorted(folder.glob("*.whl")):
        sums[wheel.name] = _sum(wheel)
        if wheel.stat().st_size <= size:
            continue
        with open(wheel, "rb") as file:
            for number, content in enumerate(iter(lambda file=file: file.read(size), b"")):
                part = wheel.with_name(f"{wheel.name}.part-{number:02}")
                part.write_bytes(content)
                sums[part.name] = _sum(part)
        wheel.unlink()
    (folder / SUMS).write_text("".join(f"{value}  {name}\n" for name, value in sums.items()), encoding="ascii")


def ready(folder: Path, joined: Path) -> list[Path]:
    """Folders to install from: ``folder``, checked, and ``joined``, with the wheels that lay there in parts.

    Small wheels may be missing, where the machine has what is in them; pip says so if it has not.

    Raises:
        ValueError: parts that are missing or what is damaged, in one line.
    """
    if not (folder / SUMS).is_file():
        raise ValueError(
            f"{folder} has no {SUMS}: bench/gpu.sh wheels DIR makes such folders, and DIR is named by WHEELS"
        )
    lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    sums = {name: value for value, name in (line.split("  ", 1) for line in lines)}
    parts = {name: [other for other in sums if other.startswith(f"{name}.part-")] for name in sums}
    needed = [name for some in parts.values() for name in some]
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise ValueError(f"{folder} lacks {len(missing)} of {len(needed)} parts: {', '.join(missing)}")
    for name in sums:
        if (folder / name).is_file() and _sum(folder / name) != sums[name]:
            raise ValueError(f"{folder / name} is damaged: its sha256 is not that in {SUMS}; carry it again")
    joined.mkdir(parents=True, exist_ok=True)
    for name, some in parts.items():
        if some and not ((joined / name).is_file() and _sum(joined / name) == sums[name]):
            _join([folder / part for part in sorted(some)], joined / name, sums[name])
    return [folder, joined]


def _join(parts: list[Path], wheel: Path, expected: str) -> None:
    partial = wheel.with_name(f"{wheel.name}.partial")
    with open(partial, "wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    if _sum(partial) != expected:
        raise ValueError(f"{wheel.name}, joined from {len(parts)} parts, is not the wheel that was split")
    partial.replace(wheel)


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    collect(Path(sys.argv[1]))
