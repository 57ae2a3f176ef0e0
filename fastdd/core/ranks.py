"""Ranks: the processes that torchrun started for one job, and what they tell each other.

Every rank runs the same program and makes the same calls in the same order; rank 0 alone prints and writes. Work is
shared by :func:`share`; objects travel by :func:`exchange` and :func:`first` over Gloo, rows of tensors by
:func:`collect` over Gloo (CPU) or NCCL (GPU). What a rank waits for comes, or :class:`RankLost` does: Gloo tells at
once when the process at the other end is gone, and no wait is longer than its patience.

A process of its own is a job of one rank: every function returns at once, and torch.distributed is not touched.

The job is torchrun's, or, in a script that has called ``torch.distributed.init_process_group`` itself, of its ranks.
"""

import atexit
import bisect
import ctypes
import hashlib
import itertools
import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fastdd.core.version import __version__
from fastdd.core.watch import LOOK_SECONDS, ORPHANED, SAME, Watch

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")

# Ranks do the same amount of work between two meetings, but kernels may have to be compiled first.
PATIENCE = 1800.0
# For a rank that works alone, or on the last network: as long as it takes, and it says that it is alive.
_AS_LONG_AS_IT_TAKES = 7 * 86400.0
_PROBE_SECONDS = 3.0
_LONGEST_PAUSE, _MEANWHILE_PAUSE = 0.005, 0.1
_CURE = "start again, a run or experts with --resume, on any number of ranks"
_LOST = f"another rank of this job has ended (killed, out of memory, or its machine is gone); {_CURE}"


class RankLost(RuntimeError):
    """Another rank has ended, or does not answer."""

    def __init__(self, text: str = _LOST):
        super().__init__(text)


class _Job:
    """Groups of all ranks, apart from those of the script that this may run in."""

    def __init__(self):
        import torch.distributed as dist

        self.own = not dist.is_initialized()
        if self.own:
            dist.init_process_group("gloo")
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        everyone = timedelta(seconds=_AS_LONG_AS_IT_TAKES)
        # Waits have their own limits; those of a group only matter beyond them.
        self.gloo = dist.new_group(backend="gloo", timeout=everyone)
        self.probe = dist.new_group(backend="gloo", timeout=timedelta(seconds=_PROBE_SECONDS))
        self._nccl = None
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = dist.PrefixStore(f"fastdd/{start}", dist.distributed_c10d._get_default_store())
        self._operations = itertools.count()
        self.broken = False  # what is under way may never end
        self.watch = Watch(self.store, self.rank, self.world, launched=launched())

    def group(self, tensor: "Tensor"):
        if not tensor.is_cuda:
            return self.gloo
        if self._nccl is None:
            import torch.distributed as dist

            self._nccl = dist.new_group(backend="nccl", timeout=timedelta(seconds=PATIENCE))
        return self._nccl

    def name(self) -> str:
        """The same on all ranks, and another one at every call."""
        return f"operation-{next(self._operations)}"


_job: _Job | None = None


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _initialised() -> bool:
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world() -> int:
    """Ranks of the job; 1 without torchrun."""
    if _job is not None:
        return _job.world
    if launched():
        return int(os.environ["WORLD_SIZE"])
    return sys.modules["torch.distributed"].get_world_size() if _initialised() else 1


def rank() -> int:
    """This process's number, from 0."""
    if _job is not None:
        return _job.rank
    if launched():
        return int(os.environ["RANK"])
    return sys.modules["torch.distributed"].get_rank() if _initialised() else 0


def local_rank() -> int:
    """This process's number on its machine, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", rank()))


def local_world() -> int:
    """Ranks of the job on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world())) if world() > 1 else 1


def join() -> None:
    """Meet the other ranks, if there are any; every function does that by itself when it first needs them."""
    global _job
    if _job is None and world() > 1:
        _job = _Job()
        if _job.own:
            atexit.register(leave)


def leave() -> None:
    """End what :func:`join` began."""
    global _job
    if _job is None:
        return
    job, _job = _job, None
    job.watch.end()
    if not job.own:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    if job.broken:
        # Their destructors, at the interpreter's end, would wait for what never comes.
        for group in (dist.distributed_c10d._get_default_group(), job.gloo, job.probe):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    else:
        dist.destroy_process_group()


