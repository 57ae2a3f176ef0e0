"""IDC's ``models/resnet.py`` and ``models/resnet_ap.py``."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from fastdd import ops
from fastdd.models.blocks import run_block
from fastdd.models.layout import fast_layout
from fastdd.models.network import chosen

__all__ = ["ResNet", "ResNetAP"]


class _Null(nn.Module):
    """In a norm's place where there is none."""

    def forward(self, x: Tensor) -> Tensor:
        return x


_NORMALISE: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda c: nn.GroupNorm(c, c),
    "sn": lambda c: _Null(),
    "none": lambda c: _Null(),
}


def _conv(inputs: int, outputs: int, kernel: int, stride: int, norm: str, plain: bool = False) -> nn.Module:
    """A convolution without a bias, which a norm follows; with one, and spectral norm for ``sn``, where none does."""
    alone = norm in ("sn", "none") and not plain
    conv = ops.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=alone)
    return spectral_norm(conv) if norm == "sn" and not plain else conv


class IntroBlock(nn.Module):
    """The stem: 3x3 for images up to 128 pixels, followed by pooling from 65 on, 7x7 and pooling for larger ones."""

    pooled = False

    def __init__(self, size: str, planes: int, norm_type: str, nch: int = 3):
        super().__init__()
        self.size = size
        kernel = 7 if size == "large" else 3
        stride = 2 if size == "large" and not self.pooled else 1
        self.conv1 = _conv(nch, planes, kernel, stride, norm_type)
        self.bn1 = _NORMALISE[norm_type](planes)
        self.relu = nn.ReLU(inplace=True)
        if size != "small":
            self.pool = nn.AvgPool2d(4 if size == "large" else 2) if self.pooled else nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return run_block(x, self.conv1, self.bn1, self.relu, None if self.size == "small" else self.pool)


class _PooledIntroBlock(IntroBlock):
    pooled = True


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and the input, through ``downsample`` where that is given."""

    expansion = 1
    kernels: tuple[int, ...] = (3, 3)
    pooled = False

    def __init__(
        self,
        inplanes: int,
        planes: int,
        norm_type: str = "batch",
        stride: int = 1,
        downsample: nn.Module | None = None,
    ):
        super().__init__()
        inputs, count = inplanes, len(self.kernels)
        strided = self.kernels.index(3)
        for i, kernel in enumerate(self.kernels):
            outputs = planes * self.expansion if i == count - 1 else planes
            step = stride if i == strided and not self.pooled else 1
            # As published: spectral norm and biases in basic blocks alone.
            setattr(self, f"conv{i + 1}", _conv(inputs, outputs, kernel, step, norm_type, plain=count == 3))
            setattr(self, f"bn{i + 1}", _NORMALISE[norm_type](outputs))
            inputs = outputs
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride
        self._strided = strided + 1
        self._pool = nn.AvgPool2d(stride) if self.pooled and stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        inside, count = x, len(self.kernels)
        for i in range(1, count):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            inside = run_block(inside, conv, norm, self.relu, self._pool if i == self._strided else None)
        inside = getattr(self, f"bn{count}")(getattr(self, f"conv{count}")(inside))
        return self.relu(inside + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(BasicBlock):
    """A 3x3 convolution between two of 1x1, the last of which has four times the filters."""

    expansion = 4
    kernels = (1, 3, 1)


class _PooledBasicBlock(BasicBlock):
    pooled = True


class _PooledBottleneck(Bottleneck):
    pooled = True


_LAYERS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


class _ResNet(nn.Module):
    """What ResNet and ResNetAP have in common."""

    blocks: tuple[type[BasicBlock], type[Bottleneck]] = (BasicBlock, Bottleneck)
    intro: type[IntroBlock] = IntroBlock

    def __init__(self, dataset: str, depth: int, num_classes: int, width: float, norm_type: str, size: int, nch: int):
        super().__init__()
        chosen("norm_type", norm_type, _NORMALISE if self.intro.pooled else {"batch": None, "instance": None})
        self.dataset, self.norm_type = dataset, norm_type
        cifar = dataset.startswith("cifar")
        self.net_size = "small" if cifar or 0 < size <= 64 else "mid" if 64 < size <= 128 else "large"
        if cifar:
            block, counts, self.inplanes = self.blocks[0], ((depth - 2) // 6,) * 4, 32
        elif depth in _LAYERS:
            block, counts, self.inplanes = self.blocks[depth >= 50], _LAYERS[depth], int(64 * width)
        else:
            raise ValueError(f"depth must be one of {', '.join(map(str, _LAYERS))}, not {depth}")
        planes = self.inplanes
        self.layer0 = self.intro(self.net_size, planes, norm_type, nch=nch)
        for stage, count in enumerate(counts):
            layers = self._stage(block, planes << stage, count, 2 if stage else 1)
            setattr(self, f"layer{stage + 1}", layers)
        self.avgpool = nn.AvgPool2d(4 if cifar else 7)
        self.fc = nn.Linear(self.inplanes, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
                layer.weight.data.normal_(0, math.sqrt(2 / fan_out))

    def _stage(self, block: type[BasicBlock], planes: int, count: int, stride: int) -> nn.Sequential:
        downsample, outputs = None, planes * block.expansion
        if stride != 1 or self.inplanes != outputs:
            norm = _NORMALISE[self.norm_type](outputs)
            if block.pooled:
                conv = _conv(self.inplanes, outputs, 1, 1, self.norm_type)
                downsample = nn.Sequential(conv, nn.AvgPool2d(stride), norm)
            else:
                downsample = nn.Sequential(_conv(self.inplanes, outputs, 1, stride, self.norm_type), norm)
        layers = [block(self.inplanes, planes, self.norm_type, stride, downsample)]
        self.inplanes = outputs
        layers += [block(outputs, planes, self.norm_type) for _ in range(count - 1)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_feature(x, 6)[0]

    def get_feature(self, x: Tensor, idx_from: int, idx_to: int = -1) -> list[Tensor]:
        """Outputs ``idx_from`` to ``idx_to`` (default: the one) of: 0 the stem, 1 to 4 the stages, 5 means over
        pixels, 6 logits."""
        last = idx_from if idx_to == -1 else idx_to
        x, features = fast_layout(x), []
        parts = (
            self.layer0,
            self.layer1,
            self.layer2,
            self.layer3,
            self.layer4,
            lambda t: F.avg_pool2d(t, t.shape[-1]).flatten(1),
            self.fc,
        )
        for part in parts[: last + 1]:
            x = part(x)
            features.append(x)
        return features[idx_from : last + 1]


class ResNet(_ResNet):
    """``models/resnet.py``: CIFAR's thin network of depth 6 n + 2 where ``dataset`` starts with ``cifar``, else the
    usual one of that depth (10 to 200), with a stem for images of ``size`` pixels."""

    def __init__(
        self, dataset: str, depth: int, num_classes: int, norm_type: str = "batch", size: int = -1, nch: int = 3
    ):
        super().__init__(dataset, depth, num_classes, 1.0, norm_type, size, nch)


class ResNetAP(_ResNet):
    """``models/resnet_ap.py``: :class:`ResNet` that halves images by average pooling, of ``width`` times the filters
    (not CIFAR's)."""

    blocks = (_PooledBasicBlock, _PooledBottleneck)
    intro = _PooledIntroBlock

    def __init__(
        self,
        dataset: str,
        depth: int,
        num_classes: int,
        width: float = 1.0,
        norm_type: str = "batch",
        size: int = -1,
        nch: int = 3,
    ):
        super().__init__(dataset, depth, num_classes, width, norm_type, size, nch)
        self.nch = nch
