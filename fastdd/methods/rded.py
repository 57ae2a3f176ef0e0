"""Realistic, diverse and efficient distillation (RDED; Sun et al., "On the Diversity and Realism of Distilled Dataset",
CVPR 2024): mosaics of the crops that a teacher is surest of. Nothing is learned.

Of a class, ``candidates`` real images give ``crops`` random crops each, of side ``1 / factor`` of an image's; a crop,
padded with zeros (of normalised pixels) to full size, has the loss

    l = -log p_teacher(class | crop).

Each image's best crop is kept, and of those the best ``ipc factor^2``; of each ``ipc`` in turn, from the best on,
is a cell of the mosaics, row by row (the published ``synthesize/utils.py``). With crops of fewer images than that, the
second best of an image comes after the best of all.

Under a debias mode images count by weights w and in segments (:class:`fastdd.debias.Segments`): crops are kept in the
order of ``w p`` and candidates are drawn in proportion to w; of each segment as many as of any other (fairdd), or by
its importance. An image is of one segment, as far as there are as many images as segments.

Where the published code has other choices: a crop is cut from normalised pixels, and what is kept is not rounded to a
JPEG file.
"""

import math
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import ops
from fastdd.core import rng
from fastdd.core.settings import setting
from fastdd.data import Dataset, DeviceImages
from fastdd.data.initial import mosaics
from fastdd.debias import Batch, Segments
from fastdd.methods.decoupled import Decoupled, DecoupledSettings, Teacher, Unit


class RdedSettings(DecoupledSettings):
    """Settings of choosing crops."""

    modes: ClassVar[tuple[str, ...]] = (
        *("none", "fairdd", "kde", "fairdd-iw", "fairdd-ldam", "barycenter", "group-weighted"),
    )
    factor: int = setting("cells a side of a synthetic image: factor x factor crops in each", 2, ge=1)
    candidates: int = setting("real images of every class that crops are taken of", 300, ge=1)
    crops: int = setting("random crops of each of them that the teacher judges", 5, ge=1)
    batch_crops: int = setting("crops that the teacher judges at a time", 500, ge=1)

    def _why(self) -> str:
        return ": it chooses crops, and has no distances of groups or networks over time"


