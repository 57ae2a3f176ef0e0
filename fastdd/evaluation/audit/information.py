"""Mutual information of classes and groups, in bits, of data and of data with fake images."""

import math

import numpy as np

from fastdd.evaluation.audit.findings import Augmented
from fastdd.training import fake_counts


def mutual_information(counts: np.ndarray) -> float:
    """I(Y; B) = sum over y, b of p(y, b) log2(p(y, b) / (p(y) p(b))), bits; 0 where there is nothing.

    Args:
        counts: [C, G], at least 0: images, or sums of probabilities.

    >>> mutual_information(np.array([[5, 0], [0, 5]])), mutual_information(np.array([[6, 2], [3, 1]]))
    (1.0, 0.0)
    """
    total = counts.sum()
    if not total:
        return 0.0
    joint = counts / total
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    here = joint > 0
    found = float((joint[here] * np.log2(joint[here] / apart[here])).sum())
    return max(0.0, found) if abs(found) > 1e-12 else 0.0  # independent counts leave rounding


def information_by_chance(images: int, num_classes: int, num_groups: int) -> float:
    """Mean I(Y; B), bits, of so many images whose class and group are independent: (C - 1)(G - 1) / (2 N ln 2).

    First order in 1 / N (Miller, 1955); at most what there can be.
    """
    most = math.log2(min(num_classes, num_groups)) if min(num_classes, num_groups) else 0.0
    return min(most, (num_classes - 1) * (num_groups - 1) / (2 * max(1, images) * math.log(2)))


def augmented(counts: np.ndarray) -> tuple[Augmented, ...]:
    """I(Y; B) and I(Y; (B, G)) of the real images alone, with USB's and ASB's fake images, and of FFR's two stages.

    No mixture of biased real images and fake ones makes the class independent of the group and the source together
    (From Fake to Real, theorem 1); FFR's stages have one source each.

    Args:
        counts: int64 [C, G], real training images.
    """
    nothing = np.zeros_like(counts)
    parts = {use: (counts, fake_counts(counts, use)) for use in ("none", "usb", "asb")}
    parts |= {"ffr-1": (nothing, fake_counts(counts, "ffr")), "ffr-2": (counts, nothing)}
    return tuple(
        Augmented(
            use,
            int(real.sum() + fake.sum()),
            mutual_information(real + fake),
            mutual_information(np.concatenate([real, fake], 1)),
        )
        for use, (real, fake) in parts.items()
    )
