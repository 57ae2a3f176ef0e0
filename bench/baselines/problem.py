"""What whole steps are measured on: a run's settings, random images, and the draws of its first step."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fastdd import models, ops
from fastdd.bench.baselines.plain import ConvNet
from fastdd.core import rng
from fastdd.data import Dataset, Sampler, Split
from fastdd.data.initial import random_set
from fastdd.debias import Batch, Segments
from fastdd.experts.store import Experts, parameter_list
from fastdd.methods import Settings, configure, unroll


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


@dataclass(frozen=True)
class FirstStep:
    """What :class:`fastdd.methods.matching.Matching` draws at step 0.

    Attributes:
        rows: int64 [M], the real batch, class-major.
        per_class: rows of every class.
        params: [C, 13], augmentation of every class, on the CPU.
        state: the network's parameters.
    """

    rows: Tensor
    per_class: list[int]
    params: Tensor
    state: dict[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """A distillation on real images to take steps of.

    Attributes:
        config: the run.
        dataset: real images.
        device: where.
        images: float32 [C * IPC, channels, H, W], the synthetic images to start from.
        weights: float32 [N], above 0, of the real images; None: all alike.
    """

    config: Settings
    dataset: Dataset
    device: torch.device
    images: Tensor
    weights: Tensor | None = None

    @classmethod
    def make(cls, dataset: Dataset, device: torch.device, weights: Tensor | None = None, **settings) -> "Problem":
        """On a data set, with settings of :class:`fastdd.methods.Settings`."""
        config = configure(dataset=dataset.name, iterations=1, **settings)
        return cls(config, dataset, device, random_set(dataset, config.ipc, config.seed).images, weights)

    @property
    def activation(self) -> str:
        """The network's: relu, or a smooth one."""
        return {"ConvNetASwish": "swish", "ConvNetAS": "sigmoid"}.get(self.config.arch, "relu")

    def network(self) -> ConvNet:
        """The run's network from PyTorch's layers, randomly initialised from the global generator."""
        data, config = self.dataset, self.config
        return ConvNet(
            data.channels, data.num_classes, data.size, config.width or 128, config.depth or 3, self.activation
        ).requires_grad_(False)

    def real(self, dtype: torch.dtype) -> Tensor:
        """All real images, [N, channels, H, W], normalised in ``dtype``, on the device."""
        data, device = self.dataset, self.device
        mean, std = (
            torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1) for values in (data.mean, data.std)
        )
        return (torch.as_tensor(data.train.images, device=device).to(dtype) / 255 - mean) / std

    @cached_property
    def _samples(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Of all real images, on the device: labels, groups, counts of both, and weights."""
        train, weights = self.dataset.train, self.weights
        counts = train.counts(self.dataset.num_classes, self.dataset.num_groups)
        arrays = (torch.as_tensor(array, device=self.device) for array in (train.labels, train.groups, counts))
        return *arrays, None if weights is None else weights.to(self.device)

    def segments(self, rows: Tensor) -> Segments:
        """Those that the run's debias mode makes of a real batch, class-major rows [M] on the device."""
        labels, groups, counts, weights = self._samples
        data = self.dataset
        weights = None if weights is None else weights[rows]
        batch = Batch(rows, labels[rows], groups[rows], data.num_classes, data.num_groups, counts, weights)
        return self.config.mode.segments(batch)

    @cached_property
    def first_step(self) -> FirstStep:
        config, data = self.config, self.dataset
        labels, groups = (torch.as_tensor(array) for array in (data.train.labels, data.train.groups))
        sampler = Sampler(labels, groups, data.num_classes, data.num_groups, config.batch_real, device=self.device)
        keys = rng.lanes(rng.key(config.seed, "dsa", 0), data.num_classes)
        key = rng.key(config.seed, "net", 0)
        net = models.build(
            config.arch, data.channels, data.num_classes, data.size, width=config.width, depth=config.depth, key=key
        )
        return FirstStep(
            sampler.draw(rng.key(config.seed, "batch", 0)),
            sampler.counts.tolist(),
            ops.dsa_params(config.dsa_strategy, keys, data.size),
            net.state_dict(),
        )


# How far an expert's parameters are from the start, each: as far as 20 SGD steps of 0.01 take a random network.
_EXPERT_DISTANCE = 1e-3


@dataclass(frozen=True)
class FirstTrajectory:
    """What :class:`fastdd.methods.mtt.Mtt` draws at step 0.

    Attributes:
        batches: int64 [b] of every step of the student, rows of the synthetic images.
        params: [b, 13] of every step, augmentation parameters, on the CPU.
    """

    batches: list[Tensor]
    params: list[Tensor]


@dataclass(frozen=True)
class TrajectoryProblem(Problem):
    """A distillation by trajectory matching, of one expert: a random network, and where it went in one epoch."""

    @cached_property
    def experts(self) -> Experts:
        config, data = self.config, self.dataset
        net = models.build(
            config.arch,
            data.channels,
            data.num_classes,
            data.size,
            width=config.width,
            depth=config.depth,
            key=rng.key(config.seed, "net"),
        )
        start = unroll.parameters(net)
        target = start + _EXPERT_DISTANCE * rng.normal(rng.key(config.seed, "target"), len(start))
        about = {"channels": data.channels, "num_classes": data.num_classes, "size": list(data.size)}
        return Experts(torch.stack([start, target])[None], {"parameters": parameter_list(net), **about})

    @cached_property
    def labels(self) -> Tensor:
        """int64 [C * IPC], of the synthetic images."""
        return torch.arange(self.dataset.num_classes, device=self.device).repeat_interleave(self.config.ipc)

    @cached_property
    def first_trajectory(self) -> FirstTrajectory:
        config, count = self.config, len(self.images)
        batches: list[Tensor] = []
        while len(batches) < config.syn_steps:
            key = rng.key(config.seed, "order", 0, len(batches))
            batches += rng.permutation(key, count).split(config.batch_syn)
        batches = batches[: config.syn_steps]
        keys = [rng.lanes(rng.key(config.seed, "dsa", 0, i), len(rows)) for i, rows in enumerate(batches)]
        strategy, size = config.dsa_strategy, self.dataset.size
        return FirstTrajectory(batches, [ops.dsa_params(strategy, each, size, shared_op=True) for each in keys])
