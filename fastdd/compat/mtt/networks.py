"""The networks of MTT and TESLA: DC's, those for ImageNet besides."""

from collections.abc import Sequence

from torch import Tensor, nn

from fastdd import models
from fastdd.compat.dc import networks as dc
from fastdd.compat.dc.networks import *
from fastdd.models.convnet import convnet_features
from fastdd.models.registry import convnet_setting

# Not in MTT's networks.py.
_DCS_ALONE = ("AlexNetBN", "Swish")
__all__ = [name for name in dc.__all__ if name not in _DCS_ALONE]
__all__ += ["ConvNetGAP", "ResNet6ImageNet", "ResNet18ImageNet", "ResNetImageNet"]


class ConvNetGAP(models.FeatureNetwork):
    """A ConvNet whose classifier sees the mean over pixels (MTT)."""

    def __init__(
        self,
        channel: int,
        num_classes: int,
        net_width: int,
        net_depth: int,
        net_act: str,
        net_norm: str,
        net_pooling: str,
        im_size: dc.Size = (32, 32),
    ):
        super().__init__()
        size = dc.convnet_size(channel, im_size)
        self.features, *_ = convnet_features(channel, net_width, net_depth, net_act, net_norm, net_pooling, size)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.embedding_dim = net_width
        self.classifier = nn.Linear(net_width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))

    def embed(self, x: Tensor) -> Tensor:
        return self.avgpool(self.features(x)).flatten(1)


class ResNetImageNet(models.ResNet):
    def __init__(
        self,
        block: type[dc.BasicBlock],
        num_blocks: Sequence[int],
        channel: int = 3,
        num_classes: int = 10,
        norm: str = "instancenorm",
    ):
        # Of any size the published network halves in every stage, which ours does where pixels are left.
        super().__init__(channel, num_classes, block, num_blocks, norm, size=(128, 128), imagenet=True)


def ResNet18ImageNet(channel: int, num_classes: int) -> ResNetImageNet:
    return ResNetImageNet(dc.BasicBlock, [2, 2, 2, 2], channel, num_classes)


def ResNet6ImageNet(channel: int, num_classes: int) -> ResNetImageNet:
    return ResNetImageNet(dc.BasicBlock, [1, 1, 1, 1], channel, num_classes)


def get_network(
    model: str,
    channel: int,
    num_classes: int,
    im_size: dc.Size = (32, 32),
    dist: bool = True,
    *,
    rng: str | None = None,
) -> nn.Module:
    """:func:`fastdd.compat.dc.get_network`, on the CPU unless ``dist``; ConvNets that vary in anything but depth are
    for 32x32 pixels, whatever ``im_size``."""
    if not {"depth"}.issuperset(convnet_setting(model) or {}) or model in ("ConvNetAR", "ConvNetIN", "ConvNetAP"):
        im_size = (32, 32)
    return dc.build(model, channel, num_classes, im_size, dist, rng, "DC error: unknown model")
