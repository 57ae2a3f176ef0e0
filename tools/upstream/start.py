"""``fastdd run`` from the same state of all generators, with a clock that says the same in every run.

    python start.py SEED CODE RECORD [--profile] [--double] [--perturb] [--networks] [--end=N] -- OPTIONS SCRIPT ARGS

Published code takes seeds from the clock. Here the n-th question of a line of the code under ``CODE`` always gets the
same answer, whoever else has asked; all others get the time. ``RECORD`` gets seconds (CPU and wall) since the start
of the script, and with ``--profile`` where they went. ``--double`` makes double precision the default. ``--perturb``
rounds otherwise: no convolution is oneDNN's, and what an optimiser has stepped is multiplied by 1 + 1e-7 n, n normal.
The gradient of the first step of images is stored beside ``RECORD``, as ``gradient.pt``; with ``--end=N`` the images
after N steps, as ``images.pt``, and the script ends there. ``RECORD`` also has the CPU seconds after each step of
images; with ``--networks`` the steps, of that option too, are those of networks.
"""

import atexit
import cProfile
import json
import os
import pstats
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from fastdd.cli import main

# Steps of the clock are none of the seeds' periods (100,000 ms), so that seeds differ.
_BEGIN, _STEP = 1.7e9, 0.0371
_SHOWN = 14
# Through which an op of ours is called, and how many calls of it lie between.
_DISPATCHER = (
    *("torch/_ops.py", "torch/_library/autograd.py", "torch/_library/custom_ops.py", "torch/autograd/function.py"),
    *("fastdd/ops/_dispatch.py", "fastdd/compat/deferred/escapes.py"),
)
_DISPATCH_DEPTH = 8
# Half a unit in the last place of single precision.
_ROUNDING = 1e-7


def steady(code: str) -> None:
    """Let the clock of the code under a folder be a count."""
    now, asked = time.time, Counter()

    def answer() -> float:
        frame = sys._getframe(1)
        file = frame.f_code.co_filename
        if not file.startswith(code):
            return now()
        place = file, frame.f_lineno
        asked[place] += 1
        return _BEGIN + _STEP * asked[place]

    time.time = answer


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the scripts draw from it
    torch.manual_seed(seed)


def perturb(seed: int) -> None:
    """From now on, round otherwise: convolutions by other code, and a last place more after every optimiser's step."""
    torch.backends.mkldnn.enabled = False
    draws = torch.Generator().manual_seed(seed)

    def change(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for value in group["params"]:
                    value.mul_(1 + _ROUNDING * torch.randn(value.shape, generator=draws))

    register_optimizer_step_post_hook(change)


def _images(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """What it steps that is a leaf, and no network's parameter."""
    values = [value for group in optimizer.param_groups for value in group["params"]]
    return [value for value in values if not isinstance(value, torch.nn.Parameter) and value.dim() == 4]


def keep_gradient(path: Path) -> None:
    """Store the gradient of the first step of images."""

    def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if (images := _images(optimizer)) and images[0].grad is not None:
            torch.save([value.grad.detach().clone() for value in images], path)
            handle.remove()

    handle = register_optimizer_step_pre_hook(keep)


def note_steps(networks: bool, end: int, path: Path) -> list[float]:
    """CPU seconds after each step of images, or of networks; after ``end`` of them, if any, images are stored, and the
    script ends."""
    after: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        images = _images(optimizer)
        if bool(images) == networks:
            return
        after.append(cpu_seconds())
        if len(after) == end:
            if images:
                torch.save([value.detach().clone() for value in images], path)
            sys.exit()

    register_optimizer_step_post_hook(note)
    return after


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def shares(profile: cProfile.Profile) -> list[tuple[str, float]]:
    """Functions by the share of all seconds that they themselves took, largest first.

    Time in torch's dispatcher counts for those that called it, in proportion.
    """
    stats = pstats.Stats(profile)
    took = Counter({place: own for place, (_, _, own, _, _) in stats.stats.items()})
    for _ in range(_DISPATCH_DEPTH):
        for place in [place for place in took if place[0].endswith(_DISPATCHER) or place[2].endswith(" apply>")]:
            callers = {caller: figures[3] for caller, figures in stats.stats[place][4].items() if caller != place}
            if whole := sum(callers.values()):
                seconds = took.pop(place)
                for caller, part in callers.items():
                    took[caller] += seconds * part / whole
    return [(_called(*place), own / max(stats.total_tt, 1e-9)) for place, own in took.most_common(_SHOWN)]


def _called(file: str, line: int, name: str) -> str:
    if file == "~":  # built in
        words = name.strip("<>{}").split("'")
        return words[1] if len(words) > 1 else words[0].removeprefix("built-in method ")
    return f"{Path(file).parent.name}/{Path(file).name}:{name}"


def run(arguments: list[str]) -> None:
    head, own = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    seed, code, record = int(head[0]), head[1], Path(head[2])
    pid, wall, cpu = os.getpid(), time.perf_counter(), cpu_seconds()
    profile = cProfile.Profile() if "--profile" in head else None

    def write() -> None:
        if os.getpid() != pid:
            return
        found: dict[str, Any] = {"cpu": cpu_seconds() - cpu, "wall": time.perf_counter() - wall}
        found["steps"] = [seconds - cpu for seconds in steps]
        if profile is not None:
            profile.disable()
            found["profile"] = shares(profile)
        record.write_text(json.dumps(found))

    atexit.register(write)
    steady(code)
    seed_all(seed)
    keep_gradient(record.parent / "gradient.pt")
    if "--double" in head:
        torch.set_default_dtype(torch.float64)
    if "--perturb" in head:
        perturb(seed)
    end = next((int(option.removeprefix("--end=")) for option in head if option.startswith("--end=")), 0)
    steps = note_steps("--networks" in head, end, record.parent / "images.pt")
    if profile is not None:
        profile.enable()
    main(["run", *own])


if __name__ == "__main__":
    # Modules that the code imports must not be found beside this file.
    sys.path[0] = os.getcwd()
    run(sys.argv[1:])
