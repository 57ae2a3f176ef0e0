"""A small vision transformer (Dosovitskiy et al., ICLR 2021), of the sizes that DC-Bench evaluates with."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.models.network import Network

_HEADS, _HEAD_WIDTH = 8, 64
# Patches of the shorter side, at most: as many as DC-Bench's patches of 4 make of 32 pixels.
_PATCHES = 8


class _Layer(nn.Module):
    """Attention and a perceptron, each on normalised tokens and added to them (pre-norm)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        inner = _HEADS * _HEAD_WIDTH
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.qkv(self.norm1(tokens)).unflatten(-1, (3, _HEADS, _HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(attended)
        return tokens + self.mlp(self.norm2(tokens))


class ViT(Network):
    """Patches to tokens, ``depth`` layers of attention, and a linear layer on the class token.

    DC-Bench's sizes: patches of 4x4 pixels at 32x32 (here: the smallest of which the shorter side has at most 8), 512
    wide, 8 heads of 64, a hidden layer of 512, no bias in queries, keys and values, learned positions that start at a
    standard normal. Its dropout of 0.1 is left out: it would draw from the global generator. FairDD's ViTs of 1, 2 and
    3 layers (appendix Q) have no sizes in the paper; here they are as wide.

    Args:
        channels: image channels.
        num_classes: outputs.
        size: image height and width in pixels.
        depth: layers.
        width: of a token.

    Raises:
        ValueError: sides that no such patches make up.

    >>> ViT(3, 10, (32, 32)).embed(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 512])
    """

    def __init__(
        self, channels: int, num_classes: int, size: tuple[int, int] = (32, 32), depth: int = 6, width: int = 512
    ):
        super().__init__()
        common = math.gcd(*size)
        sides = (side for side in range(1, common + 1) if common % side == 0 and min(size) <= side * _PATCHES)
        patch = next(sides, min(size))
        if patch == min(size):
            raise ValueError(
                f"ViT can't cut images of {size[0]}x{size[1]} pixels into at most {_PATCHES} square patches a side; "
                "an MLP or a ResNet18 takes them"
            )
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        count = size[0] // patch * (size[1] // patch)
        # Embeddings, as their first values are standard normal: the class token's, and a position a token.
        self.start = nn.Embedding(1, width)
        self.positions = nn.Embedding(count + 1, width)
        self.layers = nn.Sequential(*(_Layer(width, width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.embedding_dim = width
        self.classifier = nn.Linear(width, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        start = self.start.weight.expand(len(tokens), 1, -1)
        return self.norm(self.layers(torch.cat([start, tokens], 1) + self.positions.weight)[:, 0])
