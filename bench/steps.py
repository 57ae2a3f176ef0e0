"""Per-step times of DM and DM+FairDD beside the published structure, and whether the results agree."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd import debias, models, ops, rng
from fastdd.bench import published
from fastdd.data import Dataset, DeviceImages, Sampler, Split
from fastdd.methods import dm
from fastdd.reference.dm import dm_loss
from fastdd.session import RunConfig, random_set
from fastdd.session.run import Stepper


def random_dataset(classes: int = 10, groups: int = 10, per_class: int = 512, size: int = 32) -> Dataset:
    """Random pixels, with 90 % of each class in its own group: the shapes of C-MNIST without its files."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    aligned = generator.random(len(labels)) < 0.9
    other = generator.integers(0, groups, len(labels))
    pixels = generator.integers(0, 256, (len(labels), 3, size, size), dtype=np.uint8)
    split = Split(pixels, labels, np.where(aligned, labels % groups, other))
    names = tuple(map(str, range(classes))), tuple(map(str, range(groups)))
    return Dataset("random", split, split, *names, (0.5,) * 3, (0.5,) * 3, {})


def agreement(config: RunConfig, dataset: Dataset, device: torch.device, images: Tensor) -> dict[str, Any]:
    """Loss and image gradient of one step against the published loop in fp64: ours, and the loop's own in fp32.

    The rule: our error is at most twice plain torch's at the same precision. The network has a smooth activation here:
    with ReLU, a single activation that rounds to the other side of zero moves the gradient by 1e-3, in either
    implementation, a thousand times what arithmetic does.
    """
    labels, groups = (torch.as_tensor(array) for array in (dataset.train.labels, dataset.train.groups))
    sampler = Sampler(labels, groups, dataset.num_classes, dataset.num_groups, config.batch_real, device=device)
    groups = groups.to(device)
    rows = sampler.draw(rng.key(1, "agreement"))
    batch = debias.Batch(rows, sampler.classes, groups[rows], dataset.num_classes, dataset.num_groups)
    keys = rng.lanes(rng.key(1, "dsa"), dataset.num_classes, device)
    params = ops.dsa_params(config.dsa_strategy, keys, dataset.size)
    real = DeviceImages.of(dataset.train.images, dataset.mean, dataset.std, device)
    net = models.build(
        "ConvNetASwish",
        dataset.channels,
        dataset.num_classes,
        dataset.size,
        width=config.width,
        depth=config.depth,
        key=3,
        device=device,
    ).requires_grad_(False)
    leaf = images.to(device, copy=True).requires_grad_()
    ours = torch.autograd.grad(dm.loss(net, real, debias.mode(config.debias)(batch), leaf, params), leaf)[0].double()

    def literal(dtype: torch.dtype) -> Tensor:
        of_class = rows.split(sampler.counts.tolist())
        mean, std = (torch.tensor(v, dtype=dtype, device=device).view(-1, 1, 1) for v in (dataset.mean, dataset.std))
        pixels = [(real.pixels[r].to(dtype) / 255 - mean) / std for r in of_class]
        member = [groups[r] for r in of_class] if config.debias == "fairdd" else None
        at = images.to(device, dtype, copy=True).requires_grad_()

        def augmented(x: Tensor, row: Tensor) -> Tensor:
            return published.augment(x, row[0], published.operation_of(row[0]))

        value = dm_loss(net.to(dtype), pixels, member, at, params, augmented)
        return torch.autograd.grad(value, at)[0].double()

    truth, plain = literal(torch.float64), literal(torch.float32)
    error = ((ours - truth).norm() / truth.norm()).item()
    budget = 2 * ((plain - truth).norm() / truth.norm()).item()
    return {"error": error, "budget": budget, "match": error <= budget}


def alternate(
    steppers: dict[str, Callable[[int], Tensor]], device: torch.device, rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Milliseconds of every step of every stepper, in turns, so that a noisy neighbour hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(warm_up + rounds):
        for name, step in steppers.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            step(number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= warm_up:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def run(device: torch.device, rounds: int, dataset: Dataset, **settings: Any) -> list[dict[str, Any]]:
    """Rows for DM and DM+FairDD: median and quartiles, ratio to the published loop where the result matches.

    Args:
        device: where.
        rounds: timed steps of every backend.
        dataset: real images.
        **settings: of both runs (:class:`fastdd.session.RunConfig`): ipc, batch_real ...

    All backends compute convolutions in float32 and repeatably, as runs do (:func:`fastdd.models.exact_convolutions`).
    """
    with models.exact_convolutions():
        return _rows(device, rounds, dataset, settings)


def _rows(device: torch.device, rounds: int, dataset: Dataset, settings: dict[str, Any]) -> list[dict[str, Any]]:
    start = random_set(dataset, settings["ipc"]).images
    steppers, matches = {}, {}
    for mode in ("none", "fairdd"):
        config = RunConfig.for_run(dataset=dataset.name, debias=mode, **settings)
        matches[mode] = agreement(config, dataset, device, start)
        steppers[mode, "reference-loop"] = published.PublishedLoop(config, dataset, device, start).step
        steppers[mode, "fastdd"] = Stepper(config, dataset, device, start).step
    times = alternate(steppers, device, rounds)
    rows = []
    for (mode, backend), spent in times.items():
        low, median, high = np.percentile(spent, [25, 50, 75])
        row = {
            "case": f"step/dm{'' if mode == 'none' else '+' + mode}",
            "backend": backend,
            "shape": {
                "classes": dataset.num_classes,
                "groups": dataset.num_groups,
                "image": [dataset.channels, *dataset.size],
                **settings,
            },
            "rounds": rounds,
            "ms_p25": low,
            "ms_p50": median,
            "ms_p75": high,
        }
        if backend == "fastdd":
            row |= matches[mode]
            if row["match"]:
                row["speedup_vs_reference_loop"] = float(np.median(times[mode, "reference-loop"])) / median
                row["vs_debias_none"] = median / float(np.median(times["none", "fastdd"]))
        rows.append(row)
    return rows
