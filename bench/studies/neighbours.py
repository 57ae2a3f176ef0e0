"""How ``knn_kde``, the log-density from nearest neighbours that FAISS finds, compares with the exact one, by points.

    python -m fastdd.bench.studies.neighbours --out FOLDER --points 50000 1280000

Unit rows of 128 around ten directions, as in the bench's ``kde/*``, 256 neighbours and 1,024 far samples. 50,000 are
CIFAR-10's training images, 1.28 million ImageNet's. Rows that the folder has are kept.
"""

import argparse
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fastdd import ops
from fastdd.api import pick_device
from fastdd.bench.framework import machine
from fastdd.bench.framework.timing import Stopwatch
from fastdd.core import rng
from fastdd.studies import KeptRows

DIMENSIONS, NEIGHBOURS, FAR = 128, 256, 1024
BANDWIDTH = math.sqrt(0.1)
# Truth in float64 is computed of so many of the points.
_CHECKED = 512
# Timed at most so often, after a first call, and not again once it has taken so long.
_REPEATS, _LONG_SECONDS = 3, 5.0


def points(count: int, device: torch.device, seed: int = 0) -> torch.Tensor:
    """float32 [N, 128], unit rows."""
    centres = rng.normal(rng.key(seed, "neighbours", "centres"), 10 * DIMENSIONS, device).view(10, DIMENSIONS)
    noise = rng.normal(rng.key(seed, "neighbours"), count * DIMENSIONS, device).view(count, DIMENSIONS)
    return torch.nn.functional.normalize(centres[torch.arange(count, device=device) % 10] + noise)


def compare(x: torch.Tensor) -> dict[str, Any]:
    """Seconds of both, each after a first call; and how wrong the estimate is at worst, in nats, beside float64."""
    stopwatch, found = Stopwatch(x.device), {}

    def exact() -> None:
        found["exact"] = ops.kde(x, bandwidth=BANDWIDTH)

    def nearest() -> None:
        found["knn"] = ops.knn_kde(x, bandwidth=BANDWIDTH, k=min(NEIGHBOURS, len(x) - 1), far_samples=FAR)

    seconds = {}
    for name, call in (("exact", exact), ("knn", nearest)):
        first = stopwatch(call) / 1e6
        times: list[float] = []
        while len(times) < _REPEATS and sum(times) < _LONG_SECONDS:
            times.append(stopwatch(call) / 1e6)
        seconds |= {f"{name}_first_s": first, f"{name}_s": median(times)}
    rows = torch.linspace(0, len(x) - 1, min(_CHECKED, len(x)), device=x.device).long()
    truth = _exact_in_float64(x[rows], x)
    knn = found["knn"]
    outside = torch.maximum(knn.lower[rows].double() - truth, truth - knn.upper[rows].double()).clamp(min=0)
    return {
        **seconds,
        "ratio": seconds["exact_s"] / seconds["knn_s"],
        "exact_error": (found["exact"][rows].double() - truth).abs().max().item(),
        "knn_error": (knn.log_density[rows].double() - truth).abs().max().item(),
        "truth_out_of_bounds": outside.max().item(),
        "largest_gap": knn.gap,
    }


def _exact_in_float64(queries: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A row of queries at a time, which needs as much memory as ``x`` in float64."""
    x = x.double()
    constant = math.log(len(x)) + x.shape[1] * math.log(BANDWIDTH * math.sqrt(2 * math.pi))
    logs = [(-(x - row).square().sum(1) / (2 * BANDWIDTH**2)).logsumexp(0) for row in queries.double()]
    return torch.stack(logs) - constant


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m fastdd.bench.studies.neighbours", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows")
    parser.add_argument("--points", type=int, nargs="+", default=[50_000, 1_280_000])
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = pick_device(given.device)
    about = {"neighbours": NEIGHBOURS, "far_samples": FAR, "dimensions": DIMENSIONS, "device": device.type}
    with KeptRows(given.out, "neighbours", about) as kept:
        for count in given.points:
            row = kept.get(
                {"points": count},
                lambda count=count: {**compare(points(count, device)), "machine": machine.describe(device)},
            )
            print(" ".join(f"{name}={value}" for name, value in row.items() if name != "machine"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
