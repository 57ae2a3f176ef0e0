"""FairDD's networks, where they differ: heads for images of 64x64 pixels."""

from fastdd.compat.dc import networks as dc
from fastdd.compat.dc.networks import *

__all__ = dc.__all__

_SIZE = (64, 64)


class AlexNet(dc.AlexNet):
    def __init__(self, channel: int, num_classes: int):
        super().__init__(channel, num_classes, im_size=_SIZE)


class VGG(dc.VGG):
    def __init__(self, vgg_name: str, channel: int, num_classes: int, norm: str = "instancenorm"):
        super().__init__(vgg_name, channel, num_classes, norm, im_size=_SIZE)


class ResNet(dc.ResNet):
    def __init__(
        self,
        block: type[dc.BasicBlock],
        num_blocks: list[int],
        channel: int = 3,
        num_classes: int = 10,
        norm: str = "instancenorm",
    ):
        # Published as Linear(512 * 4): right for 64x64 with BasicBlock, and for 32x32 with Bottleneck.
        size = _SIZE if block.expansion == 1 else (32, 32)
        super().__init__(block, num_blocks, channel, num_classes, norm, im_size=size)


def VGG11(channel: int, num_classes: int) -> VGG:
    return VGG("VGG11", channel, num_classes)


def VGG11BN(channel: int, num_classes: int) -> VGG:
    return VGG("VGG11", channel, num_classes, norm="batchnorm")


def VGG13(channel: int, num_classes: int) -> VGG:
    return VGG("VGG13", channel, num_classes)


def VGG16(channel: int, num_classes: int) -> VGG:
    return VGG("VGG16", channel, num_classes)


def VGG19(channel: int, num_classes: int) -> VGG:
    return VGG("VGG19", channel, num_classes)


def ResNet18(channel: int, num_classes: int) -> ResNet:
    return ResNet(dc.BasicBlock, [2, 2, 2, 2], channel, num_classes)


def ResNet18BN(channel: int, num_classes: int) -> ResNet:
    return ResNet(dc.BasicBlock, [2, 2, 2, 2], channel, num_classes, norm="batchnorm")


def ResNet34(channel: int, num_classes: int) -> ResNet:
    return ResNet(dc.BasicBlock, [3, 4, 6, 3], channel, num_classes)


def ResNet50(channel: int, num_classes: int) -> ResNet:
    return ResNet(dc.Bottleneck, [3, 4, 6, 3], channel, num_classes)


def ResNet101(channel: int, num_classes: int) -> ResNet:
    return ResNet(dc.Bottleneck, [3, 4, 23, 3], channel, num_classes)


def ResNet152(channel: int, num_classes: int) -> ResNet:
    return ResNet(dc.Bottleneck, [3, 8, 36, 3], channel, num_classes)
