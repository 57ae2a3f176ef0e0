"""The ConvNet of the distillation literature (Gidaris and Komodakis 2018; Zhao et al. 2021)."""

from collections.abc import Callable

from torch import nn

from fastdd import ops
from fastdd.models.blocks import Blocks
from fastdd.models.network import FeatureNetwork, chosen, too_small

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "leakyrelu": lambda: nn.LeakyReLU(negative_slope=0.01),
    "swish": nn.SiLU,
}
# Instance norm is GroupNorm(C, C), as in the published code: affine, no running statistics, the same in train and eval.
NORMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "instancenorm": lambda c, h, w: nn.GroupNorm(c, c),
    "groupnorm": lambda c, h, w: nn.GroupNorm(4, c),
    "layernorm": lambda c, h, w: nn.LayerNorm([c, h, w]),
    "batchnorm": lambda c, h, w: nn.BatchNorm2d(c),
}
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "avgpooling": lambda: nn.AvgPool2d(2),
    "maxpooling": lambda: nn.MaxPool2d(2),
}


def convnet_features(
    channels: int, width: int, depth: int, activation: str, norm: str, pooling: str, size: tuple[int, int]
) -> tuple[Blocks, int, int]:
    """The layers of :class:`ConvNet` before the classifier, and height and width of what they return."""
    for what, value, known in (
        ("activation", activation, ACTIVATIONS),
        ("norm", norm, {**NORMS, "none": None}),
        ("pooling", pooling, {**POOLINGS, "none": None}),
    ):
        chosen(what, value, known)
    layers: list[nn.Module] = []
    inputs, (height, columns) = channels, size
    for block in range(depth):
        padding = 3 if block == 0 and channels == 1 else 1
        height, columns = height + 2 * padding - 2, columns + 2 * padding - 2
        layers.append(ops.Conv2d(inputs, width, kernel_size=3, padding=padding))
        if norm != "none":
            layers.append(NORMS[norm](width, height, columns))
        layers.append(ACTIVATIONS[activation]())
        if pooling != "none":
            layers.append(POOLINGS[pooling]())
            height, columns = height // 2, columns // 2
        inputs = width
    if height < 1 or columns < 1:
        side = max(1, 2**depth - (4 if channels == 1 else 0))
        raise too_small(size, f"a ConvNet of depth {depth}", (side, side))
    return Blocks(*layers), height, columns


class ConvNet(FeatureNetwork):
    """``depth`` blocks of 3x3 convolution, norm, activation and 2x2 pooling, then one linear layer.

    Layer order, ``state_dict`` keys (``features.0.weight`` ... ``classifier.bias``), parameter order and counts are
    those of the published code; a ConvNet of the default setting for 32x32 RGB images and 10 classes has 320,010
    parameters. The first convolution pads by 3 for one-channel images, so 28x28 digits become 32x32 (published
    quirk). Unlike the published code, which takes every 28x28 image for 32x32, the classifier's size follows from the
    true input size, so three-channel 28x28 images work.

    Args:
        channels: image channels.
        num_classes: outputs.
        width: filters a convolution.
        depth: blocks.
        activation: relu, sigmoid, leakyrelu or swish.
        norm: instancenorm, groupnorm, layernorm, batchnorm or none.
        pooling: avgpooling, maxpooling or none.
        size: image height and width in pixels.

    Raises:
        ValueError: an unknown activation, norm or pooling, or images too small for ``depth`` poolings.

    >>> net = ConvNet(3, 10)
    >>> sum(p.numel() for p in net.parameters())
    320010
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        width: int = 128,
        depth: int = 3,
        activation: str = "relu",
        norm: str = "instancenorm",
        pooling: str = "avgpooling",
        size: tuple[int, int] = (32, 32),
    ):
        super().__init__()
        self.features, height, columns = convnet_features(channels, width, depth, activation, norm, pooling, size)
        self.embedding_dim = width * height * columns
        self.classifier = nn.Linear(self.embedding_dim, num_classes)
