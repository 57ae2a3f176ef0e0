"""Draws batches of every class at once, with static shapes and no wait for the device."""

import copy
from typing import Literal

import torch
from torch import Tensor

from fastdd.core import rng

# Random ranks have 62 bits, so that this, the rank of a row that is not there, comes after all of them.
_LAST = 2**62
_RANK_BITS = _LAST - 1


class Sampler:
    """Draws a batch of rows of every class: uniformly and without replacement, or in proportion to weights.

    ``random`` does as the published code (``get_images``): a random batch of the class, whatever the groups, so that a
    small group may be absent. ``stratified`` splits each class's batch as evenly as possible over the groups present
    in the class: a group smaller than its share gives all its rows, the others make up for it, and a remainder of one
    each goes to the groups of the lowest numbers. ``weighted`` draws with replacement, in proportion to the weights.

    Args:
        labels: int64 [N], 0..num_classes-1; every class must be there.
        groups: int64 [N], 0..num_groups-1.
        num_classes, num_groups: how many there are.
        batch: rows a class and draw; without replacement, a class with fewer rows gives all of them.
        mode: ``random``, ``stratified`` or ``weighted``.
        weights: float [N], at least 0, some above 0 in every class; a row of weight 0 is never drawn, in any mode.
        device: where to draw.

    Attributes:
        classes: int64 [M], class of each position of a draw, ascending; the same at every draw.
        counts: int64 [number of classes], rows a class and draw, on the CPU; M is their sum.

    Raises:
        ValueError: a batch below 1, an unknown mode, labels, groups or weights out of range or of another shape, a
            class without rows (of positive weight), ``weighted`` without weights.
        TypeError: labels or groups that aren't int64.

    Cost of a draw: random numbers and a top-k over num_classes (stratified: class-group cells) times the largest of
    them. A draw is a pure function of its key, the same on CPU and GPU; the global RNG is neither read nor reseeded.

    >>> sampler = Sampler(torch.tensor([0, 1, 1, 0, 1]), torch.zeros(5, dtype=torch.int64), 2, 1, batch=2)
    >>> rows = sampler.draw(rng.key(0, "real", 7))
    >>> sampler.classes.tolist(), sorted(rows[:2].tolist()), set(rows[2:].tolist()) <= {1, 2, 4}
    ([0, 0, 1, 1], [0, 3], True)
    """

    def __init__(
        self,
        labels: Tensor,
        groups: Tensor,
        num_classes: int,
        num_groups: int,
        batch: int,
        *,
        mode: Literal["random", "stratified", "weighted"] = "random",
        weights: Tensor | None = None,
        device: torch.device | str = "cpu",
    ):
        if batch < 1:
            raise ValueError(f"batch must be at least 1 row a class, not {batch}")
        if mode not in ("random", "stratified", "weighted"):
            raise ValueError(f"mode must be random, stratified or weighted, not {mode!r}")
        if mode == "weighted" and weights is None:
            raise ValueError("drawing in proportion to weights needs weights")
        for name, values, limit in (("labels", labels, num_classes), ("groups", groups, num_groups)):
            if values.dtype != torch.int64:
                raise TypeError(f"{name} must be int64, not {values.dtype}")
            if values.ndim != 1 or len(values) != len(labels):
                raise ValueError(f"{name} must be one value a row, [{len(labels)}], not {list(values.shape)}")
            if len(values) and (values.min() < 0 or values.max() >= limit):
                raise ValueError(f"{name} must lie in 0..{limit - 1}, found {values.min()}..{values.max()}")
        labels, groups, there = labels.cpu(), groups.cpu(), torch.arange(len(labels))
        if weights is not None:
            if weights.shape != labels.shape or not (weights >= 0).all() or not weights.isfinite().all():
                raise ValueError(f"weights must be [{len(labels)}], finite and at least 0")
            weights = weights.cpu().double()
            there = (weights > 0).nonzero()[:, 0]
        labels, groups = labels[there], groups[there]
        per_class = torch.bincount(labels, minlength=num_classes)
        if (per_class == 0).any():
            raise ValueError(f"class {int((per_class == 0).nonzero()[0])} has no rows to draw from")

        # A lane is what is drawn from as one: a class, or a class's group.
        cells = labels * num_groups + groups if mode == "stratified" else labels
        order = torch.argsort(cells, stable=True)
        lane_cells, sizes = torch.unique_consecutive(cells[order], return_counts=True)
        lane_classes = lane_cells // num_groups if mode == "stratified" else lane_cells
        if mode == "weighted":
            takes = torch.full_like(sizes, batch)
        else:
            takes = torch.cat([even_shares(sizes[lane_classes == c].tolist(), batch) for c in range(num_classes)])

        lanes, longest = len(sizes), int(sizes.max())
        table = torch.zeros(lanes, longest, dtype=torch.int64)
        filled = torch.arange(longest) < sizes[:, None]
        table[filled] = there[order]
        self._table = table.to(device)
        self._absent = (~filled).to(device)
        self._cumulative = None
        if mode == "weighted":
            sums = torch.where(filled, weights[table], 0).cumsum(1)
            self._cumulative = (sums / sums[:, -1:]).to(device)
        self._first_lane, self._takes, self._lane_classes = 0, takes, lane_classes
        self._set_classes(0, num_classes)

    def _set_classes(self, first: int, last: int) -> None:
        device = self._table.device
        self._most = int(self._takes.max())
        taken = torch.arange(self._most) < self._takes[:, None]
        self._positions = taken.flatten().nonzero()[:, 0].to(device)
        counts = torch.zeros(last, dtype=torch.int64).index_add_(0, self._lane_classes, self._takes)
        self.counts = counts[first:]
        self.classes = torch.arange(last).repeat_interleave(counts).to(device)

    def part(self, first: int, last: int) -> "Sampler":
        """A sampler of the classes ``first`` .. ``last - 1`` alone; it draws of them what this one draws.

        ``classes`` still are the data set's numbers; ``counts`` are those of the part.

        Raises:
            ValueError: no such classes.

        >>> sampler = Sampler(torch.tensor([0, 1, 1, 2]), torch.zeros(4, dtype=torch.int64), 3, 1, batch=1)
        >>> torch.equal(sampler.part(1, 3).draw(5), sampler.draw(5)[1:])
        True
        """
        start, end = int(self._lane_classes[0]), int(self._lane_classes[-1]) + 1
        if not start <= first < last <= end:
            raise ValueError(f"classes {first} to {last - 1} are not some of {start} to {end - 1}")
        own = (self._lane_classes >= first) & (self._lane_classes < last)
        lanes = slice(*(own.nonzero()[[0, -1], 0] + torch.tensor([0, 1])).tolist())
        part = copy.copy(self)
        part._first_lane = self._first_lane + lanes.start
        part._takes, part._lane_classes = self._takes[lanes], self._lane_classes[lanes]
        part._table, part._absent = self._table[lanes], self._absent[lanes]
        part._cumulative = None if self._cumulative is None else self._cumulative[lanes]
        part._set_classes(first, last)
        return part

    def draw(self, key: int | Tensor) -> Tensor:
        """Rows of one batch of every class, int64 [M], class by class (``classes`` gives each position's class).

        Args:
            key: of this draw, from :func:`fastdd.core.rng.key`; or one in an int64 scalar where it draws.
        """
        lanes, longest = self._table.shape
        keys = rng.lanes(key, self._first_lane + lanes, self._table.device)[self._first_lane :]
        if self._cumulative is None:
            ranks = rng.bits(keys, longest) & _RANK_BITS
            ranks = ranks.masked_fill(self._absent, _LAST)
            drawn = ranks.topk(self._most, dim=1, largest=False).indices
        else:
            # The first row whose share, with all before it, exceeds u: 53 bits, so that u < 1.
            u = (rng.bits(keys, self._most) >> 11 & ((1 << 53) - 1)).double() * 2.0**-53
            drawn = torch.searchsorted(self._cumulative, u, right=True)
        return self._table.gather(1, drawn).flatten()[self._positions]


def even_shares(sizes: list[int], batch: int) -> Tensor:
    """Rows to take from each group of the given sizes: as even as can be, ``min(batch, sum(sizes))`` in all.

    >>> even_shares([100, 2, 100], 9).tolist()
    [4, 2, 3]
    """
    total = min(batch, sum(sizes))
    level = 0  # every group gives this many rows, or all it has
    while sum(min(size, level + 1) for size in sizes) <= total:
        level += 1
        if level == max(sizes):
            break
    takes = [min(size, level) for size in sizes]
    larger = [i for i, size in enumerate(sizes) if size > level]
    for i in larger[: total - sum(takes)]:
        takes[i] += 1
    return torch.tensor(takes, dtype=torch.int64)
