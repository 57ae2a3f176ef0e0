"""Figures that mean nothing, or little: networks that did not learn, and cells of few test images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# A loss, in units of that of guessing, that no training ends with unless it ran away; and one that is no better.
_AWAY, _NO_BETTER = 2.0, 0.99
# With fewer test images a cell's accuracy moves by more than ten points with each.
_LEAST_IN_CELL = 10
# How a warning of them begins.
FEW_IMAGES = "WA and DEO rest on few test images"


class DoubtfulFigures(RuntimeWarning):
    """Of an evaluation whose figures may mean nothing."""


def doubt_of_network(
    number: int, loss: float, predictions: Tensor, class_names: Sequence[str], learning_rate: float
) -> str | None:
    """What is wrong with a trained network, and the cure, in a line; None if it has learned something.

    Args:
        number: the network's.
        loss: cross-entropy of its last epoch; not finite where its parameters are not.
        predictions: int64 [N], its classes of the test images.
        class_names: of all classes.
        learning_rate: that it was trained with.
    """
    guessing = math.log(max(2, len(class_names)))
    losses = f"loss {loss:.4g}, that of guessing {guessing:.3g}"
    if not loss <= _AWAY * guessing:
        return f"network {number} diverged ({losses}): lower --lr-net (learning_rate {learning_rate:g})"
    # The only class of a set is rightly the one predicted: its loss is 0.
    if loss >= _NO_BETTER * guessing and len(predictions) and bool((predictions == predictions[0]).all()):
        only = class_names[int(predictions[0])]
        return (
            f"network {number} learned nothing (every prediction is {only}; {losses}): try other --lr-net "
            f"(learning_rate {learning_rate:g}) or more --epochs"
        )
    return None


def doubt_of_test_set(images: Tensor, class_names: Sequence[str], group_names: Sequence[str]) -> str | None:
    """That cells of the test set, int64 [C, G], have too few images for WA and DEO, in a line; None if none has.

    Cells without images count for no figure, and without groups there are no cells to compare.
    """
    few = (images > 0) & (images < _LEAST_IN_CELL)
    if len(group_names) < 2 or not few.any():
        return None
    fewest = int(torch.where(few, images, images.max()).argmin())
    label, group = divmod(fewest, images.shape[1])
    count = int(images[label, group])
    return (
        f"{FEW_IMAGES}: {count} of class {class_names[label]} in group {group_names[group]}; "
        f"{int(few.sum())} of {int((images > 0).sum())} cells have fewer than {_LEAST_IN_CELL}: test on more images"
    )
