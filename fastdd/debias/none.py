"""The class is the segment: without weights the synthetic set inherits the bias of the real one."""

import torch

from fastdd.debias.segments import Batch, Segments, segments_by


def segments(batch: Batch) -> Segments:
    """One segment a class, weights 1/n, or the batch's: vanilla matching, or KDE reweighting (its eq. 2)."""
    return segments_by(batch, batch.classes, torch.arange(batch.num_classes, device=batch.rows.device))
