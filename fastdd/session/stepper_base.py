"""What the steps of every method have in common: the synthetic images and how a gradient moves them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.session.config import RunConfig


class Stepper:
    """One step after another, on synthetic images that it holds.

    Args:
        config: the run.
        device: where.
        images: float32 [C * IPC, channels, H, W], normalised, class-major; copied.
        classes: those whose images the steps change; None: all.

    Attributes:
        images: the synthetic images of all classes, a leaf that requires a gradient.
        momentum: SGD's buffer, of their shape; after the first step their gradient.
        classes: as above.
        per_iteration: steps an iteration.

    Raises:
        ValueError: classes that are not consecutive ones of the set.
    """

    per_iteration = 1

    def __init__(self, config: RunConfig, device: torch.device, images: Tensor, classes: range | None = None):
        self._config = config
        every = range(len(images) // config.ipc)
        self.classes = every if classes is None else classes
        if not (len(self.classes) and self.classes.step == 1 and self.classes[0] >= 0 and self.classes[-1] in every):
            raise ValueError(f"classes must be consecutive ones of the {len(every)} that there are, not {classes}")
        self._rows = slice(self.classes.start * config.ipc, self.classes.stop * config.ipc)
        self.images = images.to(device, copy=True).requires_grad_()
        self.momentum = torch.zeros_like(images, device=device)

    def step(self, number: int) -> Tensor:
        """Do step ``number`` of the run. Returns its loss, a scalar: that of ``classes``."""
        raise NotImplementedError

    @torch.no_grad()
    def _update(self, gradient: Tensor) -> None:
        """SGD of the images of ``classes``, whose gradient this is."""
        momentum = self.momentum[self._rows]
        momentum.mul_(self._config.momentum).add_(gradient)
        self.images[self._rows].sub_(momentum, alpha=self._config.lr_img)

    def state(self) -> dict[str, Tensor]:
        """What the steps to come depend on, besides the run's configuration: the tensors themselves, not copies."""
        return {"images": self.images.detach(), "momentum": self.momentum}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` was."""
        own = self.state()
        if own.keys() != state.keys():
            raise ValueError(f"a checkpoint of other tensors: {', '.join(sorted(own.keys() ^ state.keys()))}")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def learned(self) -> dict[str, Any]:
        """What else the synthetic set has than images and classes: arguments of :class:`fastdd.data.SyntheticSet`."""
        return {}

    def trouble(self, number: int, loss: float) -> str | None:
        """What is wrong after step ``number``, which had this loss, and what to do about it; None if nothing is."""
        if math.isfinite(loss):
            return None
        return f"the loss is {loss:.4g}; lower lr_img ({self._config.lr_img:g})"


def build_network(
    config: RunConfig, channels: int, num_classes: int, size: tuple[int, int], device: torch.device
) -> nn.Module:
    """The run's network, whose parameters need no gradient."""
    net = models.build(config.arch, channels, num_classes, size, width=config.width, depth=config.depth, device=device)
    return net.train().requires_grad_(False)
