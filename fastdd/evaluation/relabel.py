"""Training on a teacher's labels, as decoupled methods are evaluated (protocol rded; LINs-lab/RDED, CVPR 2024).

Every epoch has the images once, in batches, each image in another *view*: strips shuffled, a random resized crop,
mirrored or not, and a rectangle of another image of the batch (CutMix). The network learns what the teacher says of
the view,

    L = mean over a batch of KL( softmax(teacher(v) / T) || softmax(net(v) / T) ),

without the factor T^2, by AdamW, whose decay is on matrices and filters only, at ``lr (1 + cos(pi e / 2E)) / 2`` in
epoch e of E, which ends at half. Views are functions of (seed, epoch, batch), the same for every network: a teacher's
logits can be stored without any image (:mod:`fastdd.evaluation.label_file`), or are made on the way, and rounded to
half precision either way, so that both train to the same bits.

Two quirks of the published code: the first is kept, that batch norms count a batch's statistics twice (it passes the
mixed batch through the network once more, which changes nothing else); JPEG files are not.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import ops
from fastdd.core import rng
from fastdd.data import DeviceImages
from fastdd.methods.parts.training import train_epoch

_BETA = 0.999
# Logits of all epochs that are kept for the networks to come, in bytes.
_KEPT_BYTES = 1 << 28


@dataclass(frozen=True)
class Relabelling:
    """What a protocol trains to.

    Attributes:
        labels: the teacher's, or hard: the images' classes, mixed in proportion as the images are.
        temperature: T.
        strips: f: of each side of an image so many strips are shuffled (the cells of a mosaic); 1: none.
        smallest: least area of a crop, in units of the image's: 1 / f in the published code.
        teacher: digest of who labels; empty for hard labels.
    """

    labels: Literal["teacher", "hard"] = "teacher"
    temperature: float = 20.0
    strips: int = 1
    smallest: float = 1.0
    teacher: str = ""

    def __post_init__(self):
        if self.labels not in ("teacher", "hard"):
            raise ValueError(f"labels must be teacher or hard, not {self.labels!r}")
        if not 0 < self.temperature < math.inf or self.strips < 1 or not 0 < self.smallest <= 1:
            raise ValueError(f"temperature, strips and smallest must be positive, and smallest at most 1: {self}")


@dataclass(frozen=True)
class Views:
    """The views of all epochs.

    Attributes:
        seed: what they are functions of.
        how: strips and crops.
    """

    seed: int
    how: Relabelling

    def order(self, epoch: int, n: int, device: torch.device | str) -> Tensor:
        """int64 [n], the rows of an epoch's batches, one after another."""
        return rng.permutation(rng.key(self.seed, "view-order", epoch), n, device)

    def mix(self, epoch: int, batch: int, n: int, size: tuple[int, int], device: torch.device) -> ops.CutMix:
        """How a batch of n images is mixed."""
        return ops.cutmix(rng.key(self.seed, "view-mix", epoch, batch), n, size, 1.0, device)

    def images(self, images: DeviceImages, rows: Tensor, epoch: int, batch: int) -> Tensor:
        """A batch's, [n, C, H, W]."""
        keys = rng.lanes(rng.key(self.seed, "view", epoch, batch), len(rows), images.device)
        crops = ops.random_crops(keys, images.size, area=(self.how.smallest, 1.0), mirror=0.5)
        strips = ops.strip_orders(keys, self.how.strips) if self.how.strips > 1 else None
        cut = ops.crop_resize(images.read(rows), crops, images.size, strips)
        return self.mix(epoch, batch, len(rows), images.size, images.device).paste(cut)


class TeachersLogits(Protocol):
    """Who says logits of images (:class:`fastdd.methods.Teacher`)."""

    digest: str

    def logits(self, images: Tensor) -> Tensor: ...


class StoredLogits(Protocol):
    """Logits of all epochs' views (:class:`fastdd.evaluation.label_file.LabelFile`)."""

    epochs: int
    digest: str

    def at(self, epoch: int, first: int, n: int) -> Tensor: ...


