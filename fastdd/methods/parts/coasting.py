"""Momentum that goes on while other classes have their turn: one SGD optimiser, stepped class by class."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Coasting:
    """SGD with momentum m on images of C classes in one tensor, stepped once a class, in their order (IDC).

    Each of its C steps moves all images: those whose class it is not have a zero gradient, and coast. In closed form, k
    steps of coasting are

        x -= lr * buf * (m + m^2 + ... + m^k),    buf *= m^k

    Class c coasts c steps, has its own, ``buf = m buf + gradient; x -= lr buf``, and coasts C - 1 - c more. Nothing of
    it depends on the other classes, so that all have their steps at once: :meth:`until_own_step`, then the gradient at
    the images as they are then, then :meth:`own_step`.

    Args:
        classes: those of the images, ascending, one an image.
        num_classes: C, of all that have turns.
        lr, momentum: of the optimiser.
        device: of the images.
    """

    def __init__(
        self,
        classes: Sequence[int],
        num_classes: int,
        lr: float,
        momentum: float,
        device: torch.device | str | None = None,
    ):
        def of_images(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device).view(-1, 1, 1, 1)

        decay, way, sum_ = [1.0], [0.0], 0.0
        for step in range(1, num_classes):
            sum_ += momentum**step
            decay.append(momentum**step)
            way.append(lr * sum_)
        after = [num_classes - 1 - label for label in classes]
        self._lr, self._momentum = lr, momentum
        self._before = of_images([decay[c] for c in classes]), of_images([way[c] for c in classes])
        self._after = of_images([decay[k] for k in after]), of_images([way[k] for k in after])

    def until_own_step(self, images: Tensor, buffer: Tensor) -> None:
        """Coast, in place, while the classes before have their steps."""
        _coast(images, buffer, *self._before)

    def own_step(self, images: Tensor, buffer: Tensor, gradient: Tensor) -> None:
        """The step of each image's class, and coasting while the classes after have theirs, in place."""
        buffer.mul_(self._momentum).add_(gradient)
        images.sub_(buffer, alpha=self._lr)
        _coast(images, buffer, *self._after)


def _coast(images: Tensor, buffer: Tensor, decay: Tensor, way: Tensor) -> None:
    images.addcmul_(buffer, way.to(images.dtype), value=-1)
    buffer.mul_(decay.to(buffer.dtype))
