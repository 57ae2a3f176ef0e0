"""The published evaluation's training: of one network, and of several side by side."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastdd import models, ops, training
from fastdd.data import DeviceImages
from fastdd.evaluation.dc_augmentation import DC_OPS, DcAugmentation, dc_augment
from fastdd.evaluation.relabel import Relabelling
from fastdd.methods.parts.side_by_side import SideBySideTraining
from fastdd.methods.parts.training import Composition, train_epoch
from fastdd.training import Recipe

Optimizer = Literal["sgd", "adamw"]
# Of AdamW's second moment; PyTorch's default, which is the published setting.
_BETA = 0.999


@dataclass(frozen=True)
class Protocol:
    """How a network is trained for evaluation (defaults: DM and FairDD's published protocol, IPC 1 to 50).

    SGD with momentum 0.9 and weight decay 5e-4; ``epochs + 1`` epochs; after epoch ``epochs // 2 + 1`` the learning
    rate falls to a tenth and the momentum starts again from zero, as the published code does by building a new
    optimiser; one test at the end, never the best of several.

    Attributes:
        epochs: 1000 with augmentation, 300 without, in the published code.
        learning_rate: of the network; trajectory matching is published with its learned step size.
        momentum: of SGD; of AdamW the first beta (the second is 0.999).
        optimizer: sgd or adamw, whose weight decay is apart from the gradient.
        batch: training batch.
        dsa_strategy: augmentation while training: operations joined by underscores, with parameters an image.
        dc_strategy: in its place, DC's own: one operation an image, drawn from this list of crop, scale, rotate and
            noise (:class:`fastdd.evaluation.DcAugmentation`).
        composition: how many operations of ``dsa_strategy`` an image has: with dsa one a batch, with idc flip, color,
            cutout, as far as they are named, and one of the others (:func:`fastdd.ops.idc_params`).
        cutmix: probability that a batch is mixed (:func:`fastdd.ops.cutmix`).
        milestones: in place of DM's course, ``epochs`` epochs with one optimiser, whose learning rate falls after
            these parts of them, rounded down: 2/3 and 5/6 for IDC, every fifth for NCFM.
        gamma: what the learning rate falls to, as a factor.
        relabel: in place of augmentation, loss and course, training to a teacher's labels
            (:func:`fastdd.evaluation.relabel.train_to_labels`).
        training: the recipe by which networks are trained (:data:`fastdd.training.RECIPES`), with this optimiser.
        constants: of the recipe, in place of its defaults.
    """

    epochs: int = 1000
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    dsa_strategy: str = "color_crop_cutout_flip_scale_rotate"
    dc_strategy: str = "none"
    composition: Composition = "dsa"
    cutmix: float = 0.0
    milestones: tuple[Fraction, ...] | None = None
    gamma: float = 0.1
    optimizer: Optimizer = "sgd"
    relabel: Relabelling | None = None
    training: str = "erm"
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        training.constants(self.training, self.constants)
        if self.training != "erm" and self.cutmix:
            raise ValueError(f"training {self.training} has a loss of its own, which CutMix does not mix")
        if self.training != "erm" and self.relabel is not None:
            raise ValueError(f"training {self.training} has a loss of its own, and protocol rded the teacher's labels")
        if self.composition not in get_args(Composition):
            raise ValueError(f"composition must be {' or '.join(get_args(Composition))}, not {self.composition!r}")
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"optimizer must be {' or '.join(get_args(Optimizer))}, not {self.optimizer!r}")
        if not 0 <= self.cutmix <= 1:
            raise ValueError(f"cutmix must be a probability, 0 to 1, not {self.cutmix}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be above 0 and at most 1, not {self.gamma}")
        if any(not 0 < part < 1 for part in self.milestones or ()):
            raise ValueError(f"milestones must be parts of the epochs, between 0 and 1, not {self.milestones}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"the networks' learning rate must be positive, not {self.learning_rate}")
        siamese = ops.parse_strategy(self.dsa_strategy)
        if self.dc_strategy == "none":
            return
        for name in self.dc_strategy.split("_"):
            if name not in DC_OPS:
                raise ValueError(f"dc_strategy {self.dc_strategy!r}: {name!r} is not one of {', '.join(DC_OPS)}")
        if siamese:
            raise ValueError(f"one augmentation: dc_strategy {self.dc_strategy!r} goes with dsa_strategy 'none'")

    @property
    def passes(self) -> int:
        """Over the training images: DM's code has one more than it says."""
        return self.epochs + 1 if self.milestones is None else self.epochs

    @property
    def falls(self) -> list[int]:
        """After how many passes the learning rate falls."""
        if self.milestones is None:
            return [self.epochs // 2 + 2]
        return [int(part * self.epochs) for part in self.milestones]


def train(
    net: torch.nn.Module,
    images: DeviceImages,
    labels: Tensor,
    protocol: Protocol,
    key: tuple,
    recipe: Recipe | None = None,
    after: Callable[[int], None] | None = None,
) -> Tensor:
    """Train a network as the protocol says; orders and augmentations are functions of ``key`` and the epoch.

    ``recipe``, where it is not plain training, is of this network and these images. ``after`` is called with the number
    of passes done after each of them, and may leave the network in evaluation mode. Returns the last epoch's loss, a
    scalar on the device.
    """
    course = _Course(protocol, net.parameters() if recipe is None else recipe.parameters())
    augment = None
    if protocol.dc_strategy != "none":
        augment = partial(dc_augment, DcAugmentation(protocol.dc_strategy))
    net.train()
    if recipe is not None:
        recipe.train()
    for epoch in range(protocol.passes):
        loss = train_epoch(
            net,
            images,
            labels,
            course.optimizer,
            batch=protocol.batch,
            dsa_strategy=protocol.dsa_strategy,
            key=(*key, epoch),
            composition=protocol.composition,
            cutmix=protocol.cutmix,
            augment=augment,
            order=None if recipe is None else recipe.order((*key, epoch)),
            loss_of=None if recipe is None else recipe.loss,
        )
        course.follow(epoch)
        if after is not None:
            after(epoch + 1)
            net.train()
    return loss


def train_side_by_side(
    nets: models.SideBySide, images: DeviceImages, labels: Tensor, protocol: Protocol, keys: Sequence[tuple]
) -> Tensor:
    """Train networks as :func:`train` would each of them with its key, to rounding.

    Returns the last epoch's losses, [count], on the device.
    """
    training = ProtocolTraining(nets, images, labels, protocol, keys)
    for epoch in range(protocol.passes):
        losses = training.epoch(epoch)
    return losses


class ProtocolTraining:
    """The epochs of :func:`train_side_by_side`, one after another."""

    def __init__(
        self, nets: models.SideBySide, images: DeviceImages, labels: Tensor, protocol: Protocol, keys: Sequence[tuple]
    ):
        self._course = _Course(protocol, nets.parameters())
        self._training = SideBySideTraining(
            nets.train(),
            images,
            labels,
            self._course.optimizer,
            batch=protocol.batch,
            dsa_strategy=protocol.dsa_strategy,
            keys=keys,
            composition=protocol.composition,
            cutmix=protocol.cutmix,
        )

    def epoch(self, number: int) -> Tensor:
        """Do epoch ``number``, the next; its losses, [count], on the device."""
        losses = self._training.epoch(number)
        if self._course.follow(number):
            self._training.learn_by(self._course.optimizer)
        return losses


class _Course:
    """A protocol's optimiser, over epochs."""

    def __init__(self, protocol: Protocol, parameters: Iterable[torch.nn.Parameter]):
        self._protocol, self._parameters = protocol, list(parameters)
        # Of a few epochs two at a time, or some before the first: as MultiStepLR does it.
        self._falls = protocol.falls
        self._learning_rate = protocol.learning_rate * protocol.gamma ** self._falls.count(0)
        self.optimizer = self._new_optimizer()

    def follow(self, epoch: int) -> bool:
        """What comes after an epoch; whether anything does."""
        if epoch + 1 not in self._falls:
            return False
        self._learning_rate *= self._protocol.gamma ** self._falls.count(epoch + 1)
        if self._protocol.milestones is None:
            self.optimizer = self._new_optimizer()
        self.optimizer.param_groups[0]["lr"] = self._learning_rate
        return True

    def _new_optimizer(self) -> torch.optim.Optimizer:
        protocol = self._protocol
        common: dict[str, Any] = {"lr": self._learning_rate, "weight_decay": protocol.weight_decay}
        on_gpu = self._parameters[0].is_cuda
        if on_gpu:  # all parameters in one launch, or two
            common["fused"] = True
        if protocol.optimizer == "adamw":
            betas = protocol.momentum, _BETA
            return torch.optim.AdamW(self._parameters, betas=betas, capturable=on_gpu, **common)
        return torch.optim.SGD(self._parameters, momentum=protocol.momentum, **common)