class Labeller:
    """What views are labelled with.

    Args:
        views: of the epochs.
        teacher: who labels them on the way; None where ``stored`` is given, or labels are hard.
        stored: logits that were stored.
    """

    def __init__(self, views: Views, teacher: TeachersLogits | None = None, stored: StoredLogits | None = None):
        self.views, self.teacher, self.stored = views, teacher, stored
        self._kept: Tensor | None = None
        self._known: set[tuple[int, int]] = set()

    @property
    def how(self) -> Relabelling:
        """What is trained to, with the digest of who labels."""
        source = self.stored or self.teacher
        return self.views.how if source is None else replace(self.views.how, teacher=source.digest)

    def keep(self, epochs: int, n: int, classes: int) -> "Labeller":
        """One that remembers what the teacher says of n images in so many epochs, if that is not too much."""
        kept = Labeller(self.views, self.teacher, self.stored)
        if self.teacher is not None and epochs and 2 * epochs * n * classes <= _KEPT_BYTES:
            kept._kept = torch.empty(epochs, n, classes, dtype=torch.float16)
        return kept

    def logits(self, images: Tensor, epoch: int, first: int) -> Tensor:
        """float32 [n, classes] of a batch of views, which begins at place ``first`` of its epoch."""
        n = len(images)
        if self.stored is not None:
            return self.stored.at(epoch % self.stored.epochs, first, n).to(images.device).float()
        if (epoch, first) in self._known:
            return self._kept[epoch, first : first + n].to(images.device).float()
        found = self.teacher.logits(images).to(torch.float16)
        if self._kept is not None:
            self._kept[epoch, first : first + n] = found.cpu()
            self._known.add((epoch, first))
        return found.float()


def train_to_labels(
    net: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    labeller: Labeller,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    after: Callable[[int], None] | None = None,
) -> Tensor:
    """Train a network, which is changed. Returns the last epoch's mean loss, a scalar on the device.

    Args:
        net: logits of images; its parameters are trained.
        images, labels: the images, and their classes (int64 [N]) or probabilities (float [N, C]): the hard labels.
        labeller: of their views.
        epochs, batch, learning_rate, weight_decay: as :class:`fastdd.evaluation.Protocol` has them.
        momentum: AdamW's first beta.
        after: called with the number of epochs done after each of them; it may leave the network in evaluation mode.
    """
    views, how = labeller.views, labeller.views.how
    matrices = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in net.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    on_gpu = labels.is_cuda
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=(momentum, _BETA), fused=on_gpu or None)

    def read(rows: Tensor, key: tuple) -> Tensor:
        return views.images(images, rows, *key[-2:])

    def loss_of(rows: Tensor, x: Tensor, key: tuple) -> Tensor:
        epoch, number = key[-2:]
        found = net(x)
        if how.labels == "hard":
            mix = views.mix(epoch, number, len(rows), images.size, x.device)
            own, others = (F.cross_entropy(found, labels[some]) for some in (rows, rows[mix.order]))
            return mix.kept * own + (1 - mix.kept) * others
        said = F.softmax(labeller.logits(x, epoch, number * batch) / how.temperature, 1)
        return F.kl_div(F.log_softmax(found / how.temperature, 1), said, reduction="batchmean")

    net.train()
    with _statistics_twice(net):
        for epoch in range(epochs):
            for group in adamw.param_groups:
                group["lr"] = learning_rate * (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2
            loss = train_epoch(
                net,
                images,
                labels,
                adamw,
                batch=batch,
                dsa_strategy="none",
                key=(views.seed, "view", epoch),
                order=views.order(epoch, len(labels), images.pixels.device),
                read=read,
                loss_of=loss_of,
            )
            if after is not None:
                after(epoch + 1)
                net.train()
    return loss


@contextmanager
def _statistics_twice(net: nn.Module) -> Iterator[None]:
    """Running statistics move as if every batch was seen twice, which is once with a momentum of 1 - (1 - m)^2."""
    norms = {layer: layer.momentum for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)}
    for layer, momentum in norms.items():
        layer.momentum = 1 - (1 - momentum) ** 2
    try:
        yield
    finally:
        for layer, momentum in norms.items():
            layer.momentum = momentum
