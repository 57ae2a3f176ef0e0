"""How much each image's loss counts where a network is trained on the real data: experts of trajectory matching.

Matching weights a signal's mean over segments; training weights the loss, with the same weights, scaled so that the
step size of unweighted training serves (the mean is 1 within every class).
"""

import numpy as np

from fastdd import debias
from fastdd.core.text import one_of
from fastdd.debias.density import kde


def loss_weights(
    mode: str, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray | None:
    """Weights of the loss, float32 [N], with the mean 1 within every class; None where all count alike.

        w_i = n_y s_i,    s: the shares of the mode's ``in_training`` (:class:`fastdd.debias.Mode`)

    For fairdd w_i = n_y / (G_y n_{y,g}): each of the G_y groups that class y has counts alike.

    Args:
        mode: one that can train.
        labels: int64 [N].
        groups: int64 [N], from 0.
        weights: [N], at least 0, some above 0 in every class; for modes that need them, and only for those.

    Raises:
        ValueError: another mode, or weights that are missing, not asked for, or no weights.

    >>> loss_weights("fairdd", np.zeros(4, np.int64), np.array([0, 0, 0, 1]))
    array([0.6666667, 0.6666667, 0.6666667, 2.       ], dtype=float32)
    """
    check_mode(mode)
    chosen = debias.mode(mode)
    if (weights is not None) != (chosen.needs == "weights"):
        raise ValueError(
            f"debias={mode} takes {'no weights' if weights is not None else 'weights of the training images'}"
        )
    if weights is not None:
        weights = np.asarray(weights)
        kde.check_weights(weights, len(labels), labels)
    share = chosen.in_training(labels, groups, weights)
    if share is None:
        return None
    return (np.bincount(labels)[labels] * share).astype(np.float32)


def check_mode(mode: str) -> None:
    """ValueError unless the loss of training can be weighted as ``mode`` says."""
    able = [name for name, each in debias.MODES.items() if each.in_training is not None]
    if mode not in able:
        raise ValueError(f"experts can't be trained with debias {mode!r}; {one_of(mode, able)}")
