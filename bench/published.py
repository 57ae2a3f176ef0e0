"""One step of distribution matching with the structure of the published code: the baseline ``reference-loop``.

What makes it slow is kept, as it is what a user of that code waits for: a network built anew, Python loops over
classes and groups, whole-class permutations, augmentation parameters built element by element, one operation at a time.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import models, ops, rng
from fastdd.data import Dataset
from fastdd.ops import DSA_OPS, Param
from fastdd.session import RunConfig


def augment(x: Tensor, row: Tensor, operation: str) -> Tensor:
    """One DSA operation on ``x`` [N, C, H, W], with the parameters of ``row`` [13] (:class:`fastdd.ops.Param`)."""
    n, _, height, width = x.shape
    value = row.tolist()
    if operation == "color":
        x = x + value[Param.BRIGHTNESS]
        mean = x.mean(dim=1, keepdim=True)
        x = (x - mean) * value[Param.SATURATION] + mean
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return (x - mean) * value[Param.CONTRAST] + mean
    if operation == "crop":
        batch, rows, columns = torch.meshgrid(
            *(torch.arange(size, device=x.device) for size in (n, height, width)), indexing="ij"
        )
        rows = torch.clamp(rows + int(value[Param.F]) + 1, 0, height + 1)
        columns = torch.clamp(columns + int(value[Param.C]) + 1, 0, width + 1)
        padded = F.pad(x, [1, 1, 1, 1])
        return padded.permute(0, 2, 3, 1).contiguous()[batch, rows, columns].permute(0, 3, 1, 2).contiguous()
    if operation == "cutout":
        top, bottom, left, right = (int(value[p]) for p in (Param.TOP, Param.BOTTOM, Param.LEFT, Param.RIGHT))
        batch, rows, columns = torch.meshgrid(
            torch.arange(n, device=x.device),
            torch.arange(top, bottom, device=x.device),
            torch.arange(left, right, device=x.device),
            indexing="ij",
        )
        mask = torch.ones(n, height, width, dtype=x.dtype, device=x.device)
        mask[batch, rows, columns] = 0
        return x * mask[:, None]
    if operation == "flip":
        return x.flip(3) if value[Param.A] < 0 else x
    a, b, d, e = (torch.tensor([value[p]] * n, dtype=x.dtype) for p in (Param.A, Param.B, Param.D, Param.E))
    theta = torch.tensor([[[a[i], b[i], 0], [d[i], e[i], 0]] for i in range(n)], dtype=x.dtype)
    grid = F.affine_grid(theta, x.shape, align_corners=False).to(x.device)
    return F.grid_sample(x, grid, align_corners=False)


def operation_of(row: Tensor) -> str:
    """The DSA operation that a parameter row carries out (an identity row is called a flip)."""
    value = row.tolist()
    if (value[Param.BRIGHTNESS], value[Param.SATURATION], value[Param.CONTRAST]) != (0, 1, 1):
        return "color"
    if value[Param.TOP] < value[Param.BOTTOM]:
        return "cutout"
    if value[Param.B] or value[Param.D]:
        return "rotate"
    if value[Param.A] < 0:
        return "flip"
    if (value[Param.A], value[Param.E]) != (1, 1):
        return "scale"
    return "crop" if value[Param.C] or value[Param.F] else "flip"


class PublishedLoop:
    """Steps of DM or DM+FairDD as published, on real images that rest as normalised float32.

    Args:
        config: dm, with debias none or fairdd; all six operations of DSA.
        dataset: square images.
        device: where.
        images: float32 [C * IPC, channels, H, W]; copied.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, device: torch.device, images: Tensor):
        self._config, self._dataset, self._device = config, dataset, device
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
        self._real = (torch.as_tensor(dataset.train.images, device=device).float() / 255 - mean) / std
        self._groups = torch.as_tensor(dataset.train.groups, device=device)
        self._rows = [np.flatnonzero(dataset.train.labels == c) for c in range(dataset.num_classes)]
        self._random = np.random.RandomState(config.seed)
        self.images = images.to(device, copy=True).requires_grad_()
        self._sgd = torch.optim.SGD([self.images], lr=config.lr_img, momentum=config.momentum)

    def step(self, number: int) -> Tensor:
        """One iteration; returns its loss."""
        config, dataset = self._config, self._dataset
        net = models.ConvNet(dataset.channels, dataset.num_classes, size=dataset.size, **self._shape())
        net = net.to(self._device).train()
        for parameter in net.parameters():
            parameter.requires_grad = False
        loss = torch.zeros((), device=self._device)
        per_class = self.images.split(config.ipc)
        for c in range(dataset.num_classes):
            rows = self._random.permutation(self._rows[c])[: config.batch_real]
            row, operation = self._draw(dataset.size)
            real = augment(self._real[rows], row, operation)
            synthetic = augment(per_class[c], row, operation)
            embeddings = net.features(real).flatten(1).detach()  # not embed: it picks a faster memory format
            mean = net.features(synthetic).flatten(1).mean(dim=0)
            if config.debias == "none":
                loss = loss + ((embeddings.mean(dim=0) - mean) ** 2).sum()
                continue
            groups = self._groups[rows]
            for group in torch.unique(groups):
                loss = loss + ((embeddings[groups == group].mean(dim=0) - mean) ** 2).sum()
        self._sgd.zero_grad()
        loss.backward()
        self._sgd.step()
        return loss.detach()

    def _shape(self) -> dict:
        return {"width": self._config.width or 128, "depth": self._config.depth or 3}

    def _draw(self, size: tuple[int, int]) -> tuple[Tensor, str]:
        operation = DSA_OPS[self._random.randint(len(DSA_OPS))]
        lane = rng.lanes(int(self._random.randint(1 << 31)), 1)
        return ops.dsa_params(operation, lane, size)[0], operation
