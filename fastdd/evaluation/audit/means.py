"""Where a synthetic set lies between vanilla and fair matching, what it loses, and what it covers, of random networks.

Of a class y, with c_{y,g} the mean embedding of group g and r_{y,g} its share of the class's images:

    r_y = sum over g of r_{y,g} c_{y,g}      the optimum of vanilla matching (FairDD, equation 3)
    m_y = mean over g of c_{y,g}             that of FairDD's, for the squared distance (theorem 5.1, equation 5)
    t_y = mean embedding of the synthetic images
    position_y = <t_y - r_y, m_y - r_y> / |m_y - r_y|^2

and the residual is what is left of t_y - r_y, in units of |m_y - r_y|. For the absolute distance theorem 5.1 does not
hold: there the coordinate-wise median of c_{y,g} is the optimum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core import rng
from fastdd.evaluation.audit.findings import Bound

_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda a, b: (a - b).square().sum(-1),
    "mae": lambda a, b: (a - b).abs().sum(-1),
    "cosine": lambda a, b: 1 - F.cosine_similarity(a, b, dim=-1),
}
# Of a loss: what float64 sums round.
_ROUNDING = 1e-9


def stratified_rows(cells: np.ndarray, num_cells: int, most: int, key: int) -> np.ndarray:
    """Up to ``most`` random rows of every cell, without replacement, cell after cell, int64."""
    rows = []
    for cell, lane in enumerate(rng.lanes(key, num_cells)):
        of_cell = np.flatnonzero(cells == cell)
        rows.append(of_cell[rng.permutation(int(lane), len(of_cell)).numpy()[:most]])
    return np.concatenate(rows)


@dataclass(frozen=True)
class Positions:
    """Of one network, float64; NaN where there is none.

    Attributes:
        position, residual: [C].
        losses: [3, 4]: of every distance the vanilla and the fair loss, and the distances to mean and median.
        coverage, of_random: [C, G].
    """

    position: Tensor
    residual: Tensor
    losses: Tensor
    coverage: Tensor
    of_random: Tensor


def positions(real: Tensor, cells: Tensor, synthetic: Tensor, labels: Tensor, counts: Tensor) -> Positions:
    """What one network's embeddings say of a set.

    Args:
        real: [M, D] embeddings of sampled real images.
        cells: int64 [M], y G + g of each.
        synthetic: [K, D]. labels: int64 [K].
        counts: int64 [C, G], all training images, which the sampled ones stand for.

    Cost: per class the distances of its sampled real images to each other and to its synthetic ones.
    """
    num_classes, num_groups = counts.shape
    position, residual = (torch.full((num_classes,), math.nan, dtype=torch.float64) for _ in range(2))
    coverage, of_random = (torch.full(counts.shape, math.nan, dtype=torch.float64) for _ in range(2))
    losses = torch.zeros(len(_DISTANCES), 4, dtype=torch.float64)
    for y in range(num_classes):
        in_class, made = cells // num_groups == y, synthetic[labels == y].double()
        if not len(made) or not in_class.any():
            continue
        own, groups = real[in_class].double(), cells[in_class] % num_groups
        sampled = torch.bincount(groups, minlength=num_groups)
        here, sums = sampled > 0, own.new_zeros(num_groups, own.shape[1]).index_add_(0, groups, own)
        centres, sizes = (sums / sampled[:, None])[here], counts[y, here].double()
        target, vanilla = made.mean(0), (sizes / sizes.sum()) @ centres
        if len(sizes.unique()) > 1:  # groups of one size have one optimum
            position[y], residual[y] = on_the_line(target, vanilla, centres.mean(0))
        losses += _losses(target, vanilla, centres)
        covered, expected = covered_by(own, made, (counts[y].double() / sampled)[groups])
        for g in here.nonzero().flatten().tolist():
            coverage[y, g], of_random[y, g] = covered[groups == g].double().mean(), expected[groups == g].mean()
    return Positions(position, residual, losses, coverage, of_random)


def on_the_line(target: Tensor, vanilla: Tensor, fair: Tensor) -> tuple[float, float]:
    """Position and residual of ``target`` on the line from ``vanilla`` (0) to ``fair`` (1), all [D].

    >>> on_the_line(torch.tensor([1.0, 4.0]), torch.tensor([0.0, 0.0]), torch.tensor([4.0, 0.0]))
    (0.25, 1.0)
    """
    along, off = fair - vanilla, target - vanilla
    length = along.norm()
    position = (off @ along / length**2).item()
    return position, ((off - position * along).norm() / length).item()


def covered_by(real: Tensor, made: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Which real rows have a synthetic one near, and the probability that one of as many random real ones is.

    Near: within the median distance of a real row to its nearest other.

    Args:
        real: float64 [n, D]. made: [k, D].
        weight: float64 [n], how many real images each row stands for; the median is over these, and random ones are.

    Returns:
        bool [n], and float64 [n]: 1 - (1 - q)^k, q the share of the real images that are near, other than itself.

    >>> covered, by_chance = covered_by(torch.tensor([[0.0], [1], [5]]), torch.tensor([[4.5]]), torch.ones(3))
    >>> covered.tolist(), [round(one, 2) for one in by_chance.tolist()]
    ([False, False, True], [0.33, 0.33, 0.0])
    """
    if len(real) < 2:
        return torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.float64)
    apart = torch.cdist(real, real).fill_diagonal_(math.inf)
    nearest = apart.amin(1)
    order = nearest.argsort()
    half = torch.searchsorted(weight[order].cumsum(0), weight.sum() / 2)
    radius = nearest[order[half]]
    share = (apart <= radius).to(weight.dtype) @ weight / weight.sum()
    return torch.cdist(real, made).amin(1) <= radius, 1 - (1 - share) ** len(made)


def bounds(losses: Tensor) -> tuple[Bound, ...]:
    """:attr:`Positions.losses` of all networks, [R, 3, 4]."""
    holds = losses[..., 1] >= losses[..., 0] * (1 - _ROUNDING)
    return tuple(
        Bound(
            name,
            vanilla=row[0].item(),
            fair=row[1].item(),
            holds=bool(held.all()),
            to_mean=row[2].item(),
            to_median=row[3].item(),
        )
        for name, row, held in zip(_DISTANCES, losses.mean(0), holds.T, strict=True)
    )


def _losses(target: Tensor, vanilla: Tensor, centres: Tensor) -> Tensor:
    """[3, 4] of one class, from its target [D] and its groups' means [G, D]."""
    # Of an even number any point between the middle two is a median; this is halfway.
    median = centres.quantile(0.5, 0)
    rows = [
        torch.stack(
            [
                distance(vanilla, target),
                distance(centres, target).sum(),
                distance(centres.mean(0), target),
                distance(median, target),
            ]
        )
        for distance in _DISTANCES.values()
    ]
    return torch.stack(rows)
