"""Bias encoders: networks that map images to points on the unit sphere, for densities and distances."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.core import rng
from fastdd.core.text import one_of
from fastdd.models.init import ParameterInit
from fastdd.models.layout import fast_layout

DIM = 128
_STAGES = (64, 128, 256, 512)
_SMALL_WIDTHS = (32, 64)


class _Residual(nn.Module):
    """Two 3x3 convolutions with batch norm, and the input, through a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inside + self.shortcut(x))


class _Quadrants(nn.Module):
    """[N, C, H, W] -> [N, 4 C], the means of the four quarters of every channel; of an odd size they share the middle.

    Adaptive pooling to 2x2, whose gradient on a GPU would be a sum in no fixed order.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows = (slice(0, (height + 1) // 2), slice(height // 2, height))
        columns = (slice(0, (width + 1) // 2), slice(width // 2, width))
        return torch.cat([x[..., r, c].mean((-2, -1)) for r in rows for c in columns], 1)


def _resnet18(channels: int) -> tuple[nn.Module, nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inputs = 64
    for stage, width in enumerate(_STAGES):
        layers += [_Residual(inputs, width, 2 if stage else 1), _Residual(width, width, 1)]
        inputs = width
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return body, nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, DIM))


def _small(channels: int) -> tuple[nn.Module, nn.Module]:
    layers: list[nn.Module] = []
    inputs = channels
    for width in _SMALL_WIDTHS:
        layers += [nn.Conv2d(inputs, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.AvgPool2d(2)]
        inputs = width
    return nn.Sequential(*layers, _Quadrants()), nn.Linear(4 * inputs, DIM)


_ENCODERS = {"resnet18": _resnet18, "small": _small}
ENCODERS = tuple(_ENCODERS)


class Encoder(nn.Module):
    """Images [N, C, H, W] -> points on the unit sphere [N, 128].

    ``resnet18`` is that of SelecMix (Hwang et al., NeurIPS 2022): a 3x3 stem of stride 1, four stages of two residual
    blocks with 64, 128, 256 and 512 filters and batch norm, global average pooling, and the head Linear(512, 512),
    ReLU, Linear(512, 128). ``small`` has two convolutions of 32 and 64 filters, each with batch norm, ReLU and 2x2
    average pooling, the means of the four quarters, and one linear layer.

    Images of any size; of ``small`` at least 4x4.

    Args:
        name: ``resnet18`` or ``small``.
        channels: image channels.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, name: str, channels: int):
        super().__init__()
        if name not in _ENCODERS:
            raise ValueError(f"unknown encoder {name!r}; {one_of(name, _ENCODERS)}")
        self.body, self.head = _ENCODERS[name](channels)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.body(fast_layout(images))), dim=1)


def build_encoder(name: str, channels: int, *, key: int = 0, device: torch.device | str = "cpu") -> Encoder:
    """An :class:`Encoder`, randomly initialised from a key; the global RNG is not touched.

    Convolutions are normal with variance 2 / fan_out (He et al., 2015), norms start at weight 1 and bias 0, linear
    layers uniform on +-1/sqrt(fan_in), as published.

    >>> build_encoder("small", 3)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 128])
    """
    with torch.device("meta"):  # no memory, no draws from the global RNG
        net = Encoder(name, channels)
    net = net.to_empty(device=device)
    ParameterInit(net).fill(rng.key(key, "encoder"))
    with torch.no_grad():
        convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
        for number, layer in enumerate(convolutions):
            fan_out = layer.weight.numel() // layer.in_channels
            draws = rng.normal(rng.key(key, "encoder-convolution", number), layer.weight.numel(), device)
            layer.weight.copy_(draws.view_as(layer.weight) * (2 / fan_out) ** 0.5)
    return net
