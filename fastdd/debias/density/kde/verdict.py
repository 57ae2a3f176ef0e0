"""What weights did, and whether to trust them: how few images they rest on, what they follow, and if it is there twice.

The limits are conventions, made so that a set with a known bias passes and the published setting, whose weights rest
on one or two images a class, does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastdd import ops
from fastdd.core import rng
from fastdd.debias.density.kde.diagnostics import diagnose
from fastdd.debias.density.kde.rarity import rarity
from fastdd.debias.density.kde.settings import KdeSettings
from fastdd.debias.density.kde.weights import KdeWeights

Level = Literal["trust", "care", "doubt"]
WORDS: dict[str, str] = {
    "trust": "nothing speaks against these weights",
    "care": "use these weights with care",
    "doubt": "do not trust these weights",
}
# Weight of a class's two heaviest images from which on they are the class; and of the heaviest 1 % that is told.
_TWO_IMAGES, _TOP = 0.5, 0.5
# Effective images of a class below which it is no sample; and alike: no image is further above the average.
_LEAST_ESS, _ALIKE = 5.0, 1e-3
# Rank correlations of two measurements of the same rarity: below, the order is chance, or partly.
_CHANCE, _PARTLY = 0.5, 0.8
# Area under the ROC curve of rarity as a detector of minority groups; 0.5 is chance.
_FOLLOWS = 0.6
# Images of a class that halves are drawn from, at most: enough for a correlation, and bounded work.
_MOST = 4000
_FEWEST = 8
# Images whose distances to all others of their class are taken at a time.
_AT_ONCE = 512


@dataclass(frozen=True)
class Verdict:
    """What weights did, and whether to trust them.

    Attributes:
        level: ``trust``, ``care`` or ``doubt``.
        reasons: of the level, a line each, the gravest first.
        facts: what the weights did, a line each.
        ess: effective sample size of every class, [C].
        heaviest: weight of each class's heaviest image, [C].
        two: that of its two heaviest, [C].
        top: that of its heaviest 1 % of images, at least one, [C].
        stability: of every class the rank correlation (Spearman) of two measurements of its images' rarity; None for a
            class of fewer than 8 images.
        measured_by: ``halves`` of the class, or ``seeds`` of two encoders.
        correlation: of every class that of weight and being outside the largest group; None for a class of one group;
            None where no groups are known.
        auc: of every class as :class:`fastdd.debias.density.kde.Rarity` has it.
    """

    level: Level
    reasons: list[str]
    facts: list[str]
    ess: list[float]
    heaviest: list[float]
    two: list[float]
    top: list[float]
    stability: list[float | None]
    measured_by: str
    correlation: list[float | None] | None
    auc: list[float | None] | None


def judge(
    made: KdeWeights,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    other: KdeWeights | None = None,
) -> Verdict:
    """The :class:`Verdict` on weights of images with labels int64 [N] and, where known, groups int64 [N].

    Args:
        made: the weights.
        labels, groups: of the images.
        class_names: for its lines; None: numbers.
        other: weights of the same images from an encoder of another seed, whose rarity is compared; None: a class's
            images are split in two at random, and every image's density in one half is compared with that in the other.
            The halves tell chance from structure in this embedding, but only another encoder tells whether an encoder
            finds that structure again.

    Cost of the halves: densities of at most 4,000 images a class. Deterministic.
    """
    names = [str(n) for n in range(int(labels.max()) + 1)] if class_names is None else list(class_names)
    shares = [_shares(made.weights[labels == label]) for label in range(len(names))]
    heaviest, two, top = (list(column) for column in zip(*shares, strict=True))
    told = diagnose(made.weights, labels, groups)
    found = rarity(made.log_density, labels, groups)
    stability = _between_halves(made, labels, len(names)) if other is None else _between(made, other, labels)
    correlation = None if found.conflicting is None else _with_groups(made.weights, labels, found.conflicting)
    by = "halves" if other is None else "seeds"
    figures: dict[str, Any] = {"ess": told.ess, "heaviest": heaviest, "two": two, "top": top, "stability": stability}
    doubts, cares = [], []
    alike = all(largest <= 1 + _ALIKE for largest in told.largest)
    if alike:
        doubts.append("all images of a class count alike: the weights do nothing")
    doubts += _few(two, names, _TWO_IMAGES, "rests on two images or fewer", "of the weight on the two heaviest")
    known = [value for value in stability if value is not None]
    mean = float(np.mean(known)) if known else math.nan
    pair = "halves of a class" if by == "halves" else "encoders of two seeds"
    if mean < _CHANCE and not alike:
        doubts.append(f"{pair} do not agree on which images are rare (rank correlation {mean:.2f})")
    elif mean < _PARTLY and not alike:
        cares.append(f"{pair} agree only in part on which images are rare (rank correlation {mean:.2f})")
    cares += _few([-ess for ess in told.ess], names, -_LEAST_ESS, f"amounts to {_LEAST_ESS:g} images or fewer", "ESS")
    cares += _few(top, names, _TOP, "has half of its weight on 1 % of its images", "of the weight on them")
    facts = [_told_of_size(told.ess, told.counts, heaviest, top)]
    if known:
        facts.append(f"stability: {pair} rank images alike to {mean:.2f} (1: the same order, 0: chance)")
    auc = [value for value in found.auc or () if value is not None]
    if auc:
        share, mass = np.mean(told.conflict_share), np.mean(told.conflict_mass)
        facts.append(
            f"groups: images outside the largest group of their class are {share:.1%} and have {mass:.1%} of the "
            f"weight; rarity tells them with AUC {np.mean(auc):.2f} (0.5: chance), weight correlates "
            f"{np.mean([value for value in correlation or () if value is not None]):+.2f}".replace("%", " %")
        )
        if np.mean(auc) < _FOLLOWS:
            cares.append(f"what is rare here is not the minority groups that are known (AUC {np.mean(auc):.2f})")
    elif groups is None:
        facts.append("groups are not known: look at the heaviest images (--show, --report) to see what counts more")
    level: Level = "doubt" if doubts else "care" if cares else "trust"
    return Verdict(level, [*doubts, *cares], facts, **figures, measured_by=by, correlation=correlation, auc=found.auc)


def _shares(weights: np.ndarray) -> tuple[float, float, float]:
    """Of a class: the weight of the heaviest image, of the two heaviest, and of the heaviest 1 %."""
    if not len(weights):
        return math.nan, math.nan, math.nan
    ordered = np.sort(weights.astype(np.float64))[::-1]
    ordered /= ordered.sum()
    return tuple(float(ordered[:count].sum()) for count in (1, 2, math.ceil(len(ordered) / 100)))


def _few(values: Sequence[float], names: Sequence[str], limit: float, what: str, unit: str) -> list[str]:
    """A line on the classes whose value is at least the limit, with the worst of them."""
    wrong = [label for label, value in enumerate(values) if value >= limit]
    if not wrong:
        return []
    worst = max(wrong, key=lambda label: values[label])
    figure = f"ESS {-values[worst]:.1f}" if unit == "ESS" else f"{100 * values[worst]:.0f} % {unit}"
    others = len(wrong) - 1
    rest = "" if not others else ", and so does 1 other class" if others == 1 else f", and so do {others} other classes"
    return [f"class {names[worst]} {what} ({figure}){rest}"]


def _told_of_size(ess: Sequence[float], counts: Sequence[int], heaviest: Sequence[float], top: Sequence[float]) -> str:
    return (
        f"size: {np.mean(counts):.0f} images a class count as {np.mean(ess):.0f} (least {min(ess):.1f}); the heaviest "
        f"image has {100 * np.mean(heaviest):.1f} % of its class's weight (most {100 * max(heaviest):.1f} %), the "
        f"heaviest 1 % of images {100 * np.mean(top):.1f} %"
    )


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; 0 where either is constant, so that there is no order."""
    from scipy.stats import spearmanr

    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return 0.0
    return float(spearmanr(one, other).statistic)