def joined() -> _Job:
    """The job, which this process has joined or joins now."""
    join()
    return _job


def share(costs: Sequence[float], parts: int | None = None) -> list[range]:
    """Contiguous ranges of ``costs``, one a rank (or ``parts``), the dearest of them as cheap as can be.

    No range is empty unless there are fewer costs than ranges.

    >>> share([1, 1, 1, 1, 4], 2), share([1, 1], 3)
    ([range(0, 4), range(4, 5)], [range(0, 1), range(1, 2), range(2, 2)])
    """
    parts = world() if parts is None else parts
    ends = [0, *itertools.accumulate(costs)]
    total = len(costs)

    def cut(limit: float) -> list[range]:
        ranges, start = [], 0
        for later in reversed(range(parts)):
            stop = bisect.bisect_right(ends, ends[start] + limit) - 1
            stop = min(max(stop, min(start + 1, total)), max(total - later, min(start + 1, total)))
            ranges.append(range(start, stop))
            start = stop
        return ranges

    low, high = max([*costs, 0]), ends[-1]
    for _ in range(60):
        if cut((low + high) / 2)[-1].stop == total:
            high = (low + high) / 2
        else:
            low = (low + high) / 2
    return cut(high)


def _wait(work, patience: float, meanwhile: Callable[[], object] | None = None) -> None:
    # Not work.wait(), in which no signal is handled.
    began, pause = time.monotonic(), 2e-5
    deadline, look, seen = began + patience, began + LOOK_SECONDS, {}
    longest = _LONGEST_PAUSE if meanwhile is None else _MEANWHILE_PAUSE
    try:
        while not work.is_completed():
            if time.monotonic() > deadline:
                raise RankLost(f"another rank of this job has not answered for {patience:.0f} s; {_CURE}")
            if time.monotonic() > look:
                _job.watch.check_calls()
                if _job.watch.silence(seen) > PATIENCE:
                    raise RankLost(f"another rank of this job has not answered for {PATIENCE:.0f} s; {_CURE}")
                look = time.monotonic() + LOOK_SECONDS
            if meanwhile is not None:
                meanwhile()
            time.sleep(pause)
            pause = min(2 * pause, longest)
        work.wait()
    except BaseException as error:
        _job.broken = True
        if isinstance(error, RuntimeError) and not isinstance(error, RankLost):
            _job.watch.check_calls()
            raise RankLost from error
        raise


def _start(collective: Callable, *arguments, **options):
    try:
        return collective(*arguments, **options, async_op=True)
    except RuntimeError as error:
        raise RankLost from error


def _packed(value: Any) -> "Tensor":
    import torch

    return torch.frombuffer(bytearray(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)), dtype=torch.uint8)


