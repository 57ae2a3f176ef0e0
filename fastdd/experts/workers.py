"""Expert training spread over processes: each takes its own experts, and results are the same as in one.

A worker is a new interpreter that reads its job from its standard input, which stays open for as long as its parent
lives, and answers with one JSON line an epoch. That needs nothing of the user's script, unlike multiprocessing, which
imports it again.
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from fastdd.core import plugins
from fastdd.core.stop import stop_requests
from fastdd.experts.side_by_side import SideBySideTrainer
from fastdd.experts.trainer import Job

_COMMAND = "from fastdd.experts import workers; workers.main()"


def train_in_processes(
    job: Job,
    experts: Sequence[int],
    processes: int,
    report: Callable[[dict[str, Any]], None],
    finish: Callable[[int, dict[str, Any]], None],
    stop: threading.Event,
) -> None:
    """Train experts in ``processes`` workers, which share the threads of this process; GPUs are dealt out in turn.

    Args:
        job: as :class:`fastdd.experts.trainer.ExpertTrainer` takes it.
        experts: their numbers; worker p takes every ``processes``-th from p on.
        processes: at least 1.
        report: called with what :meth:`fastdd.experts.trainer.ExpertTrainer.train` reports.
        finish: called with a finished expert and its entry for the manifest.
        stop: when it is set, the workers end before their next epoch.

    Raises:
        RuntimeError: a worker failed or was killed; the others are ended, with their states kept.
        ValueError: a network that a script has registered, which workers do not have.
    """
    if plugins.only_here(plugins.NETWORK, job.config.arch):
        raise ValueError(
            f"network {job.config.arch} was registered by a script, which other processes do not run: put that into a "
            "file of its own (fastdd.load_plugin, --plugin FILE), or train in one process"
        )
    threads = max(1, torch.get_num_threads() // processes)
    workers, messages = [], queue.Queue()
    try:
        for index in range(processes):
            own = list(experts[index::processes])
            workers.append(_Worker(replace(job, device=_device(job.device, index)), own, threads, messages))
        running, told = len(workers), False
        while running:
            if stop.is_set() and not told:
                told = True
                for worker in workers:
                    worker.process.terminate()
            try:
                worker, message = messages.get(timeout=0.2)
            except queue.Empty:
                continue
            if message is None:
                running -= 1
                worker.check_end(told)
            elif "error" in message:
                kind = {"ValueError": ValueError, "OSError": OSError}.get(message["error"], RuntimeError)
                raise kind(message["reason"])
            elif "entry" in message:
                finish(message["expert"], message["entry"])
            else:
                report(message)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, and a thread that passes on what it says; None when it has ended."""

    def __init__(self, job: Job, experts: list[int], threads: int, messages: queue.Queue):
        self.experts = experts
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": str(threads),
            **plugins.for_workers(),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which asks its workers to stop
        )
        self._job = pickle.dumps((job, experts, threads), protocol=pickle.HIGHEST_PROTOCOL)
        self._thread = threading.Thread(target=self._talk, args=(messages,), daemon=True)
        self._thread.start()

    def _talk(self, messages: queue.Queue) -> None:
        try:
            self.process.stdin.write(self._job)
            self.process.stdin.flush()
            self._job = None
            for line in self.process.stdout:
                messages.put((self, json.loads(line)))
        except (OSError, ValueError):  # it died while one of us was talking
            pass
        messages.put((self, None))

    def check_end(self, told: bool) -> None:
        """RuntimeError unless the process ended as it should."""
        code = self.process.wait()
        if code == 0 or (told and code == -signal.SIGTERM):
            return
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        hint = "; if the memory ran out, use fewer processes" if code == -signal.SIGKILL else ""
        raise RuntimeError(
            f"the process that trained experts {', '.join(map(str, self.experts))} was ended {how}{hint}; "
            "continue with --resume"
        )

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what it did not read any more
                pipe.close()


def _device(device: str, index: int) -> str:
    if device != "cuda":
        return device
    return f"cuda:{index % torch.cuda.device_count()}"


def main() -> None:
    """A worker: a job from standard input, one JSON line an epoch to standard output."""
    from fastdd.core.malloc import keep_freed_memory

    keep_freed_memory()
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints
    plugins.load_named()
    job, experts, threads = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    with stop_requests() as stop:
        try:
            for number, entry in SideBySideTrainer(job).entries(experts, say, stop.is_set):
                if entry is None:
                    break
                say({"expert": number, "entry": entry})
        except (RuntimeError, ValueError, OSError) as error:
            kind = next(kind for kind in (ValueError, OSError, RuntimeError) if isinstance(error, kind))
            say({"error": kind.__name__, "reason": str(error)})


def _die_with_the_parent() -> None:
    # Two processes must not train one expert, and it is the parent who holds the folder's lock.
    while os.read(0, 1):
        pass
    os._exit(1)
