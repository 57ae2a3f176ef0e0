"""Barycenter: pull a class toward the mean of its groups' mean signals, one target a class (COBRA, ICML 2026).

    t[y] = 1/G_y sum over g of 1/n_{y,g} sum over i in (y,g) of signal(x_i)

For squared Euclidean distances the barycenter is the uniform mean of the group means, so the class stays one segment
and only its weights change. Since sum_g |s - mu_g|^2 = G |s - t|^2 + const, the gradient is fairdd's divided by the
number of groups. The published code takes the L1 distance to this target for DM, and networks that have first trained
on the synthetic images (``embed_warmup``).
"""

from dataclasses import replace

import torch

from fastdd.debias import none
from fastdd.debias.base import Mode, groups_alike
from fastdd.debias.segments import Batch, Segments


def segments(batch: Batch) -> Segments:
    """One segment a class, in which every protected group that the batch has weighs alike, whatever its size."""
    cell = batch.classes * batch.num_groups + batch.groups
    samples = torch.ones(len(cell), device=cell.device) if batch.weights is None else batch.weights
    # Sums per cell without atomics: the same bits in every run.
    order = torch.argsort(cell, stable=True)
    sizes = torch.zeros(batch.num_classes * batch.num_groups, dtype=torch.int64, device=cell.device)
    sizes.scatter_add_(0, cell, torch.ones_like(cell))
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    sums = torch.segment_reduce(samples[order].double(), "sum", offsets=offsets, unsafe=True, initial=0)
    return none.segments(replace(batch, weights=samples / sums[cell]))


MODE = Mode("one target a class: the mean of its groups' means (COBRA)", segments, "groups", groups_alike)
