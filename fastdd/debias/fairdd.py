"""FairDD: match every protected group alike, whatever its size (FairDD paper, section 5, "synchronized matching")."""

import torch

from fastdd.debias.base import Mode, groups_alike
from fastdd.debias.segments import Batch, Segments, segments_by


def segments(batch: Batch) -> Segments:
    """One segment for each (class, group), weights 1/n_group; groups that the batch lacks are empty segments.

    A method sums its distance over segments, so a class counts once for each group present, as in the published code:
    the effective learning rate grows with the number of groups.
    """
    segment = batch.classes * batch.num_groups + batch.groups
    classes = torch.arange(batch.num_classes, device=batch.rows.device).repeat_interleave(batch.num_groups)
    return segments_by(batch, segment, classes)


MODE = Mode("every protected group is matched alike, whatever its size", segments, "groups", groups_alike)
