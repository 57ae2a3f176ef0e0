"""IDC's ``models/densenet_cifar.py``."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import ops
from fastdd.models.layout import fast_layout

__all__ = ["DenseNet", "densenet_cifar"]


class _DenseLayer(nn.Module):
    """Batch norm, ReLU and convolution, 1x1 and 3x3; the result in front of the input's channels."""

    def __init__(self, in_planes: int, growth_rate: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = nn.Conv2d(in_planes, 4 * growth_rate, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = ops.Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([self.conv2(F.relu(self.bn2(inside))), x], 1)


class _Transition(nn.Module):
    """Batch norm, ReLU, 1x1 convolution and 2x2 average pooling."""

    def __init__(self, in_planes: int, out_planes: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(in_planes)
        self.conv = nn.Conv2d(in_planes, out_planes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """``models/densenet_cifar.py``: four dense blocks of ``nblocks`` layers for 32x32 pixels."""

    def __init__(
        self,
        block: type[nn.Module],
        nblocks: list[int],
        growth_rate: int = 12,
        reduction: float = 0.5,
        num_classes: int = 10,
    ):
        super().__init__()
        self.growth_rate = growth_rate
        planes = 2 * growth_rate
        self.conv1 = ops.Conv2d(3, planes, 3, padding=1, bias=False)
        for number, count in enumerate(nblocks, 1):
            layers = [block(planes + i * growth_rate, growth_rate) for i in range(count)]
            setattr(self, f"dense{number}", nn.Sequential(*layers))
            planes += count * growth_rate
            if number < len(nblocks):
                setattr(self, f"trans{number}", _Transition(planes, math.floor(planes * reduction)))
                planes = math.floor(planes * reduction)
        self.bn = nn.BatchNorm2d(planes)
        self.linear = nn.Linear(planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(fast_layout(x))
        x = self.trans3(self.dense3(self.trans2(self.dense2(self.trans1(self.dense1(x))))))
        x = F.avg_pool2d(F.relu(self.bn(self.dense4(x))), 4)
        return self.linear(x.flatten(1))


def densenet_cifar(nclass: int) -> DenseNet:
    return DenseNet(_DenseLayer, [6, 12, 24, 16], growth_rate=12, num_classes=nclass)
