"""DC's ``networks.py`` and ``get_network`` over :mod:`fastdd.models`.

Constructors draw from torch's global generator, in the published order: after the same ``torch.manual_seed`` the
parameters are the published ones. Heads of networks other than ConvNet are for 32x32 pixels, and 28x28 of one channel,
unless ``im_size`` says otherwise.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.compat.shared import randomness
from fastdd.models.registry import convnet_setting
from fastdd.models.resnet import BasicBlock, Bottleneck, PooledBasicBlock, PooledBottleneck

__all__ = [
    "MLP",
    "VGG",
    "VGG11",
    "VGG11BN",
    "VGG13",
    "VGG16",
    "VGG19",
    "AlexNet",
    "AlexNetBN",
    "BasicBlock",
    "BasicBlock_AP",
    "Bottleneck",
    "Bottleneck_AP",
    "ConvNet",
    "LeNet",
    "ResNet",
    "ResNet18",
    "ResNet18BN",
    "ResNet18BN_AP",
    "ResNet18_AP",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNet_AP",
    "Swish",
    "get_network",
]

Size = tuple[int, int]

BasicBlock_AP, Bottleneck_AP = PooledBasicBlock, PooledBottleneck


class Swish(nn.SiLU):
    """``x * sigmoid(x)``."""

    def __init__(self):
        super().__init__()


def _head_size(channel: int, im_size: Size | None) -> Size:
    """The image size that the published heads are for: with one channel, what is called 32x32 is 28x28."""
    if im_size is None or tuple(im_size) == (32, 32):
        return (28, 28) if channel == 1 else (32, 32)
    return tuple(im_size)


def convnet_size(channel: int, im_size: Size) -> Size:
    """The image size for which :class:`fastdd.models.ConvNet` has the published shapes.

    The published code counts on ``im_size`` after the first convolution, which makes one-channel images larger by 4,
    and takes 28x28 for 32x32. Of three channels, which it can't run, 28x28 is left as it is.
    """
    height, width = im_size
    return (height - 4, width - 4) if channel == 1 and height != 28 else (height, width)


class ConvNet(models.ConvNet):
    """:class:`fastdd.models.ConvNet` with the published signature."""

    def __init__(
        self,
        channel: int,
        num_classes: int,
        net_width: int,
        net_depth: int,
        net_act: str,
        net_norm: str,
        net_pooling: str,
        im_size: Size = (32, 32),
    ):
        size = convnet_size(channel, im_size)
        super().__init__(channel, num_classes, net_width, net_depth, net_act, net_norm, net_pooling, size)

    # The argument's published name.
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def embed(self, x: Tensor) -> Tensor:
        return super().embed(x)


class MLP(models.MLP):
    def __init__(self, channel: int, num_classes: int, *, im_size: Size | None = None):
        super().__init__(channel, num_classes, _head_size(channel, im_size))


class LeNet(models.LeNet):
    def __init__(self, channel: int, num_classes: int, *, im_size: Size | None = None):
        super().__init__(channel, num_classes, _head_size(channel, im_size))


class AlexNet(models.AlexNet):
    def __init__(self, channel: int, num_classes: int, *, im_size: Size | None = None):
        super().__init__(channel, num_classes, size=_head_size(channel, im_size))


class AlexNetBN(models.AlexNet):
    def __init__(self, channel: int, num_classes: int, *, im_size: Size | None = None):
        super().__init__(channel, num_classes, "batchnorm", _head_size(channel, im_size))


class VGG(models.VGG):
    def __init__(
        self, vgg_name: str, channel: int, num_classes: int, norm: str = "instancenorm", *, im_size: Size | None = None
    ):
        super().__init__(vgg_name, channel, num_classes, norm, _head_size(channel, im_size))


class ResNet(models.ResNet):
    def __init__(
        self,
        block: type[BasicBlock],
        num_blocks: Sequence[int],
        channel: int = 3,
        num_classes: int = 10,
        norm: str = "instancenorm",
        *,
        im_size: Size | None = None,
    ):
        super().__init__(channel, num_classes, block, num_blocks, norm, _head_size(channel, im_size))


class ResNet_AP(ResNet):
    """:class:`ResNet` of blocks that halve images by average pooling, which BasicBlock_AP and Bottleneck_AP do."""


def VGG11(channel: int, num_classes: int, **options) -> VGG:
    return VGG("VGG11", channel, num_classes, **options)


def VGG11BN(channel: int, num_classes: int, **options) -> VGG:
    return VGG("VGG11", channel, num_classes, norm="batchnorm", **options)


def VGG13(channel: int, num_classes: int, **options) -> VGG:
    return VGG("VGG13", channel, num_classes, **options)


def VGG16(channel: int, num_classes: int, **options) -> VGG:
    return VGG("VGG16", channel, num_classes, **options)


def VGG19(channel: int, num_classes: int, **options) -> VGG:
    return VGG("VGG19", channel, num_classes, **options)


def ResNet18(channel: int, num_classes: int, **options) -> ResNet:
    return ResNet(BasicBlock, [2, 2, 2, 2], channel, num_classes, **options)


def ResNet18BN(channel: int, num_classes: int, **options) -> ResNet:
    return ResNet(BasicBlock, [2, 2, 2, 2], channel, num_classes, norm="batchnorm", **options)


def ResNet18_AP(channel: int, num_classes: int, **options) -> ResNet_AP:
    return ResNet_AP(BasicBlock_AP, [2, 2, 2, 2], channel, num_classes, **options)


def ResNet18BN_AP(channel: int, num_classes: int, **options) -> ResNet_AP:
    return ResNet_AP(BasicBlock_AP, [2, 2, 2, 2], channel, num_classes, norm="batchnorm", **options)


def ResNet34(channel: int, num_classes: int, **options) -> ResNet:
    return ResNet(BasicBlock, [3, 4, 6, 3], channel, num_classes, **options)


def ResNet50(channel: int, num_classes: int, **options) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 6, 3], channel, num_classes, **options)


def ResNet101(channel: int, num_classes: int, **options) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 23, 3], channel, num_classes, **options)


def ResNet152(channel: int, num_classes: int, **options) -> ResNet:
    return ResNet(Bottleneck, [3, 8, 36, 3], channel, num_classes, **options)


_OTHERS = {
    make.__name__: make
    for make in (MLP, LeNet, AlexNet, AlexNetBN, VGG11, VGG11BN, ResNet18, ResNet18BN, ResNet18_AP, ResNet18BN_AP)
}


def _make(model: str, channel: int, num_classes: int, im_size: Size) -> nn.Module:
    if model in _OTHERS:
        return _OTHERS[model](channel, num_classes, im_size=im_size)
    setting = convnet_setting(model)
    return ConvNet(
        channel,
        num_classes,
        setting.get("width", 128),
        setting.get("depth", 3),
        setting.get("activation", "relu"),
        setting.get("norm", "instancenorm"),
        setting.get("pooling", "avgpooling"),
        im_size,
    )


def build(
    model: str, channel: int, num_classes: int, im_size: Size, place: bool, rng: str | None, unknown: str
) -> nn.Module:
    """:func:`get_network`; on the CPU unless ``place``, and SystemExit with the message ``unknown``."""
    if model not in _OTHERS and convnet_setting(model) is None:
        raise SystemExit(unknown)
    gpus = torch.cuda.device_count() if place else 0
    device = "cuda" if gpus else "cpu"
    if randomness.mode(rng) == "legacy":
        torch.random.manual_seed(int(time.time() * 1000) % 100000)
        net = _make(model, channel, num_classes, im_size).to(device)
    else:
        key = randomness.next_key("network")
        net = models.initialised(lambda: _make(model, channel, num_classes, im_size), key, device)
        for parameter in net.parameters():  # each with memory of its own: scripts save single ones
            parameter.data = parameter.data.clone()
    return nn.DataParallel(net) if gpus > 1 else net


def get_network(
    model: str, channel: int, num_classes: int, im_size: Size = (32, 32), *, rng: str | None = None
) -> nn.Module:
    """A fresh network by its published name, on the GPU where there is one, in DataParallel where there are several.

    Args:
        model: a name of the published code.
        channel, num_classes, im_size: of the images; heads follow from the size, whatever the network (published: only
            ConvNet's do, and FairDD's others fit 64x64 alone).
        rng: ``fast``, parameters from the next key, and the global generators left alone; ``legacy``, as published:
            torch's generator is seeded with the clock and drawn from; None: what :func:`fastdd.compat.use_rng` set.

    Raises:
        SystemExit: an unknown name, as published.
    """
    return build(model, channel, num_classes, im_size, True, rng, f"unknown model: {model}")
