"""What the networks have in common: a linear layer on an embedding, which is what distribution matching matches."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastdd.core.text import one_of
from fastdd.models.blocks import Blocks
from fastdd.models.layout import Images, chunk_size, fast_layout

INSTANCE_OR_BATCH_NORM: dict[str, Callable[[int], nn.Module]] = {
    "instancenorm": lambda c: nn.GroupNorm(c, c),
    "batchnorm": nn.BatchNorm2d,
}


def chosen(what: str, value: str, known: dict) -> str:
    """``value``; ValueError where it is none of ``known``."""
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; {one_of(value, known)}")
    return value


class Network(nn.Module):
    """Images to logits: ``embed``, then the linear layer that ``head`` names.

    Attributes:
        embedding_dim: of what :meth:`embed` returns.
    """

    head = "classifier"
    embedding_dim: int

    def embed(self, images: Tensor) -> Tensor:
        """The features before the last layer, [N, embedding_dim]: what distribution matching matches."""
        raise NotImplementedError

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """What every activation of the features returns, [N, channels, h, w], in order, and :meth:`embed`.

        Raises:
            ValueError: a network without such a sequence of layers.
        """
        raise ValueError(f"{type(self).__name__} has no feature maps in sequence: take a ConvNet")

    def embedder(self, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
        """:meth:`embed` for many calls, until the parameters change, without gradients.

        In ``dtype`` (default: the parameters' own) where one is given; images must then have it too.
        """
        return torch.no_grad()(self._in_dtype(dtype).embed)

    def prepared_stages(self, dtype: torch.dtype | None = None) -> Callable[[Tensor], tuple[list[Tensor], Tensor]]:
        """:meth:`stages` as :meth:`embedder` is :meth:`embed`."""
        return torch.no_grad()(self._in_dtype(dtype).stages)

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(self, self.head).weight.dtype

    def _in_dtype(self, dtype: torch.dtype | None) -> "Network":
        return self if dtype in (None, self._dtype) else copy.deepcopy(self).to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes] of normalised images [N, C, H, W]."""
        return getattr(self, self.head)(self.embed(images))


class FeatureNetwork(Network):
    """A network whose embedding is what ``features``, layers one after the other, make of the images, flattened."""

    features: Blocks

    def embed(self, images: Tensor) -> Tensor:
        return self.features(fast_layout(images)).flatten(1)

    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        maps, features = self.features.stages(fast_layout(images))
        return maps, features.flatten(1)

    def embedder(self, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
        """:meth:`Network.embedder`; filters are prepared once where every layer is part of a fused block."""
        features = self.features.prepared(dtype or self._dtype)
        if features is None:
            return super().embedder(dtype)
        return lambda images: features(fast_layout(images)).flatten(1)

    def prepared_stages(self, dtype: torch.dtype | None = None) -> Callable[[Tensor], tuple[list[Tensor], Tensor]]:
        stages = self.features.prepared_stages(dtype or self._dtype)
        if stages is None:
            return super().prepared_stages(dtype)

        def flattened(images: Tensor) -> tuple[list[Tensor], Tensor]:
            maps, features = stages(fast_layout(images))
            return maps, features.flatten(1)

        return flattened


def embedder_chunk(net: nn.Module, images: Images, dtype: torch.dtype | None = None) -> int:
    """How many of the images to put through ``net.embedder(dtype)`` at once: :func:`chunk_size`, or four times as many
    where the first block's activations stay in the core's cache and a quarter of them, pooled, is written.

    A step of DM with chunks of 128 images for 32 in bfloat16 takes 0.92 of the time, of 64 for 16 in float32 0.94.
    """
    size = chunk_size(net, images, dtype or torch.float32)
    return 4 * size if isinstance(net, FeatureNetwork) and net.features.writes_pooled(dtype or net._dtype) else size


def couples_samples(net: nn.Module) -> bool:
    """Whether the network's output for an image depends on the rest of its batch (batch norm in training mode)."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules())


def too_small(size: tuple[int, int], name: str, smallest: tuple[int, int]) -> ValueError:
    """What to raise for images that a network can't take; ``smallest`` are some that it can."""
    depth = min(size).bit_length() - 1
    fits = f"a ConvNet of depth {depth}" if depth else "an MLP"
    return ValueError(
        f"images of {size[0]}x{size[1]} pixels are too small for {name}, which takes {smallest[0]}x{smallest[1]} and "
        f"more; {fits} takes them"
    )


def halves(side: int, least: int = 2) -> int:
    """By what a 2x2 pooling divides a side: by 1, where a half would be below ``least`` pixels.

    The least is 2 where layers follow: instance norm of a single pixel is 0, whatever the image.

    >>> [halves(side) for side in (3, 4)], halves(2, least=1)
    ([1, 2], 2)
    """
    return 2 if side // 2 >= least else 1


def output_size(layers: nn.Sequential, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what convolutions and poolings make of images of ``size``; below 1 where they can't."""
    height, width = size
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            kernels, strides, paddings = (
                value if isinstance(value, tuple) else (value, value)
                for value in (layer.kernel_size, layer.stride, layer.padding)
            )
            height, width = (
                (side + 2 * padding - kernel) // stride + 1
                for side, kernel, stride, padding in zip((height, width), kernels, strides, paddings, strict=True)
            )
    return height, width
