"""The peak memory of one call, above what there was before it."""

import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from fastdd.bench.framework.case import Case
from fastdd.bench.framework.machine import conditions
from fastdd.bench.framework.upstream import Upstream
from fastdd.core.malloc import give_back, map_every_tensor

# Linux: 5, written to the first, sets the peak that the second gives (VmHWM) to what is resident now.
_RESET, _STATUS = "/proc/self/clear_refs", "/proc/self/status"


def peak_bytes(
    case: Case, backend: str, inputs: object, device: torch.device, *, seed: int, quick: bool, upstream: Upstream | None
) -> int | None:
    """Bytes that one call of a backend takes at its highest, its results included, above the state before it.

    A call before it is not counted: libraries set themselves up, steppers are made. On a GPU it is memory in tensors.
    On a CPU it is resident memory, in a process of its own, where no other backend has left memory to reuse, and where
    blocks above 128 KiB are mapped one by one: what malloc's heap loses to fragmentation is not a property of the
    computation (it can be ten times what is in use, and grows with the number of calls).

    Args:
        inputs: of the case; a CPU's process makes its own, which are the same.
        case, backend, device, seed, quick, upstream: as those of
            :func:`fastdd.bench.framework.measurement.measure`. On a CPU the case must be one that pickle can send.

    Returns:
        None where the system can't tell: other than Linux, or without ``/proc``.

    Raises:
        Exception: what the call raised; BrokenProcessPool if it was killed, as for lack of memory.
    """
    if device.type == "cuda":
        return _of_tensors(lambda: case.call(backend, inputs, upstream), device)
    folder = upstream and upstream.folder
    # spawn: a forked process has its parent's memory, and no threads.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_in_child, case, backend, seed, quick, folder, torch.get_num_threads()).result()


def _of_tensors(call: Callable[[], object], device: torch.device) -> int:
    call()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _in_child(case: Case, backend: str, seed: int, quick: bool, folder: Path | None, threads: int) -> int | None:
    map_every_tensor()
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    upstream = folder and Upstream.open(folder)
    with conditions(device, seed):
        inputs = case.inputs(seed, device, quick)
        return _resident(lambda: case.call(backend, inputs, upstream))


def _resident(call: Callable[[], object]) -> int | None:
    call()
    gc.collect()
    give_back()
    try:
        Path(_RESET).write_text("5", encoding="ascii")
        before = _peak()
        call()
        return _peak() - before
    except OSError:
        return None


def _peak() -> int:
    """Of resident memory since the last reset."""
    lines = Path(_STATUS).read_text(encoding="ascii").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)
