"""One optimiser of the images of all classes, stepped once a class; and its learning rate, which falls on a plateau."""

import math
from typing import Literal

import torch
from torch import Tensor

from fastdd import ops

# PyTorch's defaults, which are the published settings: of ReduceLROnPlateau.
_THRESHOLD, _LEAST_CHANGE = 1e-4, 1e-8


class Plateau:
    """A learning rate that is halved when the loss has found no new low for more than ``patience`` times.

    PyTorch's ReduceLROnPlateau with its defaults: a new low is one by 1e-4 of the last. All of it are tensors where the
    loss is, so that nothing waits for a GPU.

    Attributes:
        lr: float64 scalar.
    """

    def __init__(self, lr: float, patience: int, device: torch.device | str = "cpu"):
        self.lr = torch.tensor(lr, dtype=torch.float64, device=device)
        self._lowest = torch.tensor(math.inf, dtype=torch.float64, device=device)
        self._waited = torch.tensor(0, device=device)
        self._patience = patience

    def see(self, loss: Tensor) -> None:
        """The loss of one more iteration."""
        lower = loss < self._lowest * (1 - _THRESHOLD)
        self._lowest.copy_(torch.where(lower, loss.double(), self._lowest))
        self._waited.copy_(torch.where(lower, 0, self._waited + 1))
        over = self._waited > self._patience
        self._waited.masked_fill_(over, 0)
        self.lr.copy_(torch.where(over & (self.lr / 2 > _LEAST_CHANGE), self.lr / 2, self.lr))

    def state(self) -> dict[str, Tensor]:
        return {"lr": self.lr, "lowest_loss": self._lowest, "waited": self._waited}


class Turns:
    """AdamW, or SGD with momentum, of images of C classes in one tensor, stepped once a class, in their order.

    Each of a round's C steps moves all images: those whose turn it is not have a gradient of zero, and go on by their
    moments (and shrink, with AdamW's decay). As that depends on no other class, all classes have their gradients at
    once: :meth:`wait` does the steps before each class's own, then the gradient is taken at the images as they are, and
    :meth:`step` does the rest (:func:`fastdd.ops.turns_`). So many element steps as C whole steps have.

    Args:
        images: [C * IPC, ...], class-major; changed in place.
        momentum: of their shape: SGD's buffer, or AdamW's first moment; changed in place.
        num_classes: C.
        kind: ``adamw`` or ``sgd``.
        decay: of the momentum: SGD's, or AdamW's first beta (the second is 0.999).
        weight_decay: AdamW's, of the images.
        lr: float64 scalar, read at every step.

    Attributes:
        second: AdamW's second moment.
    """

    def __init__(
        self,
        images: Tensor,
        momentum: Tensor,
        num_classes: int,
        kind: Literal["adamw", "sgd"],
        decay: float,
        weight_decay: float,
        lr: Tensor,
    ):
        self._images, self._momentum, self._classes = images, momentum, num_classes
        self._decay, self._weight_decay, self._lr = decay, weight_decay, lr
        self.second = torch.zeros_like(momentum) if kind == "adamw" else None

    @torch.no_grad()
    def wait(self, done: int | Tensor) -> None:
        """The steps of a round before each class's own, ``done`` steps after the first of all."""
        self._turn(done, None)

    @torch.no_grad()
    def step(self, done: int | Tensor, gradient: Tensor) -> None:
        """Each class's own step, and those of the round after it; ``done`` as the round began."""
        self._turn(done, gradient)

    def _turn(self, done: int | Tensor, gradient: Tensor | None) -> None:
        of_images = self._images, self._momentum, self.second, gradient
        decays = {"decay": self._decay, "weight_decay": self._weight_decay}
        ops.turns_(*of_images, self._lr, self._classes, done, **decays)
