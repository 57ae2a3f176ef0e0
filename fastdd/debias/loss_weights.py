"""How much each image's loss counts where a network is trained on the real data: experts of trajectory matching.

Matching weights a signal's mean over segments; training weights the loss, with the same weights, scaled so that the
step size of unweighted training serves (the mean is 1 within every class).
"""

import numpy as np

from fastdd.debias import kde

MODES = ("none", "fairdd", "kde")


def loss_weights(
    mode: str, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray | None:
    """Weights of the loss, float32 [N], with the mean 1 within every class; None for mode ``none``.

        fairdd: w_i = n_y / (G_y n_{y,g}): each of the G_y groups that class y has counts alike
        kde:    w_i = n_y weight_i / sum of the class's weights

    Args:
        mode: none, fairdd or kde.
        labels: int64 [N].
        groups: int64 [N], from 0; for fairdd.
        weights: [N], at least 0, some above 0 in every class; for kde, and only for it.

    Raises:
        ValueError: another mode, or weights that are missing, not asked for, or no weights.

    >>> loss_weights("fairdd", np.zeros(4, np.int64), np.array([0, 0, 0, 1]))
    array([0.6666667, 0.6666667, 0.6666667, 2.       ], dtype=float32)
    """
    check_mode(mode)
    if (weights is not None) != (mode == "kde"):
        raise ValueError(
            f"debias={mode} takes {'no weights' if weights is not None else 'weights of the training images'}"
        )
    if mode == "none":
        return None
    sizes = np.bincount(labels)
    if mode == "kde":
        weights = np.asarray(weights)
        kde.check_weights(weights, len(labels), labels)
        share = weights.astype(np.float64)
        share /= np.bincount(labels, share)[labels]
    else:
        counts = np.zeros((len(sizes), int(groups.max()) + 1), np.int64)
        np.add.at(counts, (labels, groups), 1)
        share = 1 / ((counts > 0).sum(1)[labels] * counts[labels, groups])
    return (sizes[labels] * share).astype(np.float32)


def check_mode(mode: str) -> None:
    """ValueError unless the loss of training can be weighted as ``mode`` says."""
    if mode not in MODES:
        raise ValueError(f"experts can't be trained with debias {mode!r}; one of: {', '.join(MODES)}")
