"""Trajectory matching (MTT): which expert, which epoch, which batches, and what is learned besides the images.

The mathematics of a trajectory is in :mod:`fastdd.methods.unroll`.
"""

import math
from collections.abc import Hashable
from types import MappingProxyType
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from fastdd import models, ops
from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys
from fastdd.core.settings import setting
from fastdd.methods import unroll
from fastdd.methods.base import Context, Method, Recent, Settings, build_network, moved
from fastdd.methods.unroll import UNROLLS

# Experts whose logits are the first of learned soft labels.
_LABELLING_EXPERTS = 10
# A student's loss that no run comes back from; a step size, in units of the first, that has run away, or with which
# nothing is learned.
_DIVERGED, _GROWN, _SHRUNK = 100.0, 5.0, 1e-3
_QUICK = MappingProxyType(
    {
        "iterations": 100,
        "syn_steps": 6,
        "max_start_epoch": 4,
        "expert_epochs": 1,
        "lr_teacher": 0.02,
        "lr_img": 1000,
    }
)


class MttSettings(Settings):
    """Settings of trajectory matching; network, whitening and debias mode are those of its experts."""

    expert_epochs: int = setting("epochs of an expert between the student's start and its target", ge=1)
    max_start_epoch: int = setting("the student starts where an expert was at some epoch below this one", ge=1)
    syn_steps: int = setting("training steps of the student", ge=1)
    batch_syn: int | None = setting("synthetic images of a step of the student", None, default_help="preset; all", ge=1)
    lr_teacher: float = setting("the student's learning rate at first; it is learned with the images", gt=0)
    lr_lr: float = setting("learning rate of the student's learning rate", ge=0)
    step_size: Literal["log", "raw"] = setting(
        "learn the log of the student's learning rate, which stays positive, or it itself (raw, as published)",
        "log",
    )
    unroll: Literal[UNROLLS] = setting(
        "derivative of the student's training: exact, full (the same, all of it kept in memory) or tesla (approximate)",
        "exact",
    )
    published_factor: bool = setting("with unroll tesla, halve the images' gradient, as its published code does", False)
    soft_labels: Literal["none", "teacher", "learned"] = setting(
        "soft labels of the synthetic images: none (their classes), teacher (what the target says of them) or learned",
        "none",
    )
    lr_label: float | None = setting("learning rate of soft labels that are learned", None, gt=0)
    zca: bool = setting(
        "whiten the images (ZCA), which the experts must have seen whitened too", False, default_help="the experts'"
    )

    @model_validator(mode="after")
    def _go_together(self) -> "MttSettings":
        if (self.lr_label is not None) != (self.soft_labels == "learned"):
            raise ValueError(f"lr_label goes with soft_labels=learned, here {self.soft_labels}: give both or neither")
        if self.published_factor and self.unroll != "tesla":
            raise ValueError(f"published_factor is TESLA's, not that of unroll={self.unroll}")
        return self


