"""One seed of a record, in a process that has done nothing before: ``python -m fastdd.bench.records.seed JOB``.

JOB is JSON: ``dataset``, ``data_root``, ``settings``, ``structure`` (fastdd, or published: the loop of published
code), ``device``, ``out`` (the set's file), ``times`` (a file for the seconds), ``timed_steps`` (None: all are done;
else so many are timed, and what all would take follows).
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import fastdd
from fastdd.api import pick_device
from fastdd.bench.baselines.problem import Problem
from fastdd.bench.baselines.published import PublishedLoop
from fastdd.bench.baselines.published_gradient import PublishedGradientLoop
from fastdd.core import files
from fastdd.data import Dataset, SyntheticSet
from fastdd.data.initial import describe, first_images
from fastdd.methods import Context, Settings, configure, method
from fastdd.session import Callback

_WARM_UP = 2
# Lines of the log about a run.
_TOLD = 20


class Clock:
    """Seconds on the wall and of the processor, since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both."""
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


class Loop(Callback):
    """Times the loop of a run, and tells how it goes."""

    def begins(self, run: Any) -> None:
        self._clock, self._told = Clock(), 0

    def losses(self, run: Any, first: int, values: list[float]) -> None:
        if run.step * _TOLD // run.total > self._told:
            self._told = run.step * _TOLD // run.total
            _tell(run.step, run.total, values[-1], self._clock)

    def ends(self, run: Any) -> None:
        self.times = self._clock.read()


def _tell(step: int, total: int, loss: float, clock: Clock) -> None:
    spent = clock.read()
    print(
        f"step {step} of {total}: loss {loss:.4g}, {spent['seconds']:.1f} s, {spent['cpu_seconds']:.1f} s of processor",
        flush=True,
    )


def distil(data: Dataset, settings: dict[str, Any], device: str) -> tuple[SyntheticSet, dict[str, float]]:
    """A run of ours, and the seconds of its loop."""
    loop = Loop()
    return fastdd.distill(data, device=device, callbacks=[loop], **settings), loop.times


def published(data: Dataset, config: Settings, device: torch.device) -> tuple[SyntheticSet, dict[str, float]]:
    """A run of the published loop, and its seconds."""
    loop = PublishedLoop(_problem(data, config, device))
    clock, every = Clock(), max(1, config.iterations // _TOLD)
    for number in range(config.iterations):
        loss = loop.step()
        if (number + 1) % every == 0:
            _tell(number + 1, config.iterations, loss.item(), clock)
    images: Tensor = loop.images.detach().cpu()  # a GPU is waited for here
    times = clock.read()
    labels = torch.arange(data.num_classes).repeat_interleave(config.ipc)
    about = describe(
        data, config.ipc, method=config.method, debias=config.debias, run=config.model_dump(), seed=config.seed
    )
    return SyntheticSet(images.float(), labels, about), times


def timed(data: Dataset, config: Settings, structure: str, steps: int, device: torch.device) -> dict[str, float]:
    """What a whole run would take, by the medians of some steps of each kind."""
    problem = _problem(data, config, device)
    if structure == "fastdd":
        own = method(config.method)(config, Context(data, device, problem.images))
        kinds = {"step": (own.step, config.steps)}
    elif config.method == "dm":
        loop = PublishedLoop(problem)
        kinds = {"step": (lambda number: loop.step(), config.steps)}
    else:
        gradient = PublishedGradientLoop(problem)
        # The network of an iteration trains between its steps, not after the last.
        kinds = {
            "step": (lambda number: gradient.step(), config.steps),
            "training": (lambda number: gradient.train(), config.steps - config.iterations),
        }
    total = {"seconds": 0.0, "cpu_seconds": 0.0}
    for what, (call, times) in kinds.items():
        each = _median(call, steps, device)
        print(f"a {what}: {each['seconds']:.3f} s, {each['cpu_seconds']:.3f} s of processor; {times} of it", flush=True)
        total = {name: value + times * each[name] for name, value in total.items()}
    return total


def _median(call: Callable[[int], object], count: int, device: torch.device) -> dict[str, float]:
    spent = []
    for number in range(_WARM_UP + count):
        clock = Clock()
        call(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(clock.read())
    return {name: median(one[name] for one in spent[_WARM_UP:]) for name in spent[0]}


def _problem(data: Dataset, config: Settings, device: torch.device) -> Problem:
    return Problem(config, data, device, first_images(data, config.ipc, config.seed, config.init))


def main() -> None:
    """The process of a seed."""
    job = json.loads(sys.argv[1])
    data, settings = fastdd.data.load(job["dataset"], job["data_root"]), job["settings"]
    device = pick_device(job["device"])
    if job["timed_steps"] is not None:
        config = configure(dataset=data.name, **settings)
        times = timed(data, config, job["structure"], job["timed_steps"], device)
    else:
        if job["structure"] == "published":
            made, times = published(data, configure(dataset=data.name, **settings), device)
        else:
            made, times = distil(data, settings, job["device"])
        made.save(Path(job["out"]))
    files.write_text(job["times"], json.dumps(times))


if __name__ == "__main__":
    main()
