"""The best plain PyTorch that anyone would write, without fastdd's ops and networks: the baseline ``torch``."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.ops import Param

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "swish": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}

ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Sigmoid)


class InstanceNorm(nn.GroupNorm):
    """Instance norm as published, ``GroupNorm(C, C)``; in bfloat16 on CPUs through float32.

    PyTorch's own bfloat16 kernel takes six times as long there (16x128x32x32 and smaller, channels-last).
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.bfloat16 or x.is_cuda:
            return super().forward(x)
        return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float()).to(x.dtype)


class ConvNet(nn.Module):
    """The ConvNet of :class:`fastdd.models.ConvNet` (the same ``state_dict``) from PyTorch's own layers only."""

    def __init__(self, channels: int, num_classes: int, size: tuple[int, int], width: int, depth: int, activation: str):
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(depth):
            layers += [
                nn.Conv2d(width if block else channels, width, 3, padding=1),
                InstanceNorm(width, width),
                _ACTIVATIONS[activation](),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (size[0] >> depth) * (size[1] >> depth), num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """[N, D], in the memory format that the images have."""
        return self.features(images).flatten(1)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """What every activation returns, [N, width, h, w], and :meth:`embed`."""
        maps = []
        for layer in self.features:
            images = layer(images)
            if isinstance(layer, ACTIVATIONS):
                maps.append(images)
        return maps, images.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        return self.classifier(self.embed(images))


def identity_row(like: Tensor) -> Tensor:
    """A parameter row [13] that changes nothing, of ``like``'s type."""
    row = torch.zeros_like(like)
    row[[Param.A, Param.E, Param.SATURATION, Param.CONTRAST]] = 1
    return row


def augment(x: Tensor, row: Tensor, operation: str) -> Tensor:
    """One DSA operation on ``x`` [N, C, H, W] with the parameters of ``row`` [13], on the CPU: slices and one grid."""
    height, width = x.shape[2:]
    value = row.tolist()
    if operation == "color":
        x = x + value[Param.BRIGHTNESS]
        x = torch.lerp(x.mean(1, keepdim=True), x, value[Param.SATURATION])
        return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, value[Param.CONTRAST])
    if operation == "crop":
        down, right = int(value[Param.F]), int(value[Param.C])
        top, left = max(down, 0), max(right, 0)
        inside = x[:, :, top : height + min(down, 0), left : width + min(right, 0)]
        return F.pad(inside, (left - right, left, top - down, top))
    if operation == "cutout":
        x = x.clone()
        top, bottom, left, right = (int(value[p]) for p in (Param.TOP, Param.BOTTOM, Param.LEFT, Param.RIGHT))
        x[:, :, top:bottom, left:right] = 0
        return x
    if operation == "flip":
        return x.flip(3) if value[Param.A] < 0 else x
    a, b, d, e = (value[p] for p in (Param.A, Param.B, Param.D, Param.E))
    theta = torch.tensor([[[a, b, 0], [d, e, 0]]], dtype=x.dtype).to(x.device, non_blocking=True)
    grid = F.affine_grid(theta, [1, *x.shape[1:]], align_corners=False)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)


def augment_each(x: Tensor, rows: Tensor, operation: str) -> Tensor:
    """One DSA operation on ``x`` [N, C, H, W] with parameters ``rows`` [N, 13], one an image."""
    n, _, height, width = x.shape
    shift = int(rows[:, [Param.F, Param.C]].abs().max()) if operation == "crop" else 0
    rows = rows.to(x.device, x.dtype, non_blocking=True)[..., None, None, None]
    ys, xs = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    if operation == "color":
        x = x + rows[:, Param.BRIGHTNESS]
        x = torch.lerp(x.mean(1, keepdim=True), x, rows[:, Param.SATURATION])
        return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, rows[:, Param.CONTRAST])
    if operation == "crop":
        down, right = (rows[:, p, 0].long() + shift for p in (Param.F, Param.C))
        each = torch.arange(n, device=x.device)[:, None, None]
        return F.pad(x, (shift,) * 4)[each, :, ys + down, xs + right].permute(0, 3, 1, 2)
    if operation == "cutout":
        inside = (ys >= rows[:, Param.TOP]) & (ys < rows[:, Param.BOTTOM])
        return x.masked_fill(inside & (xs >= rows[:, Param.LEFT]) & (xs < rows[:, Param.RIGHT]), 0)
    if operation == "flip":
        return torch.where(rows[:, Param.A] < 0, x.flip(3), x)
    a, b, d, e = (rows[:, p, 0, 0, 0] for p in (Param.A, Param.B, Param.D, Param.E))
    zero = torch.zeros_like(a)
    theta = torch.stack([a, b, zero, d, e, zero], 1).view(n, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, [*x.shape], align_corners=False), align_corners=False)


def segment_mean(x: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of the rows of every segment, 0 for an empty one.

    Of index_add, segment_reduce, a sparse or dense matrix product and a loop over slices, ``embedding_bag`` was the
    fastest (2,560 x 2,048, 2 cores), for 10 segments and for 100.
    """
    rows, starts = torch.arange(len(x), device=x.device), offsets[:-1]
    sums = F.embedding_bag(rows, x, starts, mode="sum", per_sample_weights=weights)
    totals = F.embedding_bag(rows, weights[:, None], starts, mode="sum")
    return sums / totals.clamp(min=torch.finfo(totals.dtype).tiny)
