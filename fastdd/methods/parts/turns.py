"""One optimiser of the images of all classes, stepped once a class; and its learning rate, which falls on a plateau."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

# PyTorch's defaults, which are the published settings: of AdamW, and of ReduceLROnPlateau.
_BETA, _EPS = 0.999, 1e-8
_THRESHOLD, _LEAST_CHANGE = 1e-4, 1e-8

Growth = tuple[float | Tensor, float | Tensor]


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
    :meth:`step` does the rest. So many element steps as C whole steps have, in twice as many calls.

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
        self._each = len(images) // num_classes
        self._decay, self._weight_decay, self._lr = decay, weight_decay, lr
        self.second = torch.zeros_like(momentum) if kind == "adamw" else None

    def growths(self, done: int) -> list[Growth]:
        """Of the steps of a round, ``done`` steps after the first of all: ``1 - beta^n`` of AdamW's two moments, which
        they have grown to in n steps from 0. SGD has none."""
        if self.second is None:
            return [(1.0, 1.0)] * self._classes
        steps = range(done + 1, done + 1 + self._classes)
        return [(1 - self._decay**number, 1 - _BETA**number) for number in steps]

    @torch.no_grad()
    def wait(self, growths: Sequence[Growth]) -> None:
        """The steps of a round, whose :meth:`growths` these are, before each class's own."""
        for turn in range(self._classes - 1):
            self._move(slice((turn + 1) * self._each, None), growths[turn])

    @torch.no_grad()
    def step(self, growths: Sequence[Growth], gradient: Tensor) -> None:
        """Each class's own step, and those of the round after it."""
        for turn in range(self._classes):
            own = slice(turn * self._each, (turn + 1) * self._each)
            self._momentum[: own.start].mul_(self._decay)
            self._momentum[own].mul_(self._decay).add_(
                gradient[own], alpha=1.0 if self.second is None else 1 - self._decay
            )
            if self.second is not None:
                self.second[: own.start].mul_(_BETA)
                self.second[own].mul_(_BETA).addcmul_(gradient[own], gradient[own], value=1 - _BETA)
            self._go(slice(own.stop), growths[turn])

    def _move(self, rows: slice, growth: Growth) -> None:
        """A step of rows without a gradient."""
        self._momentum[rows].mul_(self._decay)
        if self.second is not None:
            self.second[rows].mul_(_BETA)
        self._go(rows, growth)

    def _go(self, rows: slice, growth: Growth) -> None:
        """The move of a step by the moments."""
        images, momentum = self._images[rows], self._momentum[rows]
        if self.second is None:
            images.sub_(momentum * self._lr)
            return
        images.mul_(1 - self._lr * self._weight_decay)
        scale = (self.second[rows] / growth[1]).sqrt_().add_(_EPS)
        images.addcdiv_(momentum, scale.mul_(growth[0] / -self._lr))
