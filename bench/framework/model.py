"""What a case must take on a GPU that is not here: a prediction, to be held against the next measurement there.

Three things bound a call: the bytes that it has to move at the GPU's bandwidth, the arithmetic that it has to do at the
rate of a large matrix product, and the host, which launches one kernel after another. The first two are the least of
any implementation (:meth:`Case.bytes`, :meth:`Case.flops`), so a prediction is a lower bound, which unfused passes over
memory and convolutions below the product's rate exceed. In a CUDA graph the host is out of it, and a kernel costs its
place in the graph.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastdd.bench.framework.case import Case

if TYPE_CHECKING:
    from rich.table import Table

# bfloat16 products that float32's on the tensor cores takes (fastdd/kernels/conv3x3).
_PRODUCTS = 6
_RESULTS = Path(__file__).parents[1] / "results"
_LAUNCHES = _RESULTS / "launches.json"


@dataclass(frozen=True)
class Gpu:
    """What was measured of a GPU.

    Attributes:
        name: for people.
        copy_gbs: a large copy, bytes read and written.
        gemm_gflops: a large matrix product, by dtype.
        launch_us: of an eager call, Python and dispatcher included.
        node_us: of a kernel in a CUDA graph; assumed until it is measured.
        results: files of measurements, in bench/results.
    """

    name: str
    copy_gbs: float
    gemm_gflops: dict[str, float]
    launch_us: float
    node_us: float
    results: str


GPUS = {
    # Ceilings of bench/results/h200-2026-11-20.json. There a step of DM whose real side was in bfloat16, and the GPU
    # not the limit, took 10.2 ms with 302 launches.
    "h200": Gpu("NVIDIA H200", 4249.0, {"float32": 51_319.0, "bfloat16": 777_634.0}, 34.0, 2.0, "h200-*.json"),
}


@dataclass(frozen=True)
class Prediction:
    """Microseconds that each bound allows at the least.

    Attributes:
        memory, arithmetic: of the GPU.
        launches: kernels; None where they are not recorded.
        eager, graph: all three bounds together.
        bound: what the eager call waits for: ``memory``, ``arithmetic`` or ``launches``.
    """

    memory: float
    arithmetic: float
    launches: int | None
    eager: float
    graph: float
    bound: str


def predict(bytes: int, flops: int, dtype: torch.dtype, launches: int | None, gpu: Gpu) -> Prediction:
    """A call's times on ``gpu``.

    >>> gpu = Gpu("made", 1000.0, {"float32": 10_000.0}, launch_us=30.0, node_us=2.0, results="")
    >>> predict(3_000_000, 50_000_000, torch.float32, 4, gpu)
    Prediction(memory=3.0, arithmetic=5.0, launches=4, eager=120.0, graph=13.0, bound='launches')
    """
    rate = gpu.gemm_gflops.get(str(dtype).removeprefix("torch."), gpu.gemm_gflops["float32"])
    times = {"memory": bytes / gpu.copy_gbs / 1e3, "arithmetic": flops / rate / 1e3}
    on_gpu = max(times.values())
    if launches is not None:
        times["launches"] = launches * gpu.launch_us
    graph = on_gpu + (launches or 0) * gpu.node_us
    bound = max(times, key=lambda name: times[name])
    return Prediction(times["memory"], times["arithmetic"], launches, max(times.values()), graph, bound)


def split_arithmetic(flops: int, split: int, dtype: torch.dtype, gpu: Gpu) -> float:
    """Microseconds of a case's arithmetic, of which ``split`` are float32 convolutions that run as bfloat16 products.

    >>> gpu = Gpu("made", 1000.0, {"float32": 10_000.0, "bfloat16": 120_000.0}, launch_us=30.0, node_us=2.0, results="")
    >>> split_arithmetic(50_000_000, 40_000_000, torch.float32, gpu)
    3.0
    """
    rate = gpu.gemm_gflops.get(str(dtype).removeprefix("torch."), gpu.gemm_gflops["float32"])
    return (flops - split) / rate / 1e3 + split * _PRODUCTS / gpu.gemm_gflops["bfloat16"] / 1e3


def recorded_launches() -> dict[str, int]:
    """Kernels of a call of ours, by the case's label, as they were counted without a GPU (tests/device)."""
    return json.loads(_LAUNCHES.read_text())["cases"] if _LAUNCHES.is_file() else {}


@cache
def measured(pattern: str) -> dict[tuple[str, str, str], float]:
    """Newest measured medians of ours, microseconds, by case, dtype and shape."""
    found = {}
    for path in sorted(_RESULTS.glob(pattern)):
        for row in json.loads(path.read_text())["rows"]:
            if row["backend"] == "fastdd" and row["match"] and row["median_us"]:
                found[row["case"], row["dtype"], json.dumps(row["shape"], sort_keys=True)] = row["median_us"]
    return found


def predictions(cases: Sequence[Case], gpu: Gpu, seed: int = 0) -> Iterable[dict[str, Any]]:
    """A row of every case: its bytes, flops, launches and predicted times, and the measured one where there is one."""
    launches = recorded_launches()
    for case in cases:
        inputs = case.inputs(seed, torch.device("cpu"), False)
        size, flops, shape = case.bytes(inputs), case.flops(inputs), case.shape(inputs)
        dtype = str(case.dtype).removeprefix("torch.")
        yield {
            "case": case.label,
            "bytes": size,
            "flops": flops,
            **vars(predict(size, flops, case.dtype, launches.get(case.label), gpu)),
            "split": split_arithmetic(flops, split, case.dtype, gpu) if (split := case.split_flops(inputs)) else None,
            "measured": measured(gpu.results).get((case.name, dtype, json.dumps(shape, sort_keys=True))),
        }


def prediction_table(rows: Iterable[dict[str, Any]], gpu: Gpu) -> "Table":
    """The rows for people."""
    from rich.table import Table

    table = Table(
        title=f"{gpu.name}: predicted (at least; of bytes, flops and launches), and measured of an earlier version",
        title_justify="left",
        box=None,
        header_style="",
    )
    for name in (
        "case",
        "launches",
        "memory",
        "arithmetic",
        "with split convolutions",
        "eager",
        "bound by",
        "in a graph",
        "measured",
    ):
        table.add_column(name, justify="left" if name in ("case", "bound by") else "right", no_wrap=True)
    for row in rows:
        launches = "-" if row["launches"] is None else str(row["launches"])
        names = ("memory", "arithmetic", "split", "eager", "graph", "measured")
        memory, arithmetic, split, eager, graph, there = (
            "-" if row[name] is None else f"{row[name] / 1e3:.3f} ms" for name in names
        )
        table.add_row(row["case"], launches, memory, arithmetic, split, eager, row["bound"], graph, there)
    return table
