"""Residual networks as the distillation literature has them: a 3x3 stem, for small images; heads of the images' size.

Sizes, layer order, ``state_dict`` keys and parameter order are those of the published code (Zhao et al., 2021). Its
heads are for 32x32 pixels (28x28 of one channel; FairDD's ``ResNet18`` for 64x64); here they follow from the images. Of
smaller ones, no side is halved to less than 2 pixels, and means are over fewer pixels.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import ops
from fastdd.models.blocks import run_block
from fastdd.models.layout import fast_layout
from fastdd.models.network import INSTANCE_OR_BATCH_NORM, Network, chosen, halves, too_small

_STAGES = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms, ``conv1``, ``bn1``, ..., and the input, through ``shortcut``.

    Halves the sides whose ``stride`` is 2: the first convolution does, and the shortcut's; where ``pooled``, average
    poolings behind them do. Strides other than 1 and 2 have no place in a ResNet.
    """

    expansion: ClassVar[int] = 1
    pooled: ClassVar[bool] = False
    # Kernel sizes; the strided convolution is the first of 3x3.
    kernels: ClassVar[tuple[int, ...]] = (3, 3)

    def __init__(self, in_planes: int, planes: int, stride: int | tuple[int, int] = 1, norm: str = "instancenorm"):
        super().__init__()
        halved = stride not in (1, (1, 1))
        normalise, step = INSTANCE_OR_BATCH_NORM[norm], 1 if self.pooled else stride
        inputs, outputs = in_planes, self.expansion * planes
        strided, last = self.kernels.index(3), len(self.kernels) - 1
        for i, kernel in enumerate(self.kernels):
            width = outputs if i == last else planes
            conv = ops.Conv2d(inputs, width, kernel, step if i == strided else 1, kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", normalise(width))
            inputs = width
        self.shortcut = nn.Sequential()
        if halved or in_planes != outputs:
            pool = [nn.AvgPool2d(stride)] if self.pooled else []
            conv = nn.Conv2d(in_planes, outputs, 1, step, bias=False)
            self.shortcut = nn.Sequential(conv, *pool, normalise(outputs))
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(stride) if self.pooled and halved else None
        self._pool_behind = strided

    def forward(self, x: Tensor) -> Tensor:
        inside, last = x, len(self.kernels)
        for i in range(1, last):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            inside = run_block(inside, conv, norm, self.relu, self.pool if i == self._pool_behind + 1 else None)
        inside = getattr(self, f"bn{last}")(getattr(self, f"conv{last}")(inside))
        return self.relu(inside + self.shortcut(x))


class Bottleneck(BasicBlock):
    """:class:`BasicBlock` of a 3x3 convolution between two of 1x1, the last of which has four times the filters."""

    expansion = 4
    kernels = (1, 3, 1)


class PooledBasicBlock(BasicBlock):
    """:class:`BasicBlock` that halves images by average pooling."""

    pooled = True


class PooledBottleneck(Bottleneck):
    """:class:`Bottleneck` that halves images by average pooling."""

    pooled = True


class ResNet(Network):
    """A 3x3 stem of 64 filters, four stages of residual blocks with 64 to 512, the last three halving the images, and
    one linear layer on the means over 4x4 pixels; on all pixels, where blocks halve by pooling (ResNet18_AP).

    Args:
        channels, num_classes, size: as those of :class:`fastdd.models.ConvNet`.
        block: of which it is made.
        counts: blocks of each stage.
        norm: instancenorm (which the published ResNet18 has) or batchnorm.
        imagenet: instead, a 7x7 stem of stride 2, 3x3 max pooling of stride 2, and the means over all pixels.

    Raises:
        ValueError: an unknown norm; images of which instance norm would see a single pixel.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        block: type[BasicBlock] = BasicBlock,
        counts: Sequence[int] = (2, 2, 2, 2),
        norm: str = "instancenorm",
        size: tuple[int, int] = (32, 32),
        imagenet: bool = False,
    ):
        super().__init__()
        chosen("norm", norm, INSTANCE_OR_BATCH_NORM)
        stem = {"kernel_size": 7, "stride": 2, "padding": 3} if imagenet else {"kernel_size": 3, "padding": 1}
        inputs = _STAGES[0]
        self.conv1 = ops.Conv2d(channels, inputs, **stem, bias=False)
        self.bn1 = INSTANCE_OR_BATCH_NORM[norm](inputs)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else None
        sides = [(side + 3) // 4 for side in size] if imagenet else list(size)
        if norm == "instancenorm" and sides == [1, 1]:
            raise too_small(size, "ResNet", (5, 5) if imagenet else (2, 2))
        for stage, (planes, count) in enumerate(zip(_STAGES, counts, strict=True)):
            strides = (1, 1)
            if stage:
                # Strided convolutions round up, poolings down.
                strides = tuple(halves(side + (not block.pooled)) for side in sides)
                sides = [
                    (side if block.pooled else side + step - 1) // step
                    for side, step in zip(sides, strides, strict=True)
                ]
            blocks = []
            for i in range(count):
                blocks.append(block(inputs, planes, 1 if i else strides, norm))
                inputs = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        # None: all pixels.
        self._window = None if imagenet else (1, 1) if block.pooled else tuple(min(4, side) for side in sides)
        height, width = (side // window for side, window in zip(sides, self._window or sides, strict=True))
        self.embedding_dim = inputs * height * width
        self.classifier = nn.Linear(self.embedding_dim, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        x = run_block(fast_layout(images), self.conv1, self.bn1, self.relu, self.maxpool)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean((2, 3)) if self._window is None else F.avg_pool2d(x, self._window).flatten(1)