def exchange(value: Any, patience: float = PATIENCE) -> list[Any]:
    """What every rank has, by rank. Values are pickled."""
    if world() == 1:
        return [value]
    import torch
    import torch.distributed as dist

    job, own = joined(), _packed(value)
    job.watch.calls.append("an exchange")
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(job.world)]
    _wait(_start(dist.all_gather, sizes, torch.tensor([len(own)]), group=job.gloo), patience)
    longest = max(size.item() for size in sizes)
    parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(job.world)]
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: len(own)] = own
    _wait(_start(dist.all_gather, parts, padded, group=job.gloo), patience)
    return [pickle.loads(part[:size].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]


def first(call: Callable[[], Result], patience: float = _AS_LONG_AS_IT_TAKES) -> Result:
    """What ``call`` returns on rank 0, for all; the others do not call it, and an error is raised by all alike."""
    if world() == 1:
        return call()
    import torch
    import torch.distributed as dist

    job, error = joined(), None
    job.watch.calls.append("rank 0's turn")
    size = torch.zeros(1, dtype=torch.int64)
    if job.rank == 0:
        try:
            payload = _packed((True, call()))
        except Exception as raised:
            error, payload = raised, _packed((False, _portable(raised)))
        size[0] = len(payload)
    _wait(_start(dist.broadcast, size, 0, group=job.gloo), patience)
    if job.rank:
        payload = torch.empty(size.item(), dtype=torch.uint8)
    _wait(_start(dist.broadcast, payload, 0, group=job.gloo), patience)
    if error is not None:
        raise error
    good, value = pickle.loads(payload.numpy().tobytes())
    if not good:
        raise value
    return value


def _portable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # an exception may need more than its arguments
        return RuntimeError(str(error))


def collect(tensor: "Tensor", rows: Sequence[range], patience: float = PATIENCE) -> None:
    """Make rows ``rows[r]`` of a contiguous tensor those of rank r, on every rank, in place."""
    if world() == 1:
        return
    import torch.distributed as dist

    job, tensor = joined(), tensor.detach()
    job.watch.calls.append("a collection")
    group = job.group(tensor)
    if tensor.is_cuda:
        meet(patience)  # Gloo tells that a rank is gone; NCCL would wait for it
    works = [
        _start(dist.broadcast, tensor[own.start : own.stop], source, group=group)
        for source, own in enumerate(rows)
        if own
    ]
    for work in works:
        if tensor.is_cuda:
            work.wait()  # for the stream, not for this process
        else:
            _wait(work, patience)


def meet(patience: float = _AS_LONG_AS_IT_TAKES, meanwhile: Callable[[], object] | None = None) -> None:
    """Wait until all ranks are here; ``meanwhile`` is called again and again."""
    if world() == 1:
        return
    import torch.distributed as dist

    joined().watch.calls.append("a meeting")
    _wait(_start(dist.barrier, group=joined().gloo), patience, meanwhile)


def agree(what: str, *content: Any) -> None:
    """ValueError on all ranks unless all make this call, with the same content, whose ``repr`` is stable.

    Versions, FASTDD_BACKEND and FASTDD_CONVOLUTIONS must be the same too: results would be mixed.
    """
    if world() == 1:
        return
    import torch

    chosen = (os.environ.get(name) or "auto" for name in ("FASTDD_BACKEND", "FASTDD_CONVOLUTIONS"))
    setting = (__version__, torch.__version__, *chosen)
    asked = repr((what, setting, *content))
    found = exchange(hashlib.sha256(asked.encode()).hexdigest(), _AS_LONG_AS_IT_TAKES)
    if len(set(found)) > 1:
        raise ValueError(f"the ranks of this job do not ask for the same thing ({what}): {SAME}")


def everyone_answers() -> bool:
    """Whether no rank is gone, for a rank that is about to end; one that is busy for seconds counts as there."""
    if _job is None:
        return True
    import torch.distributed as dist

    began = time.monotonic()
    try:
        dist.barrier(group=_job.probe)
    except RuntimeError:
        return time.monotonic() - began > 0.9 * _PROBE_SECONDS
    return True


def orphaned() -> str:
    """That torchrun has ended before this rank, in one line; empty while it is there."""
    return ORPHANED if _job is not None and _job.watch.orphaned() else ""


def first_to_say(text: str) -> bool:
    """Whether no other rank has said this, nor this one before; of a message that many may have, the one to print."""
    return _job is None or _job.watch.ask(lambda: _job.store.add(_said(text), 1) == 1, True)


def end_explained() -> bool:
    """Whether a rank has said why the job ends."""
    return _job is not None and _job.watch.ask(lambda: _job.store.check(["end"]), False)


def explain_end(text: str, say: Callable[[], object]) -> None:
    """Tell the job that it ends; ``say`` is called on the first rank with this text.

    The others wait for that, as torchrun ends all ranks soon after one.
    """
    if _job is None:
        say()
        return
    _job.watch.ask(lambda: _job.store.set("end", "1"), None)
    done = _said(text) + "/done"
    if first_to_say(text):
        say()
        _job.watch.ask(lambda: _job.store.set(done, "1"), None)
    else:
        _job.watch.ask(lambda: _job.store.wait([done], timedelta(seconds=_PROBE_SECONDS)), None)


def _said(text: str) -> str:
    return "said/" + hashlib.sha256(text.encode()).hexdigest()
