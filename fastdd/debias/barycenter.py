"""Barycenter: pull a class toward the mean of its groups' mean signals, one target a class (COBRA, ICML 2026).

    t[y] = 1/G_y sum over g of 1/n_{y,g} sum over i in (y,g) of signal(x_i)

For squared Euclidean distances the barycenter is the uniform mean of the group means, so the class stays one segment
and only its weights change. Since sum_g |s - mu_g|^2 = G |s - t|^2 + const, the gradient is fairdd's divided by the
number of groups. The published code takes the L1 distance to this target for DM, and networks that have first trained
on the synthetic images (``embed_warmup``).
"""

import torch

from fastdd.debias import fairdd
from fastdd.debias.base import Mode, groups_alike
from fastdd.debias.segments import Batch, Segments


def segments(batch: Batch) -> Segments:
    """One segment a class, in which every protected group that the batch has weighs alike, whatever its size."""
    groups = fairdd.segments(batch)
    of_class = groups.present.view(batch.num_classes, batch.num_groups).sum(1)
    weights = groups.weights / of_class[groups.sample_classes]
    classes = torch.arange(batch.num_classes, device=weights.device)
    return Segments(groups.rows, groups.offsets[:: batch.num_groups], weights, classes)


MODE = Mode("one target a class: the mean of its groups' means (COBRA)", segments, "groups", groups_alike)
