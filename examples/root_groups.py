"""A debias mode of one's own: fastdd distill --plugin root_groups.py --debias root-groups ...

Between none (an image counts alike) and barycenter (a group counts alike): a group counts by the root of its size.
"""

import numpy as np
import torch

import fastdd
from fastdd.debias import Batch, Segments, fairdd


def segments(batch: Batch) -> Segments:
    """One segment a class, in which group g of n_g images has the weight sqrt(n_g) / sum over groups of sqrt(n_h)."""
    groups = fairdd.segments(batch)
    roots = groups.offsets.diff().to(torch.float32).sqrt()
    totals = roots.view(batch.num_classes, batch.num_groups).sum(1)
    shares = roots / totals.repeat_interleave(batch.num_groups).clamp(min=1)
    weights = groups.weights * shares.repeat_interleave(groups.offsets.diff())
    classes = torch.arange(batch.num_classes, device=weights.device)
    return Segments(groups.rows, groups.offsets[:: batch.num_groups], weights, classes)


def in_training(labels: np.ndarray, groups: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """The same of a whole data set, for experts: an image of group g has 1 / sqrt(n_g), over its class's sum."""
    counts = np.zeros((labels.max() + 1, groups.max() + 1))
    np.add.at(counts, (labels, groups), 1)
    share = 1 / np.sqrt(counts[labels, groups])
    return np.asarray(share / np.bincount(labels, share)[labels], dtype=np.float64)


fastdd.register_mode(
    "root-groups", segments, about="a group counts by the root of its size", needs="groups", in_training=in_training
)
