"""What weights, embeddings and labels must be."""

import numpy as np
import torch
from torch import Tensor


def check_weights(weights: np.ndarray, n: int, labels: np.ndarray | None = None) -> None:
    """ValueError unless weights are real numbers [n], finite, at least 0 and not all 0, in no class of ``labels``."""
    if weights.dtype.kind not in "fiu" or weights.shape != (n,):
        raise ValueError(f"weights must be numbers [{n}], one a training image, not {weights.dtype} {weights.shape}")
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(wrong):
        raise ValueError(f"weights must be finite and at least 0; that of row {wrong[0]} is {weights[wrong[0]]}")
    if not weights.any():
        raise ValueError("weights are all 0")
    if labels is not None:
        sums = np.bincount(labels, weights)
        empty = np.flatnonzero((sums == 0) & (np.bincount(labels) > 0))
        if len(empty):
            raise ValueError(f"all weights of class {empty[0]} are 0")


def check_embeddings(embeddings: np.ndarray | Tensor, n: int) -> Tensor:
    """float32 [N, D] on its device; ValueError unless it is finite numbers, one row for each of the n images."""
    tensor = embeddings.detach() if isinstance(embeddings, Tensor) else torch.from_numpy(np.asarray(embeddings))
    if tensor.dim() != 2 or len(tensor) != n or tensor.shape[1] == 0 or tensor.is_complex():
        raise ValueError(f"embeddings must be [{n}, D], one row a training image, not {list(tensor.shape)}")
    tensor = tensor.to(torch.float32)
    wrong = (~tensor.isfinite().all(1)).nonzero()
    if len(wrong):
        raise ValueError(f"embeddings must be finite; row {int(wrong[0])} is not ({len(wrong)} rows in all)")
    return tensor


def check_labels(labels: np.ndarray) -> None:
    """ValueError for a class with fewer than 2 samples: nothing can be rare in it."""
    counts = np.bincount(labels)
    few = np.flatnonzero(counts < 2)
    if len(few):
        raise ValueError(f"class {few[0]} has {counts[few[0]]} training images; a density needs at least 2")
