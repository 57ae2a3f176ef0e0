"""MLP, LeNet, AlexNet and VGG as the distillation literature has them: for small images, heads of the images' size.

Sizes, layer order, ``state_dict`` keys and parameter order are those of the published code (Zhao et al., 2021), which
writes the heads for 32x32 pixels (28x28 of one channel; FairDD's for 64x64); here they follow from the images. Of
smaller ones, AlexNet and VGG leave out poolings that would leave less than 2 pixels to the layers behind.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import ops
from fastdd.models.blocks import Blocks
from fastdd.models.network import (
    INSTANCE_OR_BATCH_NORM,
    FeatureNetwork,
    Network,
    chosen,
    halves,
    output_size,
    too_small,
)

_MLP_UNITS = 128
_LENET_UNITS = 120, 84
# Channels, kernel size and padding of a convolution; "M": 2x2 max pooling.
_ALEXNET = ((128, 5, 2), "M", (192, 5, 2), "M", (256, 3, 1), (192, 3, 1), (192, 3, 1), "M")
VGG_LAYERS: dict[str, tuple[int | str, ...]] = {
    "VGG11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "VGG13": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "VGG16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    "VGG19": (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}


class MLP(Network):
    """Three linear layers, ``fc_1`` to ``fc_3``, of 128 hidden units, with ReLU; embeds to the last hidden units."""

    head = "fc_3"
    embedding_dim = _MLP_UNITS

    def __init__(self, channels: int, num_classes: int, size: tuple[int, int] = (32, 32)):
        super().__init__()
        self.fc_1 = nn.Linear(channels * size[0] * size[1], _MLP_UNITS)
        self.fc_2 = nn.Linear(_MLP_UNITS, _MLP_UNITS)
        self.fc_3 = nn.Linear(_MLP_UNITS, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        return F.relu(self.fc_2(F.relu(self.fc_1(images.flatten(1)))))


class LeNet(FeatureNetwork):
    """Two convolutions of 6 and 16 5x5 filters, each with ReLU and 2x2 max pooling, and linear layers of 120 and 84
    units, ``fc_1`` to ``fc_3``; embeds to the last hidden units. One-channel images are padded by 2.

    Raises:
        ValueError: images too small for it.
    """

    head = "fc_3"
    embedding_dim = _LENET_UNITS[1]

    def __init__(self, channels: int, num_classes: int, size: tuple[int, int] = (32, 32)):
        super().__init__()
        self.features = Blocks(
            nn.Conv2d(channels, 6, 5, padding=2 if channels == 1 else 0),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        height, width = output_size(self.features, size)
        if min(height, width) < 1:
            smallest = next(n for n in range(1, 32) if min(output_size(self.features, (n, n))) > 0)
            raise too_small(size, "LeNet", (smallest, smallest))
        self.fc_1 = nn.Linear(16 * height * width, _LENET_UNITS[0])
        self.fc_2 = nn.Linear(*_LENET_UNITS)
        self.fc_3 = nn.Linear(_LENET_UNITS[1], num_classes)

    def embed(self, images: Tensor) -> Tensor:
        return F.relu(self.fc_2(F.relu(self.fc_1(super().embed(images)))))


def _features(layers: Sequence, channels: int, norm: str, size: tuple[int, int]) -> list[nn.Module]:
    """Convolution, norm and ReLU for each of the layers but the poolings. The first convolution pads by two more for
    one-channel images, which makes 28x28 digits 32x32."""
    made: list[nn.Module] = []
    inputs, sides = channels, list(size)
    for i, layer in enumerate(layers):
        if layer == "M":
            least = 1 if set(layers[i:]) == {"M"} else 2
            windows = tuple(halves(side, least) for side in sides)
            made.append(nn.MaxPool2d(windows))
            sides = [side // window for side, window in zip(sides, windows, strict=True)]
            continue
        outputs, kernel, padding = layer
        padding += 2 if channels == 1 and not made else 0
        sides = [side + 2 * padding - kernel + 1 for side in sides]
        made.append(ops.Conv2d(inputs, outputs, kernel, padding=padding))
        if norm != "none":
            made.append(INSTANCE_OR_BATCH_NORM[norm](outputs))
        made.append(nn.ReLU(inplace=True))
        inputs = outputs
    return made


class AlexNet(FeatureNetwork):
    """Convolutions of 128 and 192 5x5 and of 256, 192 and 192 3x3 filters, three 2x2 max poolings, and ``fc``.

    Args:
        channels, num_classes, size: as those of :class:`fastdd.models.ConvNet`.
        norm: none, or batchnorm (AlexNetBN) or instancenorm after every convolution.

    Raises:
        ValueError: an unknown norm.
    """

    head = "fc"

    def __init__(self, channels: int, num_classes: int, norm: str = "none", size: tuple[int, int] = (32, 32)):
        super().__init__()
        chosen("norm", norm, {**INSTANCE_OR_BATCH_NORM, "none": None})
        self.features = Blocks(*_features(_ALEXNET, channels, norm, size))
        height, width = output_size(self.features, size)
        self.embedding_dim = 192 * height * width
        self.fc = nn.Linear(self.embedding_dim, num_classes)


class VGG(FeatureNetwork):
    """3x3 convolutions, each with norm and ReLU, five 2x2 max poolings, and one linear layer.

    Args:
        name: VGG11, VGG13, VGG16 or VGG19.
        channels, num_classes, size: as those of :class:`fastdd.models.ConvNet`.
        norm: instancenorm (which the published VGG11 has) or batchnorm.

    Raises:
        ValueError: an unknown name or norm; images of a single pixel.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        num_classes: int,
        norm: str = "instancenorm",
        size: tuple[int, int] = (32, 32),
    ):
        super().__init__()
        chosen("norm", norm, INSTANCE_OR_BATCH_NORM)
        layers = [layer if layer == "M" else (layer, 3, 1) for layer in VGG_LAYERS[chosen("VGG", name, VGG_LAYERS)]]
        # The published list ends with a pooling over 1x1, which does nothing but have a number.
        self.features = Blocks(*_features(layers, channels, norm, size), nn.AvgPool2d(1))
        if norm == "instancenorm" and channels > 1 and size[0] * size[1] == 1:
            raise too_small(size, name, (2, 2))
        height, width = output_size(self.features, size)
        self.embedding_dim = 512 * height * width
        self.classifier = nn.Linear(self.embedding_dim, num_classes)