class Rded(Decoupled):
    """Mosaics of crops that a teacher is surest of: a unit is a class.

    Raises:
        ValueError: a factor that images are too small for, or a class with too few images for its crops.
    """

    about = "mosaics of the real crops that a teacher is surest of, with no optimisation"
    source = "Sun et al., CVPR 2024"
    Settings = RdedSettings
    quick = MappingProxyType({"candidates": 100})
    _config: RdedSettings

    def __init__(
        self,
        config: RdedSettings,
        dataset: Dataset,
        teacher: Teacher,
        device: torch.device | str = "cpu",
        weights: Tensor | None = None,
    ):
        super().__init__(config, dataset, teacher, device, weights)
        train, wanted = dataset.train, config.ipc * config.factor**2
        if config.factor > min(dataset.size):
            raise ValueError(f"factor {config.factor} is more than the {min(dataset.size)} pixels of an image's side")
        counts = np.bincount(train.labels, minlength=dataset.num_classes)
        few = np.flatnonzero(counts * config.crops < wanted)
        if len(few):
            raise ValueError(
                f"class {dataset.class_names[few[0]]!r} has {counts[few[0]]} images, with {config.crops} crops of each "
                f"fewer than the {wanted} of IPC {config.ipc} and factor {config.factor}: lower these, or raise crops"
            )
        # Rows of a class are a slice of this: a search a class would take as long as all of them.
        self._order, self._ends = train.labels.argsort(kind="stable"), np.cumsum(counts)
        self._images = DeviceImages.of(train.images, dataset.mean, dataset.std, self._device)
        self.units = [Unit(range(label, label + 1), range(config.ipc)) for label in range(dataset.num_classes)]

    @torch.no_grad()
    def make(self, unit: Unit) -> tuple[Tensor, float]:
        config, label = self._config, unit.classes[0]
        rows = torch.from_numpy(self._order[self._ends[label - 1] if label else 0 : self._ends[label]])
        segments = config.mode.segments(self._batch(label, rows))
        slots = self._slots(segments)
        kept, losses = torch.empty(len(slots), 2, dtype=torch.int64), torch.empty(len(slots))
        for number in slots.unique().tolist():
            places = (slots == number).nonzero()[:, 0]
            some = segments.part(number, number + 1)
            chosen, of_chosen = self._best(label, rows, some, len(places), segments)
            kept[places], losses[places] = chosen, of_chosen
        keys = rng.lanes(rng.key(config.seed, "crops", label), len(rows), self._device)
        parts = self._cut(rows, keys, kept)
        return mosaics(parts, config.factor, self._dataset.size).cpu(), losses.mean().item()

    def _batch(self, label: int, rows: Tensor) -> Batch:
        """All images of a class, as the one class that there is; its rows are places among them."""
        groups = torch.from_numpy(self._dataset.train.groups[rows.numpy()])
        count = self._dataset.num_groups
        weights = None if self._sample_weights is None else self._sample_weights[rows].float()
        if weights is not None:  # an image that does not count can't be chosen
            counting = weights > 0
            places, groups, weights = counting.nonzero()[:, 0], groups[counting], weights[counting]
        else:
            places = torch.arange(len(rows))
        counts = torch.bincount(groups, minlength=count)[None]
        return Batch(places, torch.zeros_like(places), groups, 1, count, counts, weights)

    def _slots(self, segments: Segments) -> Tensor:
        """int64 [ipc factor^2], the segment of each kept crop: cell after cell, and in a cell image after image."""
        config, sizes = self._config, segments.offsets.diff()
        share = torch.ones(len(sizes)) if segments.importance is None else segments.importance
        share = torch.where(segments.present, share, 0).double()
        images = config.ipc if config.ipc >= int((share > 0).sum()) else config.ipc * config.factor**2
        quota = _quotas((share / share.sum()).numpy(), images, (sizes * config.crops * images).numpy())
        of_images = torch.arange(len(sizes)).repeat_interleave(torch.from_numpy(quota))
        slots = of_images.repeat(config.ipc * config.factor**2 // images)
        # A segment has as many crops as its images give; what is beyond goes to those that have more.
        for number, most in enumerate((sizes * config.crops).tolist()):
            beyond = (slots == number).nonzero()[most:, 0]
            for place in beyond.tolist():
                left = sizes * config.crops - torch.bincount(slots, minlength=len(sizes))
                slots[place] = int(left.argmax())
        return slots

    def _best(self, label: int, rows: Tensor, some: Segments, wanted: int, of: Segments) -> tuple[Tensor, Tensor]:
        """The best crops of a segment: int64 [wanted, 2], places of their images in the class, and numbers; losses."""
        config = self._config
        share = wanted / (config.ipc * config.factor**2)
        number = min(len(some.rows), max(math.ceil(config.candidates * share), math.ceil(wanted / config.crops)))
        # The first of a random order in proportion to weights (Efraimidis and Spirakis, 2006).
        u = rng.uniform(rng.key(config.seed, "candidates", label), len(rows)).double()[some.rows]
        chosen = (u.log() / some.weights).topk(number).indices.sort().values
        places = some.rows[chosen]
        losses = self._losses(label, rows, places)
        weights = some.weights[chosen]
        ranked, crops = (losses - (weights / weights.max()).log()[:, None]).sort(dim=1, stable=True)
        # Every image's best first, then every image's second.
        order = torch.cat([column.argsort(stable=True) for column in ranked.unbind(1)])
        which = torch.arange(config.crops).repeat_interleave(number)
        image, crop = order[:wanted], crops[order[:wanted], which[:wanted]]
        return torch.stack([places[image], crop], 1), losses[image, crop]

    def _losses(self, label: int, rows: Tensor, places: Tensor) -> Tensor:
        """[n, crops], of every crop of the images at these places of the class."""
        config, (height, width) = self._config, self._dataset.size
        keys = rng.lanes(rng.key(config.seed, "crops", label), len(rows), self._device)
        found = []
        for some in places.split(max(1, config.batch_crops // config.crops)):
            each = torch.stack(torch.meshgrid(some, torch.arange(config.crops), indexing="ij"), -1).flatten(0, 1)
            parts = self._cut(rows, keys, each)
            down, across = height - parts.shape[2], width - parts.shape[3]
            padded = F.pad(parts, (across // 2, across - across // 2, down // 2, down - down // 2))
            logits = self._teacher.logits(padded).float()
            labels = torch.full((len(logits),), label, device=logits.device)
            found.append(F.cross_entropy(logits, labels, reduction="none").view(-1, config.crops).cpu())
        return torch.cat(found)

    def _cut(self, rows: Tensor, keys: Tensor, which: Tensor) -> Tensor:
        """Crops [n, channels, H // factor, W // factor]; ``which``, int64 [n, 2], are images of the class and numbers
        of crops."""
        config, (height, width) = self._config, self._dataset.size
        places, back = which[:, 0].unique(return_inverse=True)
        images = self._images.read(rows[places])[back.to(self._device)]
        lanes = rng.lanes(keys[which[:, 0].to(self._device)], config.crops)
        lanes = lanes.gather(1, which[:, 1:].to(self._device))[:, 0]
        crops = ops.random_crops(lanes, (height, width), ratio=(width / height, width / height))
        return ops.crop_resize(images, crops, (height // config.factor, width // config.factor))


def _quotas(shares: np.ndarray, total: int, most: np.ndarray) -> np.ndarray:
    """int64 [S], ``total`` divided by shares, which sum to 1: rounded down, and one more for the largest remainders.

    >>> _quotas(np.array([0.5, 0.5, 0.0]), 5, np.array([9, 9, 9])).tolist()
    [3, 2, 0]
    """
    exact = shares * total
    quota = np.floor(exact + 1e-9).astype(np.int64)
    remainders = np.where(most > 0, exact - quota, -1)
    quota[(-remainders).argsort(kind="stable")[: total - quota.sum()]] += 1
    return quota
