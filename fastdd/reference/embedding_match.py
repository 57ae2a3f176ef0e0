"""Squared distances of mean embeddings, in plain PyTorch: ground truth, fallback and baseline."""

import torch
from torch import Tensor

from fastdd.reference.contents import check_range, picked, readable
from fastdd.reference.segment_mean import accumulation_dtype, segment_mean, segment_totals


def embedding_match(
    real: Tensor, synthetic: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of a segment's real rows minus mean of its class's synthetic rows. See fastdd.ops.embedding_match.

    Returns:
        Squared lengths of the differences, [S]; the differences, [S, D]; total weights, [S]. The first two are zero
        for a segment of zero total weight.

    >>> real, synthetic = torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([[1.0], [5.0]])
    >>> embedding_match(real, synthetic, torch.tensor([0, 2, 2, 3]), None, torch.tensor([0, 0, 1]), 2)
    (tensor([1., 0., 4.]), tensor([[1.], [0.], [2.]]), tensor([2., 0., 1.]))
    """
    *_, totals = segment_totals(offsets, weights, real.shape[0], accumulation_dtype(real.dtype))
    means = picked("classes", synthetic.unflatten(0, (num_classes, -1)).mean(1), classes)
    differences = torch.where((totals == 0)[:, None], 0, segment_mean(real, offsets, weights) - means)
    return differences.square().sum(1), differences, totals


def embedding_match_pull(
    scale: Tensor | None, x: Tensor, totals: Tensor, classes: Tensor, num_classes: int, n: int, factor: float
) -> Tensor:
    """``out[j] = factor / IPC * sum of scale[s] x[s]`` over the segments s of j's class that have a total; [n, D]."""
    x = torch.where((totals == 0)[:, None], 0, x if scale is None else scale[:, None] * x)
    check_range("classes", classes, 0, num_classes)
    if not readable(classes):
        x = torch.where(((classes >= 0) & (classes < num_classes))[:, None], x, torch.nan)
        classes = classes.clamp(0, num_classes - 1)
    sums = x.new_zeros(num_classes, x.shape[1]).index_add(0, classes, x)
    ipc = n // num_classes
    return (sums * (factor / ipc)).repeat_interleave(ipc, 0)
