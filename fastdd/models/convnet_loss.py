"""The cross-entropy of a ConvNet: its gradient, and that gradient's derivative along a direction, in kept memory."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.models.blocks import pooling_of, untouched
from fastdd.models.convnet import ConvNet
from fastdd.ops._dispatch import transformed
from fastdd.ops.dual_blocks import FEWEST_CHANNELS, dual_block_ops


@dataclass(frozen=True)
class _Block:
    """Convolution (of images that are padded already), norm, ReLU and pooling."""

    inputs: int
    outputs: int
    convolved: tuple[int, int]  # height and width of the convolution's output
    pooled: tuple[int, int]  # of the block's
    eps: float
    pool: str


class _Parameters(NamedTuple):
    filters: Tensor
    shift: Tensor  # the convolution's bias, which the norm subtracts again
    weight: Tensor
    bias: Tensor


class _Activations(NamedTuple):
    """Of a block: its convolution's output, where it is kept, its own, and the norm's statistics; [2, N, ...], value
    and tangent."""

    z: Tensor | None
    y: Tensor
    stats: Tensor


class Along(NamedTuple):
    """What changes along a direction v of the parameters.

    Attributes:
        slope: scalar, v times the gradient.
        images: [N, C, H, W], the derivative of ``slope`` in the images.
        targets: [N, classes], in the targets, but for a constant a row.
    """

    slope: Tensor
    images: Tensor
    targets: Tensor


class ConvNetLoss:
    """Derivatives of a ConvNet's cross-entropy, of parameters that are one vector, by dual numbers.

    With v a direction of the parameters theta, and L the loss of images X, ``H v`` (H the Hessian of L) and the
    derivative of ``v . grad L`` in X are the tangents of L's gradients in theta and X where theta has the tangent v
    (:mod:`fastdd.reference.dual_blocks`). That takes 8 convolutions a layer, and the gradient alone 3, where the graph
    of a gradient and its derivative take 9 and 12.

    Every activation lies in memory that is allocated here, once, so that steps without number leave nothing behind in
    malloc's heap; a block's gradient takes the place of its activations. The first block's convolution, the largest
    tensor of the network, is not kept at all.

    Args:
        net: one that :meth:`fits`.
        images: [N, C, H, W], of the most images at a time, their size and dtype.

    Deterministic: two runs have the same bits, on any number of threads.
    """

    def __init__(self, net: ConvNet, images: torch.Size, dtype: torch.dtype):
        self._blocks, self._margin = _blocks(net, images)
        self._op = dual_block_ops(dtype)
        self._shapes = [p.shape for p in net.parameters()]
        self.most, self.classes = images[0], net.classifier.out_features
        self._memory = torch.empty(self.most * self.floats_of_an_image(net, images), dtype=dtype)
        self._part = torch.zeros(sum(map(math.prod, self._shapes)), dtype=dtype)

    @staticmethod
    def fits(net: nn.Module, images: Tensor) -> bool:
        """Whether this class does what ``net`` does on such images: a ConvNet of instance norm and ReLU on the CPU, in
        float64, or in float32 where the kernels take it, that nobody listens to."""
        if not (isinstance(net, ConvNet) and images.device.type == "cpu" and dual_block_ops(images.dtype)):
            return False
        if transformed() or torch.is_autocast_enabled("cpu") or nn.modules.module._has_any_global_hook():
            return False
        parts = net.features._parts()
        plain = all(len(part) >= 3 and pooling_of(*part[1:]) is not None and _is_plain(part[0]) for part in parts)
        if not plain or type(net.classifier) is not nn.Linear or net.classifier.bias is None:
            return False
        if not all(map(untouched, (net, net.features, net.classifier))):
            return False
        if any(part[0].padding != (1, 1) for part in parts[1:]) or parts[0][0].padding[0] < 1:
            return False
        widths = [part[0].in_channels for part in parts]
        native = widths[0] < FEWEST_CHANNELS <= min([parts[0][0].out_channels, *widths[1:]])
        return images.dtype == torch.float64 or native

    @staticmethod
    def floats_of_an_image(net: ConvNet, images: torch.Size) -> int:
        """Numbers that are kept of an image and its tangent."""
        blocks, _ = _blocks(net, images)
        kept = [
            block.outputs * (math.prod(block.pooled) + 2 + (math.prod(block.convolved) if i else 0))
            for i, block in enumerate(blocks)
        ]
        return 2 * sum(kept)

    def gradient(self, theta: Tensor, images: Tensor, targets: Tensor, size: int) -> Tensor:
        """[P], the gradient in theta of the cross-entropy summed over images [N, C, H, W] and divided by ``size``;
        overwritten by the next call. Targets are probabilities, [N, classes]."""
        parameters, out = self._split(theta), self._split(self._part)
        x, kept = self._forward(parameters, None, images)
        y = kept[-1].y[0].flatten(1)
        head, bias = self._head(theta)
        g = (torch.addmm(bias, y, head.T).softmax(1) - targets) / size
        self._to_head(g.T @ y, g.sum(0))
        torch.mm(g, head, out=y)
        self._backward(parameters, None, x, kept, out, None)
        return self._part

    def along(
        self, theta: Tensor, direction: Tensor, images: Tensor, targets: Tensor, size: int, *, curvature: bool
    ) -> tuple[Along, Tensor | None]:
        """What the same gradient does along a direction [P]: :class:`Along`, and, for ``curvature``, ``H v`` [P],
        overwritten by the next call."""
        parameters, tangents = self._split(theta), self._split(direction)
        x, kept = self._forward(parameters, tangents, images)
        y, dy = (half.flatten(1) for half in kept[-1].y)
        (head, bias), (dhead, dbias) = self._head(theta), self._head(direction)
        p = torch.addmm(bias, y, head.T).softmax(1)
        moved = torch.addmm(dbias, y, dhead.T).addmm_(dy, head.T)
        g = (p - targets) / size
        slope = (g * moved).sum()
        moved -= (p * moved).sum(1, keepdim=True)  # the tangent of the log-probabilities
        dg = p * moved / size
        if curvature:
            self._to_head((dg.T @ y).addmm_(g.T, dy), dg.sum(0))
        torch.mm(g, head, out=y)
        torch.mm(dg, head, out=dy).addmm_(g, dhead)
        to_x = torch.empty_like(x)
        self._backward(parameters, tangents, x, kept, self._split(self._part), to_x, curvature=curvature)
        margin = self._margin
        height, width = images.shape[-2:]
        to_x = to_x[:, margin : margin + height, margin : margin + width].permute(0, 3, 1, 2)
        return Along(slope, to_x, moved / -size), self._part if curvature else None

    def _split(self, theta: Tensor) -> list[_Parameters]:
        """Of every block."""
        parts = theta.split([math.prod(shape) for shape in self._shapes])
        views = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return [_Parameters(*views[4 * i : 4 * i + 4]) for i in range(len(self._blocks))]

    def _head(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier's weight, of features in channels-last order, and bias."""
        weight, bias = self._head_views(theta)
        return weight.permute(0, 2, 3, 1).flatten(1), bias

    def _head_views(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        classes, last = self._shapes[-1][0], self._blocks[-1]
        features = last.outputs * math.prod(last.pooled)
        weight, bias = theta[-classes * (features + 1) :].split([classes * features, classes])
        return weight.view(classes, last.outputs, *last.pooled), bias

    def _to_head(self, weight: Tensor, bias: Tensor) -> None:
        to_weight, to_bias = self._head_views(self._part)
        last = self._blocks[-1]
        to_weight.copy_(weight.view(-1, *last.pooled, last.outputs).permute(0, 3, 1, 2))
        to_bias.copy_(bias)

    def _activations(self, number: int) -> list[_Activations]:
        """Memory for a number of images."""
        taken = 0

        def take(*shape: int) -> Tensor:
            nonlocal taken
            start, taken = taken, taken + 2 * number * math.prod(shape)
            return self._memory[start:taken].view(2, number, *shape)

        kept = []
        for i, block in enumerate(self._blocks):
            z = take(*block.convolved, block.outputs) if i else None
            kept.append(_Activations(z, take(*block.pooled, block.outputs), take(2, block.outputs)))
        return kept

    def _forward(
        self, parameters: list[_Parameters], tangents: list[_Parameters] | None, images: Tensor
    ) -> tuple[Tensor, list[_Activations]]:
        """The images as the first block reads them, and what is kept of every block."""
        x = F.pad(images, (self._margin,) * 4) if self._margin else images
        x, kept = x.permute(0, 2, 3, 1).contiguous(), self._activations(len(images))
        for i, (block, (z, y, stats)) in enumerate(zip(self._blocks, kept, strict=True)):
            own, along = parameters[i], tangents[i] if tangents else _NONE
            norm = own.weight, along.weight, own.bias, along.bias, block.eps, block.pool
            results = y[0], y[1] if tangents else None, stats[0], stats[1] if tangents else None
            if i == 0:
                self._op("first_block")(x, own.filters, along.filters, *norm, *results)
                continue
            before, pair = kept[i - 1].y, (z[0], z[1] if tangents else None)
            inputs = before[0], before[1] if tangents else None
            self._op("conv3x3")(*inputs, own.filters, along.filters, False, *pair)
            self._op("norm_act_pool")(*pair, *norm, *results)
        return x, kept

    def _backward(
        self,
        parameters: list[_Parameters],
        tangents: list[_Parameters] | None,
        x: Tensor,
        kept: list[_Activations],
        out: list[_Parameters],
        to_x: Tensor | None,
        *,
        curvature: bool = True,
    ) -> None:
        """From the gradient of the last block, which lies where its output was. Without ``curvature`` filters get
        none."""
        for i in reversed(range(len(self._blocks))):
            block, (z, y, stats) = self._blocks[i], kept[i]
            own, along = parameters[i], tangents[i] if tangents else _NONE
            norm = own.weight, along.weight, own.bias, along.bias, block.pool
            known = stats[0], stats[1] if tangents else None
            gradient = y[0], y[1] if tangents else None
            to_norm = out[i].weight, out[i].bias
            if i == 0:
                to_filters = out[i].filters if curvature else None
                images = x, own.filters, along.filters
                self._op("first_block_backward")(*gradient, *images, *norm, *known, to_x, to_filters, *to_norm)
                return
            pair, before = (z[0], z[1] if tangents else None), kept[i - 1].y
            inputs = before[0], before[1] if tangents else None
            self._op("norm_act_pool_backward")(*gradient, *pair, *norm, *known, *to_norm)
            if curvature:
                self._op("conv3x3_weight")(*inputs, *pair, out[i].filters)
            self._op("conv3x3")(*pair, own.filters, along.filters, True, *inputs)


_NONE = _Parameters(None, None, None, None)  # the tangents of values alone


def _is_plain(conv: nn.Module) -> bool:
    """Whether the layer is a 3x3 convolution and nothing else."""
    return (
        isinstance(conv, nn.Conv2d)
        and untouched(conv)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.bias is not None
        and not isinstance(conv.padding, str)
        and conv.padding[0] == conv.padding[1]
    )


def _blocks(net: ConvNet, images: torch.Size) -> tuple[list[_Block], int]:
    """The blocks, and the zeros around images that padding by 1 leaves out."""
    parts = net.features._parts()
    margin = parts[0][0].padding[0] - 1
    height, width = (side + 2 * margin for side in images[-2:])
    blocks = []
    for conv, norm, *tail in parts:
        pool = pooling_of(norm, *tail)
        pooled = (height, width) if pool == "none" else (height // 2, width // 2)
        blocks.append(_Block(conv.in_channels, conv.out_channels, (height, width), pooled, norm.eps, pool))
        height, width = pooled
    return blocks, margin
