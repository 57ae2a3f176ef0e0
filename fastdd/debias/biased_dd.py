"""Biased DD: away from what bias-aligned images are (Biased-DD, section 5, equation 6, which has no published code).

    L = 1/(1 - lambda) sum_y [ D(S_y, T_y) - lambda D(S_y, T_y,aligned) ],    0 <= lambda < 1

with the class's most frequent group for the aligned images. The paper leaves open what "unbiased attributes" are; here
they are what is left of all images when the aligned ones are taken off. The factor 1/(1 - lambda) lets the step size of
vanilla matching serve. For squared Euclidean distances the minimum is (m_y - lambda m_aligned) / (1 - lambda). With r
aligned images of G even groups that is FairDD's for lambda = (r G - 1) / (G - 1), and the mean of the bias-conflicting
images for lambda = r. From 1 on the loss has no minimum.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fastdd.debias.base import Mode
from fastdd.debias.segments import Batch, Segments, segments_by


def segments(batch: Batch) -> Segments:
    """Two segments a class, all of its images and its aligned ones, the second with a negative importance.

    Aligned images are in both. Waits for the device, as their number differs. Where ``batch.aligned_factor`` is None,
    lambda is (r G - 1) / (G - 1) of every class's own share and groups in the data set; 0 for a class of one group.
    """
    if batch.counts is None:
        raise ValueError("biased-dd needs the data set's counts")
    aligned = (batch.groups == batch.counts.argmax(1)[batch.classes]).nonzero()[:, 0]
    copies = torch.cat([torch.arange(len(batch.rows), device=batch.rows.device), aligned])
    second = torch.zeros_like(copies)
    second[len(batch.rows) :] = 1
    class_major = batch.classes[copies].argsort(stable=True)
    copies, second = copies[class_major], second[class_major]
    rows, of_class = batch.rows[copies], batch.classes[copies]
    classes = torch.arange(batch.num_classes, device=batch.rows.device).repeat_interleave(2)
    both = replace(batch, rows=rows, classes=of_class, groups=batch.groups[copies])
    factor = (
        _fair_factor(batch.counts)
        if batch.aligned_factor is None
        else torch.full_like(batch.counts[:, 0], batch.aligned_factor, dtype=torch.float64)
    )
    importance = torch.stack([1 / (1 - factor), -factor / (1 - factor)], 1).flatten().to(torch.float32)
    return replace(segments_by(both, 2 * of_class + second, classes), importance=importance)


def _fair_factor(counts: Tensor) -> Tensor:
    """lambda at which the minimum is FairDD's where the other groups are even, float64 [C], of counts int64 [C, G]."""
    groups = (counts > 0).sum(1).double()
    share = counts.amax(1).double() / counts.sum(1).clamp(min=1)
    return torch.where(groups > 1, (share * groups - 1) / (groups - 1).clamp(min=1), 0.0)


MODE = Mode("away from the bias-aligned images (Biased-DD, equation 6)", segments, "groups", waits=True)
