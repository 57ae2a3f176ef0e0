"""FairDD's ablation of weightings (its Table 10): groups apart as in FairDD, but not alike. No public code exists.

The factors of a class's groups have the mean 1 over the groups that the data set has, so the step size of FairDD, which
counts every group once, serves for all.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fastdd.debias import fairdd
from fastdd.debias.base import Mode
from fastdd.debias.segments import Batch, Segments

# LDAM's exponent for the margin of a class of n samples (Cao et al., NeurIPS 2019), softer than the inverse size. The
# paper says "a soft exponential weighting" and cites LDAM.
_LDAM_EXPONENT = 0.25


def _by_size(batch: Batch, exponent: float) -> Segments:
    if batch.counts is None:
        raise ValueError("a weighting by group size needs the data set's counts")
    sizes = batch.counts.double()
    factors = torch.where(sizes > 0, sizes.clamp(min=1) ** -exponent, 0)
    factors = factors / factors.sum(1, keepdim=True) * (sizes > 0).sum(1, keepdim=True)
    return replace(fairdd.segments(batch), importance=_flat(factors))


def _flat(factors: Tensor) -> Tensor:
    return factors.nan_to_num().flatten().to(torch.float32)  # 0 / 0 where a class has no samples at all


def inverse_size(batch: Batch) -> Segments:
    """FairDD + IW: a group's distance counts in proportion to 1 / n, n its images in the data set."""
    return _by_size(batch, 1.0)


def ldam(batch: Batch) -> Segments:
    """FairDD + LDAM: a group's distance counts in proportion to n^(-1/4)."""
    return _by_size(batch, _LDAM_EXPONENT)


def group_dro(batch: Batch) -> Segments:
    """FairDD + GroupDRO: of every class, only the group with the largest distance counts."""
    return replace(fairdd.segments(batch), worst=batch.num_groups)


INVERSE_SIZE = Mode("fairdd whose groups count by 1 / size", inverse_size, "groups")
LDAM = Mode("fairdd whose groups count by size^(-1/4)", ldam, "groups")
GROUP_DRO = Mode("fairdd of only the group that is farthest off", group_dro, "groups")
