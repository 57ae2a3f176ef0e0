"""What a measurement was made on and with, and what that machine can do at best."""

import importlib.metadata
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fastdd import models
from fastdd.bench.framework.timing import Stopwatch
from fastdd.core import ext as _ext
from fastdd.core import malloc as _malloc
from fastdd.core.version import __version__

_ROOT = Path(__file__).resolve().parents[2]


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, device, processor, threads and memory policy."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    cpu = _cpu()
    return {
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git": git(_ROOT),
        "fastdd": __version__,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "faiss": next(
            (f"{name} {v}" for name in ("faiss-gpu", "faiss-gpu-cuvs", "faiss-cpu") if (v := _version(name))), None
        ),
        "python": platform.python_version(),
        "cuda": torch.version.cuda if gpu else None,
        "driver": _driver() if gpu else None,
        "device": gpu.name if gpu else cpu,
        "compute_capability": f"{gpu.major}.{gpu.minor}" if gpu else None,
        "sm_count": gpu.multi_processor_count if gpu else None,
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "simd_active": _ext.build_info().get("simd_active"),
        "keeps_freed_memory": _malloc.keeps_freed_memory(),
    }


@contextmanager
def conditions(device: torch.device, seed: int) -> Iterator[None]:
    """What all backends compute under: float32 convolutions in float32 and repeatably, as runs do; a global random
    state of the seed, put back afterwards (published code draws from it)."""
    gpus = [device] if device.type == "cuda" else []
    with models.exact_convolutions(), torch.random.fork_rng(gpus), warnings.catch_warnings():
        # Published code is older than the arguments that these ask for.
        warnings.filterwarnings("ignore", message=".*(meshgrid|align_corners).*", category=UserWarning)
        torch.manual_seed(seed)
        yield


def ceilings(device: torch.device, quick: bool) -> dict[str, Any]:
    """Bandwidth of a large copy in GB/s, read and written bytes both counted; GFLOP/s of a square matrix product.

    On CPUs the product is also done as a 1x1 convolution, and the faster counts: on AMD processors, ``mm`` in float32
    reaches half of what the convolution does. float32 is computed in float32, as all cases do it (no TF32).
    """
    stopwatch = Stopwatch(device)
    gpu = device.type == "cuda"

    def best(function: Callable[[], object], reps: int) -> float:
        function()
        return min(stopwatch(function) for _ in range(reps))

    source = torch.ones(1 << (16 if quick else 28 if gpu else 26), device=device)
    target = torch.empty_like(source)
    copied = best(lambda: target.copy_(source), 3 if quick else 10)
    n = 256 if quick else 8192 if gpu else 2048
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        # Random, not constant, numbers: products of constants need less power, and run faster, than any real ones.
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        products = [lambda a=a, b=b: a @ b]
        if not gpu:
            pixels = a.view(-1, 4, 4, n).permute(0, 3, 1, 2)
            products.append(lambda x=pixels, w=b.view(n, n, 1, 1): F.conv2d(x, w))
        spent = min(best(product, 2 if quick else 5) for product in products)
        rates[str(dtype).removeprefix("torch.")] = 2 * n**3 / spent / 1e3
    return {"copy_gbs": 2 * source.nbytes / copied / 1e3, "gemm_gflops": rates}


# Written by measurements, which so would call the next ones those of a changed tree.
_MEASURED = (":!bench/records", ":!bench/results")


def git(root: Path) -> dict[str, Any] | None:
    """Commit of a checkout, and whether files differ from it, but for what is measured; None if ``root`` isn't the top
    of one."""
    if not (root / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ".", *_MEASURED],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(status)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None
