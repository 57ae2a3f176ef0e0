"""Squeeze, recover, relabel (SRe2L; Yin et al., NeurIPS 2023), with a curriculum of crops CDA (Yin and Shen, TMLR
2024): images of noise that a teacher takes for their classes, and that its batch norms take for real ones.

    L = CE(teacher(A(x)), y) + r_bn sum over batch norms l of a_l d_l,
    d_l = |var_l - running_var_l| + |mean_l - running_mean_l|,

over a batch of one image a class, with a_1 = ``first_bn`` and 1 else, the statistics of what the batch norms are
given (biased variances), and Euclidean norms. A is one random resized crop, mirror and roll a batch. Adam (0.5, 0.9)
with a rate that falls to 0 by a cosine; after each iteration values are put back into the range of pixels. With
``curriculum`` cosine (CDA) crops are of the whole image at first, and get as small as SRe2L's until ``milestone`` of
the iterations.

No real image is looked at: bias is handled where the teacher is trained (``fastdd train --training``).
"""

import math
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from fastdd import ops
from fastdd.core import rng
from fastdd.core.settings import setting
from fastdd.data import Dataset
from fastdd.methods.decoupled import Decoupled, DecoupledSettings, Teacher, Unit

_BETAS = (0.5, 0.9)
# Of torchvision's RandomResizedCrop, whose least area the curriculum ends at.
_SMALLEST = 0.08


class Sre2lSettings(DecoupledSettings):
    """Settings of recovering images from a teacher."""

    iterations: int = setting("iterations of every batch of images", 4000, ge=1)
    lr_img: float = setting("learning rate of the synthetic images, at first", 0.25, gt=0)
    r_bn: float = setting("weight of the distance to the teacher's batch norm statistics", 0.01, ge=0)
    first_bn: float = setting("how much more the first batch norm's distance counts", 10.0, ge=0)
    jitter: int = setting("most pixels that images are rolled by in each iteration, down and to the right", 32, ge=0)
    batch_classes: int = setting("classes, one image of each, whose images share their statistics", 100, ge=1)
    curriculum: Literal["none", "step", "linear", "cosine"] = setting(
        "how crops get smaller over the iterations (CDA): none (they are of any size), or step, linear or cosine",
        "none",
    )
    milestone: float | None = setting(
        "part of the iterations that a curriculum lasts", None, default_help="1 with a curriculum", gt=0, le=1
    )

    @model_validator(mode="after")
    def _milestone_of_a_curriculum(self) -> "Sre2lSettings":
        if self.milestone is not None and self.curriculum == "none":
            raise ValueError(f"milestone {self.milestone:g} is of a curriculum: give that too (cosine)")
        return self

    def _why(self) -> str:
        return ": it looks at no real images, and handles bias where its teacher is trained (fastdd train --training)"

    def smallest_crop(self, iteration: int) -> float:
        """The least area of a crop, in units of the image's."""
        done = iteration / ((self.milestone or 1) * self.iterations)
        if self.curriculum == "none" or done >= 1:
            return _SMALLEST
        left = {"step": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.curriculum]
        return _SMALLEST + (1 - _SMALLEST) * left


class Sre2l(Decoupled):
    """Images that a teacher takes for its classes: a unit is one image of each of some classes.

    Raises:
        ValueError: a teacher without batch norms.
    """

    about = "images from noise, by a teacher's classes and batch norm statistics; with a curriculum, CDA"
    source = "Yin et al., NeurIPS 2023"
    Settings = Sre2lSettings
    quick = MappingProxyType({"iterations": 200})
    _config: Sre2lSettings

    def __init__(
        self,
        config: Sre2lSettings,
        dataset: Dataset,
        teacher: Teacher,
        device: torch.device | str = "cpu",
        weights: Tensor | None = None,
    ):
        super().__init__(config, dataset, teacher, device, weights)
        self._norms = [layer for layer in teacher.net.modules() if isinstance(layer, nn.BatchNorm2d)]
        if not self._norms:
            raise ValueError(
                f"the teacher {teacher.path} has no batch norms, whose statistics sre2l goes by: train one that has "
                "(fastdd train --arch ConvNetBN)"
            )
        mean, std = (torch.tensor(values, device=self._device).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
        self._low, self._high = -mean / std, (1 - mean) / std
        firsts = range(0, dataset.num_classes, config.batch_classes)
        chunks = [range(first, min(first + config.batch_classes, dataset.num_classes)) for first in firsts]
        self.units = [Unit(chunk, range(k, k + 1)) for k in range(config.ipc) for chunk in chunks]

    def make(self, unit: Unit) -> tuple[Tensor, float]:
        config, device, classes, number = self._config, self._device, unit.classes, unit.numbers[0]
        shape = (len(classes), self._dataset.channels, *self._dataset.size)
        lanes = rng.lanes(rng.key(config.seed, "noise", number), classes.stop, device)[classes.start :]
        images = rng.normal(lanes, math.prod(shape[1:])).view(shape).requires_grad_()
        labels = torch.arange(classes.start, classes.stop, device=device)
        adam = torch.optim.Adam([images], lr=config.lr_img, betas=_BETAS)
        for iteration in range(config.iterations):
            adam.param_groups[0]["lr"] = config.lr_img * (1 + math.cos(math.pi * iteration / config.iterations)) / 2
            key = rng.key(config.seed, "recovery", number, classes.start, iteration)
            loss = self.loss(self._augmented(images, key, config.smallest_crop(iteration)), labels)
            images.grad = torch.autograd.grad(loss, images)[0]
            adam.step()
            with torch.no_grad():
                torch.minimum(torch.maximum(images, self._low, out=images), self._high, out=images)
        return images.detach().cpu(), loss.item()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """L of augmented images, a scalar."""
        config = self._config
        with BatchStatistics(self._norms) as statistics:
            logits = self._teacher.net(images)
        loss = F.cross_entropy(logits, labels)
        if config.r_bn:
            distances = statistics.distances()
            loss = loss + config.r_bn * (distances.sum() + (config.first_bn - 1) * distances[0])
        return loss

    def _augmented(self, images: Tensor, key: int, smallest: float) -> Tensor:
        """One crop, mirror and roll for all."""
        config, (height, width) = self._config, self._dataset.size
        lanes = rng.lanes(key, 1, images.device)
        crop = ops.random_crops(lanes, (height, width), area=(smallest, 1.0), mirror=0.5)
        crop = crop.take(torch.zeros(len(images), dtype=torch.int64, device=images.device))
        down, right = (rng.uniform_array(key, 2) * (config.jitter + 1)).astype(int).tolist()
        return torch.roll(ops.crop_resize(images, crop, (height, width)), (down, right), (2, 3))


class BatchStatistics:
    """In its context, what batch norms are given: how far their statistics are from the running ones.

    Args:
        norms: in the order of the network's modules.
    """

    def __init__(self, norms: list[nn.BatchNorm2d]):
        self._norms, self._found = norms, {}

    def __enter__(self) -> "BatchStatistics":
        self._hooks = [norm.register_forward_pre_hook(self._see) for norm in self._norms]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see(self, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        var, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        self._found[norm] = (var - norm.running_var).norm() + (mean - norm.running_mean).norm()

    def distances(self) -> Tensor:
        """[L], a batch norm each."""
        return torch.stack([self._found[norm] for norm in self._norms])