def _with_groups(weights: np.ndarray, labels: np.ndarray, conflicting: np.ndarray) -> list[float | None]:
    found: list[float | None] = []
    for label in range(int(labels.max()) + 1):
        own = labels == label
        both = 0 < conflicting[own].sum() < own.sum()
        found.append(_spearman(weights[own], conflicting[own]) if both else None)
    return found


def _between(made: KdeWeights, other: KdeWeights, labels: np.ndarray) -> list[float | None]:
    found: list[float | None] = []
    for label in range(int(labels.max()) + 1):
        own = labels == label
        enough = own.sum() >= _FEWEST
        found.append(_spearman(made.log_density[own], other.log_density[own]) if enough else None)
    return found


def _between_halves(made: KdeWeights, labels: np.ndarray, num_classes: int) -> list[float | None]:
    settings = made.metadata.get("kde") or {}
    variance, seed = float(settings.get("variance", KdeSettings.variance)), int(settings.get("seed", 0))
    found: list[float | None] = []
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        if len(rows) < _FEWEST:
            found.append(None)
            continue
        order = rng.permutation(rng.key(seed, "kde-halves", label), len(rows)).numpy()[:_MOST]
        points = torch.from_numpy(made.embeddings[rows[order]].astype(np.float32))
        one, other = points.tensor_split(2)
        found.append(_spearman(_seen_from(one, one, other, variance), _seen_from(other, one, other, variance)))
    return found


def _seen_from(half: Tensor, one: Tensor, other: Tensor, variance: float) -> np.ndarray:
    """How near the images of both halves are to those of one, each without itself: mean of exp(-d^2 / (2 sigma^2))."""
    bandwidth, queries = math.sqrt(variance), torch.cat([one, other])
    height = -half.shape[1] * (math.log(bandwidth) + math.log(2 * math.pi) / 2)
    near = (ops.kde(half, queries, bandwidth=bandwidth).double() - height).exp().numpy()
    inside = np.arange(len(queries)) < len(one) if half is one else np.arange(len(queries)) >= len(one)
    return np.where(inside, (len(half) * near - 1) / (len(half) - 1), near)


def neighbours(embeddings: np.ndarray, labels: np.ndarray, rows: np.ndarray, count: int = 3) -> np.ndarray:
    """Of some images the nearest others of their class in the embedding, nearest first: int64 [len(rows), count].

    -1 where a class has no more. Exact: N D multiply-adds an image, N of its class.
    """
    found = np.full((len(rows), count), -1, np.int64)
    for label in np.unique(labels[rows]):
        members, asked = np.flatnonzero(labels == label), np.flatnonzero(labels[rows] == label)
        points = torch.from_numpy(embeddings[members].astype(np.float32))
        place = torch.from_numpy(np.searchsorted(members, rows[asked]))
        most = min(count, len(members) - 1)
        parts = len(asked) // _AT_ONCE + 1
        for part, places in zip(np.array_split(asked, parts), place.tensor_split(parts), strict=True):
            distances = torch.cdist(points[places], points)
            distances[torch.arange(len(places)), places] = torch.inf
            nearest = distances.topk(most, 1, largest=False).indices
            found[part, :most] = members[nearest.numpy()]
    return found
