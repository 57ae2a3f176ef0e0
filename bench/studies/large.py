"""What a run on a data set of Tiny-ImageNet's size needs: memory, and time a step.

    python -m fastdd.bench.studies.large make STORE        200 classes, 100,000 training images of 3x64x64: 1.2 GiB
    python -m fastdd.bench.studies.large run COMMAND ...   a command; then its seconds and its memory at its highest

A memory-mapped store is resident as far as it was read, but belongs to the page cache: the kernel takes it back when
something else needs memory. What a run cannot do without is anonymous memory, which is why ``run`` tells them apart.
The file mappings that it counts include the libraries (0.3 GiB with PyTorch).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fastdd.data import Dataset, Split, save_store

_STATUS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file"}
_INTERVAL = 0.05


def make(path: Path, classes: int, per_class: int, size: int, test: int = 10) -> None:
    """A packed store of noise around a colour and a gradient of each class's own, without holding it in memory."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        splits = [
            _split(Path(folder) / f"{name}.npy", classes, each, size, seed)
            for seed, (name, each) in enumerate((("train", per_class), ("test", test)))
        ]
        names = tuple(f"class {label}" for label in range(classes))
        dataset = Dataset(path.name, *splits, names, ("group 0", "group 1"), (0.5,) * 3, (0.25,) * 3, {})
        save_store(dataset, path)


def _split(file: Path, classes: int, per_class: int, size: int, seed: int) -> Split:
    shape = classes * per_class, 3, size, size
    images = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    slope = np.linspace(0, 1, size)
    for label in range(classes):
        colour, direction = np.random.default_rng(label).uniform(32, 160, (2, 3))
        generator = np.random.default_rng((seed, label))
        noise = generator.integers(0, 64, (per_class, *shape[1:]), np.uint8)
        pattern = colour[:, None, None] + (slope * np.cos(label) + slope[:, None] * np.sin(label)) * 32
        images[label * per_class : (label + 1) * per_class] = noise + (pattern + direction[:, None, None] / 8).clip(
            0, 191
        ).astype(np.uint8)
    labels = np.repeat(np.arange(classes), per_class)
    groups = (np.arange(len(labels)) % 10 == 0).astype(np.int64)
    return Split(np.load(file, mmap_mode="r"), labels, groups)


def watch(command: list[str]) -> dict[str, float]:
    """Run a command to its end: its exit status, seconds, and the most memory of each kind, MiB.

    Sampled 20 times a second: shorter peaks of the kinds are missed; ``peak`` is the kernel's own mark, of residence.
    """
    most = dict.fromkeys(("peak", *_STATUS.values()), 0)
    began = time.perf_counter()
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
        except OSError:
            break
        found = dict(line.split(":", 1) for line in lines)
        for name, title in {**_STATUS, "VmHWM": "peak"}.items():
            if name in found:
                most[title] = max(most[title], int(found[name].split()[0]))
        time.sleep(_INTERVAL)
    status = process.wait()
    seconds = time.perf_counter() - began
    return {"status": status, "seconds": round(seconds, 2), **{f"{k}_mib": v // 1024 for k, v in most.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fastdd.bench.studies.large", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="a packed store of random images")
    maker.add_argument("store", type=Path)
    maker.add_argument("--classes", type=int, default=200)
    maker.add_argument("--per-class", type=int, default=500)
    maker.add_argument("--size", type=int, default=64)
    runner = commands.add_parser("run", help="a command, and the memory that it took")
    runner.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.command == "make":
        make(given.store, given.classes, given.per_class, given.size)
        return 0
    found = watch(given.arguments)
    print(json.dumps(found), file=sys.stderr)
    return int(found["status"])


if __name__ == "__main__":
    sys.exit(main())
