"""None: the class is the segment, so that the synthetic set inherits the bias of the real one."""

import torch

from fastdd.debias.base import Mode, alike
from fastdd.debias.segments import Batch, Segments, segments_by


def segments(batch: Batch) -> Segments:
    """One segment a class, weights 1/n, or in proportion to the batch's."""
    return segments_by(batch, batch.classes, torch.arange(batch.num_classes, device=batch.rows.device))


MODE = Mode("every image counts alike: vanilla distillation", segments, "nothing", alike)
