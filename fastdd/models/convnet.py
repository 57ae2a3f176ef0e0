"""The ConvNet of the distillation literature (Gidaris and Komodakis 2018; Zhao et al. 2021)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.models.layout import fast_layout

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


class ConvNet(nn.Module):
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
        for what, value, known in (
            ("activation", activation, [*ACTIVATIONS]),
            ("norm", norm, [*NORMS, "none"]),
            ("pooling", pooling, [*POOLINGS, "none"]),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; one of: {', '.join(known)}")
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
            raise ValueError(
                f"images of {size[0]}x{size[1]} pixels are too small for {depth} poolings; lower the depth"
            )
        self.features = nn.Sequential(*layers)
        # Instance norm, ReLU and pooling run as one op, which reads the convolution's output once.
        fused = norm == "instancenorm" and activation == "relu"
        self._fused_pool = {"avgpooling": "avg", "maxpooling": "max", "none": "none"}[pooling] if fused else None
        self.embedding_dim = width * height * columns
        self.classifier = nn.Linear(self.embedding_dim, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """The flattened features before the classifier, [N, embedding_dim]: what distribution matching matches."""
        x = fast_layout(images)
        if self._fused_pool is None:
            return self.features(x).flatten(1)
        layers = iter(self.features)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                norm = next(layers)
                tail = norm.weight, norm.bias
                if layer.fits(x) and not x.requires_grad:
                    x = ops.conv_norm_act_pool(
                        layer.padded(x), layer.weight, *tail, shift=layer.bias, eps=norm.eps, pool=self._fused_pool
                    )
                else:
                    x = ops.norm_act_pool(layer(x), *tail, eps=norm.eps, pool=self._fused_pool)
        return x.flatten(1)

    def embedder(self, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
        """:meth:`embed` for many calls with the parameters as they are now, without gradients.

        The filters are prepared once. In ``dtype`` (default: the parameters' own) where one is given; images must then
        have it too. The biases of convolutions are left out where a norm subtracts them again.
        """
        dtype = dtype or self.classifier.weight.dtype
        if self._fused_pool is None:
            net = self if dtype == self.classifier.weight.dtype else copy.deepcopy(self).to(dtype)
            return torch.no_grad()(net.embed)
        layers = iter(self.features)
        blocks = []
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                norm = next(layers)
                filters = layer.weight.detach().to(dtype)
                blocks.append(
                    ops.ConvBlock(
                        filters,
                        norm.weight,
                        norm.bias,
                        padding=layer.padding[0],
                        eps=norm.eps,
                        pool=self._fused_pool,
                    )
                )

        def embed(images: Tensor) -> Tensor:
            x = fast_layout(images)
            for block in blocks:
                x = block(x)
            return x.flatten(1)

        return embed

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes] of normalised images [N, C, H, W]."""
        return self.classifier(self.embed(images))
