"""The scores of DD-Ranking (arXiv 2505.13300) from figures that networks reach: formulas alone.

Of a figure that is better where it is larger, in fractions (an accuracy of 41 % is 0.41):

    HLR = real - hard                       hard-label recovery: what the set's hard labels leave of the real images'
    IOR = own - random                      improvement over random real images, with labels of the same kind
    LRS = f(w IOR - (1 - w) HLR)            label-robust score
    ARS = f(g (own - random) + (1 - g) (own plain - random plain))       augmentation-robust score
    f(a) = (e^a - e^-1) / (e - e^-1),       which takes [-1, 1] to [0, 1]

where ``real`` are networks on the whole training split, ``hard`` on the set with its hard labels, ``own`` on the set
with the labels that it comes with, ``random`` on as many random real images, and ``plain`` without augmentation.

The public package puts percentages into f: HLR 40 and IOR 20 then give -0.156, whatever their sizes, where fractions
give 0.228 (``--compat`` prints its figures too).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fastdd.evaluation.metrics import Metrics

WEIGHT = 0.5  # w of LRS and g of ARS, as published
SCORES = ("hlr", "ior", "lrs", "ars")
CELLS = ("real", "hard", "own", "random", "own plain", "random plain")
# Figures of Metrics that are better where they are smaller.
_GAPS = ("deo_m", "deo_a")


@dataclass(frozen=True)
class Scores:
    """Of one round; NaN where the test set does not define the figure."""

    hlr: float
    ior: float
    lrs: float
    ars: float


def squashed(a: float) -> float:
    """f.

    >>> squashed(-1.0), squashed(1.0), round(squashed(-0.1), 3)
    (0.0, 1.0, 0.228)
    """
    return (math.exp(a) - math.exp(-1)) / (math.exp(1) - math.exp(-1))


def scores(reached: Mapping[str, float], lrs_weight: float = WEIGHT, ars_weight: float = WEIGHT) -> Scores:
    """The four scores of what the networks of every one of :data:`CELLS` reach.

    Raises:
        ValueError: a weight outside 0 to 1.

    >>> found = scores({"real": 0.8, "hard": 0.4, "own": 0.4, "random": 0.2, "own plain": 0.3, "random plain": 0.3})
    >>> [round(value, 3) for value in (found.hlr, found.ior, found.lrs, found.ars)]
    [0.4, 0.2, 0.228, 0.314]
    """
    for name, weight in (("lrs_weight", lrs_weight), ("ars_weight", ars_weight)):
        if not 0 <= weight <= 1:
            raise ValueError(f"{name} must be a share, 0 to 1, not {weight}")
    hlr = reached["real"] - reached["hard"]
    ior = reached["own"] - reached["random"]
    plain = reached["own plain"] - reached["random plain"]
    lrs = squashed(lrs_weight * ior - (1 - lrs_weight) * hlr)
    return Scores(hlr, ior, lrs, squashed(ars_weight * ior + (1 - ars_weight) * plain))


def as_fraction(metrics: Metrics, name: str) -> float:
    """A figure of networks, in percent, as scores take it: accuracies in fractions; of DEO what it leaves of 1.

    So an IOR of DEO_M is how much lower the set's DEO_M is than that of random images, and an HLR how much higher than
    that of the whole training split.

    >>> found = Metrics(accuracy=50.0, deo_m=80.0, deo_a=40.0, wa=10.0, ba=50.0)
    >>> as_fraction(found, "wa"), round(as_fraction(found, "deo_m"), 3)
    (0.1, 0.2)
    """
    share = getattr(metrics, name) / 100
    return 1 - share if name in _GAPS else share