class Mtt(Method):
    """Trajectory matching: a student of an expert, on images, step size and, if asked for, soft labels.

    Raises:
        ValueError: experts of another network or of too few epochs, a batch larger than the synthetic set, or classes,
            as a step needs all of them.
    """

    about = "trajectory matching: students that end where experts do"
    source = "Cazenavette et al., CVPR 2022"
    Settings = MttSettings
    quick = _QUICK
    needs_experts = True
    debias_of_experts = True
    classes_apart = False

    def __init__(self, config: MttSettings, context: Context):
        if context.classes is not None:
            raise ValueError("a step of mtt is on the images of all classes: it can't be on some of them")
        super().__init__(config, context)
        device, images, experts = context.device, context.images, context.experts
        channels, classes, size = experts.about("channels", "num_classes", "size")
        self._experts = experts
        self._net = build_network(config, channels, classes, tuple(size), device)
        experts.check_network(self._net, config.arch)
        experts.check_epochs(config.max_start_epoch, config.expert_epochs)
        if config.zca != (experts.zca is not None):
            kind = "whitened images (ZCA)" if experts.zca else "images that are not whitened"
            raise ValueError(f"the experts were trained on {kind}: zca={config.zca} does not fit them")
        if config.batch_syn is not None and config.batch_syn > len(images):
            raise ValueError(f"batch_syn {config.batch_syn} is larger than the synthetic set of {len(images)} images")
        self._classes = torch.arange(classes, device=device).repeat_interleave(config.ipc)
        start = config.lr_teacher if config.step_size == "raw" else math.log(config.lr_teacher)
        self._step = torch.tensor(start, device=device)
        self._step_momentum = torch.zeros_like(self._step)
        self._step_sizes = Recent()  # after every step
        self._arena = unroll.Arena()
        self._labels = None
        if config.soft_labels != "none":
            self._labels = self._expert_logits()
            self._label_momentum = torch.zeros_like(self._labels)

    @torch.no_grad()
    def _expert_logits(self) -> Tensor:
        """[M, classes], the mean over (at most ten) experts as they end, of the images to start from."""
        some = range(min(self._experts.number, _LABELLING_EXPERTS))
        return torch.stack([self._logits(self._theta(expert, self._experts.epochs)) for expert in some]).mean(0)

    @torch.no_grad()
    def _logits(self, theta: Tensor) -> Tensor:
        batches = self.images.detach().split(models.chunk_size(self._net, self.images))
        return torch.cat([unroll.logits(self._net, theta, batch) for batch in batches])

    def _theta(self, expert: int, epoch: int) -> Tensor:
        return self._experts.at(expert, epoch, self.images.device)

    @property
    def step_size(self) -> Tensor:
        """The student's step size as it is now, a scalar."""
        return self._step if self._config.step_size == "raw" else self._step.exp()

    def step(self, number: int) -> Tensor:
        expert, epoch = self._start(number)
        ends = self._theta(expert, epoch), self._theta(expert, epoch + self._config.expert_epochs)
        loss, step_size = self._steps(number, *ends)
        self._step_sizes.add(number, step_size)
        self._arena.give_back()
        return loss

    def keys(self, number: int) -> HostKeys:
        seed, steps = self._config.seed, range(self._config.syn_steps)
        # An order is of as many steps as the whole set is.
        orders = {f"order {i}": rng.key(seed, "order", number, i) for i in steps[:: self._steps_of_an_order]}
        return {**orders, **{f"dsa {i}": rng.key(seed, "dsa", number, i) for i in steps}}

    def phase(self, number: int) -> Hashable | None:
        return 0 if models.replays(self._net) else None

    def _do(self, number: int, keys: Keys, start: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The student's training from an expert's parameters towards later ones. Its loss, and the step size after."""
        config, device = self._config, self.images.device
        if config.soft_labels == "teacher":
            self._labels.copy_(self._logits(target))
        batches = self._batches(keys)
        size = self.images.shape[-2:]
        params = [
            ops.dsa_params(
                config.dsa_strategy,
                rng.lanes(keys[f"dsa {i}"], len(rows), device),
                size,
                shared_op=True,
            )
            for i, rows in enumerate(batches)
        ]
        step_size = self.step_size
        loss, gradients = unroll.loss_and_gradients(
            self._net,
            start,
            target,
            self.images,
            self._classes if self._labels is None else self._labels,
            step_size,
            batches,
            params,
            unroll=config.unroll,
            memory=config.memory,
            arena=self._arena,
        )
        self._update(gradients.images * 0.5 if config.published_factor else gradients.images)
        # d a / d log a = a; the rate makes the first update of a the published one, to first order.
        rate, factor = (
            (config.lr_lr, 1) if config.step_size == "raw" else (config.lr_lr / config.lr_teacher**2, step_size)
        )
        self._step_momentum.mul_(config.momentum).add_(gradients.step_size * factor)
        self._step.sub_(self._step_momentum, alpha=rate)
        if config.soft_labels == "learned":
            self._label_momentum.mul_(config.momentum).add_(gradients.labels)
            self._labels.sub_(self._label_momentum, alpha=config.lr_label)
        return loss, self.step_size

    def _start(self, number: int) -> tuple[int, int]:
        """The expert of a step, and the epoch that its student starts at."""
        config = self._config
        first, second = rng.bits(rng.key(config.seed, "trajectory", number), 2).tolist()
        return first % self._experts.number, second % config.max_start_epoch

    @property
    def _steps_of_an_order(self) -> int:
        images = len(self.images)
        return -(-images // (self._config.batch_syn or images))

    def _batches(self, keys: Keys) -> list[Tensor]:
        """Rows of every step: the synthetic set in random order, again and again."""
        config, images = self._config, len(self.images)
        batches: list[Tensor] = []
        while len(batches) < config.syn_steps:
            order = rng.permutation(keys[f"order {len(batches)}"], images, self.images.device)
            batches += order.split(config.batch_syn or images)
        return batches[: config.syn_steps]

    def state(self) -> dict[str, Tensor]:
        state = {**super().state(), "step_size": self._step, "step_size_momentum": self._step_momentum}
        if self._labels is not None:
            state |= {"labels": self._labels, "label_momentum": self._label_momentum}
        return state

    def learned(self) -> dict[str, Any]:
        soft = None if self._labels is None else self._labels.softmax(1).cpu()
        return {"learning_rate": self.step_size.item(), "soft_labels": soft, "zca": self._experts.zca}

    def trouble(self, number: int, loss: float) -> str | None:
        config = self._config
        after = self._step_sizes.of(number)
        after = self.step_size.item() if after is None else after
        lower_rate = f"lower lr_lr ({config.lr_lr:g})"
        if loss <= _DIVERGED or number > 0:
            if config.step_size == "raw" and after <= 0:
                return f"the learned step size is {after:.4g}; use step_size log, or {lower_rate}"
            if after < _SHRUNK * config.lr_teacher:
                return f"the learned step size fell from {config.lr_teacher:g} to {after:.4g}; {lower_rate}"
        if loss <= _DIVERGED:
            return None
        expert, start = self._start(number)
        end = start + config.expert_epochs
        if not moved(self._experts.at(expert, start), self._experts.at(expert, end)):
            return f"expert {expert} does not move from epoch {start} to {end}; train experts with a higher lr_teacher"
        what = f"the loss is {loss}"
        if math.isfinite(loss):
            what = f"the student ends {loss**0.5:.3g} times as far from its target as it starts"
        if number == 0:
            cause = f"lower lr_teacher ({config.lr_teacher:g}), its first step size, or syn_steps ({config.syn_steps})"
        elif not after <= _GROWN * config.lr_teacher:
            cause = f"its step size grew from {config.lr_teacher:g} to {after:.4g}; {lower_rate}"
        else:
            cause = f"the images reach {self.reach():.3g}; lower lr_img ({config.lr_img:g})"
        return f"{what}; {cause}"
