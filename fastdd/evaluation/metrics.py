"""Accuracy and fairness of predictions, from counts per (class, group)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdd.core.text import one_of

METRICS = ("accuracy", "deo_m", "deo_a", "wa", "ba")


def interval(std: float, runs: int) -> float | None:
    """Half the width of the 95 % interval (Student's t) of a mean over ``runs`` whose numpy deviation is ``std``.

    None for a single run.

    >>> round(interval(1.0, 5), 3)
    1.388
    """
    if runs < 2:
        return None
    from scipy.special import stdtrit  # the quantile that scipy.stats.t has, whose import takes half a second

    return float(stdtrit(runs - 1, 0.975)) * std / math.sqrt(runs - 1)


def difference_interval(std: float, runs: int, other_std: float, other_runs: int) -> float | None:
    """Half the width of the 95 % interval of a difference of two independent means (Welch's t).

    ``std`` as in :func:`interval`. None where a mean is of a single run; 0 where nothing varies.

    >>> round(difference_interval(1.0, 5, 2.0, 5), 3), difference_interval(1.0, 5, 1.0, 1)
    (2.749, None)
    """
    if min(runs, other_runs) < 2:
        return None
    from scipy.special import stdtrit

    parts = [std**2 / (runs - 1), other_std**2 / (other_runs - 1)]
    if not sum(parts):
        return 0.0
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (runs - 1) + parts[1] ** 2 / (other_runs - 1))
    return float(stdtrit(freedom, 0.975)) * math.sqrt(sum(parts))


@dataclass(frozen=True)
class Metrics:
    """All in percent; NaN where the test set does not define the figure.

    Attributes:
        accuracy: right predictions of all predictions.
        deo_m: largest violation of equalised odds over classes.
        deo_a: mean violation over classes.
        wa: worst accuracy of a (class, group).
        ba: unweighted mean accuracy over (class, group).
    """

    accuracy: float
    deo_m: float
    deo_a: float
    wa: float
    ba: float


@dataclass(frozen=True)
class GroupCounts:
    """Right predictions and images for every true class and protected group.

    Attributes:
        right: int64 [C, G].
        total: int64 [C, G].
    """

    right: Tensor
    total: Tensor

    @classmethod
    def of(
        cls, predictions: Tensor, labels: Tensor, groups: Tensor, num_classes: int, num_groups: int
    ) -> "GroupCounts":
        """Count predictions int64 [N] against labels int64 [N] in groups int64 [N]; one pass, on the device."""
        cell = labels * num_groups + groups
        cells = num_classes * num_groups
        total = torch.zeros(cells, dtype=torch.int64, device=labels.device).scatter_add_(0, cell, torch.ones_like(cell))
        right = torch.zeros_like(total).scatter_add_(0, cell, (predictions == labels).to(torch.int64))
        return cls(*torch.stack([right, total]).view(2, num_classes, num_groups).cpu().unbind())

    def __add__(self, other: "GroupCounts") -> "GroupCounts":
        return GroupCounts(self.right + other.right, self.total + other.total)

    @property
    def accuracy(self) -> Tensor:
        """float64 [C, G], percent: P(prediction = y | class y, group a); NaN where there are no test images."""
        return 100 * self.right.double() / self.total

    def metrics(self, deo: str = "range") -> Metrics:
        """The five figures.

            gap[y] = max_a acc[y, a] - min_a acc[y, a];  DEO_M = max_y gap[y];  DEO_A = mean_y gap[y]

        as the published FairDD code computes them (the published DEO_A of 99.96 is possible only so). With
        ``deo="pairwise"`` DEO_A is the mean over classes of the mean over pairs of groups of |acc[y, i] - acc[y, j]|,
        as the paper writes it; DEO_M is the same either way.

        A (class, group) without test images is left out (published code: counted as accuracy 0); a class with fewer
        than two groups has no gap. DEO is NaN when no class has one.

        Raises:
            ValueError: ``deo`` is neither "range" nor "pairwise".

        >>> counts = GroupCounts(torch.tensor([[9, 1], [5, 5]]), torch.tensor([[10, 10], [10, 10]]))
        >>> counts.metrics()
        Metrics(accuracy=50.0, deo_m=80.0, deo_a=40.0, wa=10.0, ba=50.0)
        """
        if deo not in ("range", "pairwise"):
            raise ValueError(f"unknown DEO definition {deo!r}; {one_of(deo, ('range', 'pairwise'))}")
        accuracy = self.accuracy
        per_class = [row[~row.isnan()] for row in accuracy]
        comparable = [row for row in per_class if len(row) > 1]
        gaps = torch.stack([row.max() - row.min() for row in comparable]) if comparable else torch.tensor([torch.nan])
        averages = gaps
        if deo == "pairwise" and comparable:
            averages = torch.stack([torch.pdist(row[:, None]).mean() for row in comparable])
        cells = accuracy[~accuracy.isnan()]
        return Metrics(
            accuracy=100 * self.right.sum().item() / self.total.sum().item(),
            deo_m=gaps.max().item(),
            deo_a=averages.mean().item(),
            wa=cells.min().item(),
            ba=cells.mean().item(),
        )
