"""3x3 convolution, forward and backward: what training a ConvNet spends its time on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.ops import _dispatch
from fastdd.ops.by_segment import BySegment, NotBySegment
from fastdd.reference import conv3x3 as reference

_KERNELS = {"cpu": "native", "cuda": "triton"}


def _triton(name: str, *arguments):
    from fastdd.kernels import conv3x3 as kernels

    return getattr(kernels, name)(*arguments)


def _launch(x: Tensor, filters: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    if not (split_takes(filters) and x.numel()):
        return reference.conv3x3(x, filters, bias, adjoint)
    return _triton("conv3x3", x, filters, bias, adjoint)


def _launch_weight(x: Tensor, g: Tensor) -> Tensor:
    if not (_triton("takes", x.dtype, x.shape[3], g.shape[3]) and x.numel()):
        return reference.conv3x3_weight(x, g)
    return _triton("conv3x3_weight", x, g)


def why_not_split() -> str:
    """Why GPUs run cuDNN's convolutions and not the Triton kernels; empty if those are chosen."""
    from fastdd.kernels.config import convolutions

    return "" if convolutions() == "split" else "cudnn is chosen; FASTDD_CONVOLUTIONS=split, which never ran on a GPU"


_CONV = _dispatch.define(
    "conv3x3(Tensor x, Tensor filters, Tensor? bias, bool adjoint) -> Tensor", reference.conv3x3, _KERNELS
)
_WEIGHT = _dispatch.define("conv3x3_weight(Tensor x, Tensor g) -> Tensor", reference.conv3x3_weight, _KERNELS)
_dispatch.register_triton(_CONV, _launch)
_dispatch.register_triton(_WEIGHT, _launch_weight)
for _name in (_CONV, _WEIGHT):
    _dispatch.only_when(_name, "cuda", why_not_split)


def _conv_fake(x, filters, bias, adjoint):
    return x.new_empty((*x.shape[:3], filters.shape[1 if adjoint else 0]))


def _weight_fake(x, g):
    return x.new_empty((g.shape[3], x.shape[3], 3, 3))


def _conv_setup(ctx, inputs, output):
    x, filters, _, ctx.adjoint = inputs
    ctx.save_for_backward(x, filters)


def _conv_backward(ctx, g):
    (x, filters), needs = ctx.saved_tensors, ctx.needs_input_grad
    convolve, weight = _dispatch.peer(ctx, "conv3x3"), _dispatch.peer(ctx, "conv3x3_weight")
    to_x = convolve(g, filters, None, not ctx.adjoint) if needs[0] else None
    to_filters = weight(*((g, x) if ctx.adjoint else (x, g))) if needs[1] else None
    return to_x, to_filters, g.sum((0, 1, 2)) if needs[2] else None, None


def _weight_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _weight_backward(ctx, v):
    (x, g), needs = ctx.saved_tensors, ctx.needs_input_grad
    convolve = _dispatch.peer(ctx, "conv3x3")
    to_x = convolve(g, v, None, True) if needs[0] else None
    return to_x, convolve(x, v, None, False) if needs[1] else None


_dispatch.register_fake(_CONV, _conv_fake)
_dispatch.register_fake(_WEIGHT, _weight_fake)
_dispatch.register_autograd(_CONV, _conv_backward, _conv_setup)
_dispatch.register_autograd(_WEIGHT, _weight_backward, _weight_setup)


@_dispatch.public
def conv3x3(x: Tensor, filters: Tensor, bias: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """``conv2d(x, filters, bias, padding=1)`` for 3x3 filters, forward and backward.

    On the CPU, in float32, the C++ kernels take Winograd's F(2x2, 3x3) (Lavin and Gray, CVPR 2016) from 16 channels on,
    for the output, the data gradient (the same with the filters turned round) and the weight gradient
    ``dw = G' [sum over tiles of (B' d B) * (A g A')] G``: 16 multiplications a tile and pair of channels, where 36 are
    needed directly. From 64 channels on, output and data gradient of images of 7x7 pixels and more take F(2x4, 3x3),
    24 multiplications where 72 are needed, with points 0, 21/32, -21/32, 3/2 and -3/2, and sums of 16 channels at a
    time. Below 16 channels they are direct. The rounding error is at most twice a direct convolution's. To fewer than 8
    channels, as in the gradient of a network's images, every pixel's products with all taps are gathered by its
    neighbours.

    On GPUs it is cuDNN's. There are Triton kernels for float32 and channels in multiples of 16, which take float32
    apart into three bfloat16 parts and sum the six largest of nine products on the tensor cores: float32's error, and
    by the ceilings 2.5 times its speed. They have never run on a GPU: FASTDD_CONVOLUTIONS=split chooses them
    (``cudnn`` is the default, in kernels/config.py), or ``backend``. An infinity, or a number above 3.38e38, may give
    NaN there, and parts below 1e-38 are lost.

    Args:
        x: [N, I, H, W], floating point; fastest in channels-last memory, which it is brought into.
        filters: [O, I, 3, 3], of x's dtype.
        bias: [O], of x's dtype.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [N, O, H, W] in channels-last memory.

    Differentiable any number of times, in all three.

    Raises:
        ValueError, TypeError: a shape, dtype or device that does not fit.
        RuntimeError: a backend asked for by name that can't run here.

    Two runs of the C++ and of the Triton kernels are bitwise equal, and do not depend on the number of threads. Cost:
    three times ``9 N H W I O`` multiplications forward and backward, 2.25 or 3 times fewer by Winograd, 6 times as many
    (of bfloat16) by parts; scratch memory of 16/9 or 8/3 of the filters', and about 1 MB a thread for 128 channels; by
    parts, 1.5 times that of the inputs.

    >>> conv3x3(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
    tensor([[[[4., 6., 4.],
              [6., 9., 6.],
              [4., 6., 4.]]]])
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, not {x.dtype}")
    if x.dim() != 4:
        raise ValueError(f"x must be [N, I, H, W], not {list(x.shape)}")
    if 0 in x.shape[2:]:
        raise ValueError(f"x has images of no pixels: {list(x.shape)}")
    if filters.dim() != 4 or filters.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(f"filters must be [O, {x.shape[1]}, 3, 3], not {list(filters.shape)}")
    if bias is not None and bias.shape != filters.shape[:1]:
        raise ValueError(f"bias must be [{filters.shape[0]}], not {list(bias.shape)}")
    for name, value in (("filters", filters), ("bias", bias)):
        if value is not None and value.dtype != x.dtype:
            raise TypeError(f"{name} are {value.dtype} and x is {x.dtype}: convert one of them")
        if value is not None and value.device != x.device:
            raise ValueError(f"{name} are on {value.device} and x on {x.device}: move one of them")
    chosen = _dispatch.choose("conv3x3", backend, x.device)
    by_parts = chosen == "interpret" or (chosen == "dispatch" and x.device.type == "cuda")
    if chosen == "reference" or x.dtype != torch.float32 or (by_parts and not split_takes(filters)):
        return F.conv2d(x, filters, bias, padding=1)
    run = _dispatch.interpreted("conv3x3") if chosen == "interpret" else torch.ops.fastdd.conv3x3
    return run(x.permute(0, 2, 3, 1), filters, bias, False).permute(0, 3, 1, 2)


def split_takes(filters: Tensor) -> bool:
    """Whether the Triton kernels have these filters' dtype and numbers of channels; only where they are chosen."""
    return _triton("takes", filters.dtype, *filters.shape[:2])


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` that runs as :func:`conv3x3` where that is faster: 3x3 filters, float32, on the CPU; on GPUs, where
    its kernels are chosen.

    The same parameters, initialisation, state_dict and result. Anything else (other dtypes, autocast, transforms of
    torch.func, another kernel size, stride, dilation or padding mode, FASTDD_BACKEND=reference, no extension) is
    ``nn.Conv2d``. So is a layer with forward hooks: who looks at its output may not need the gradient of its filters,
    which only PyTorch's own convolution then leaves out. On GPUs they may say so.

    Attributes:
        filters_constant: whether nobody asks for a gradient of filters and bias (:func:`fastdd.ops.group_grad` has its
            own way to them).
        by_segment: what takes the filters' gradients per segment, while :func:`fastdd.ops.group_grad` wants them so.
    """

    filters_constant = False
    by_segment: BySegment | None = None

    def fits(self, x: Tensor) -> bool:
        """Whether x goes through :func:`conv3x3`'s own kernels."""
        return (
            isinstance(x, Tensor)
            and x.layout == torch.strided
            and x.device.type in ("cpu", "cuda")
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled(x.device.type)
            and not _dispatch.transformed()
            and (not self._forward_hooks or self._constant_for(x))
            and self.kernel_size == (3, 3)
            and self.stride == self.dilation == (1, 1)
            and self.groups == 1
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and self.padding[0] == self.padding[1] >= 1
            and x.dim() == 4
            and _dispatch.has_kernel("conv3x3", x.device)
            and _dispatch.choose("conv3x3", "auto", x.device) == "dispatch"
            and (x.device.type == "cpu" or split_takes(self.weight))
        )

    def padded(self, x: Tensor) -> Tensor:
        """x with the zeros around it that padding by 1 leaves out."""
        more = self.padding[0] - 1
        return F.pad(x, (more,) * 4) if more else x

    def forward(self, x: Tensor) -> Tensor:
        if not self.fits(x):
            if self.by_segment is not None:
                raise NotBySegment
            return super().forward(x)
        if self.by_segment is not None:
            return self.by_segment.conv3x3(self.padded(x).permute(0, 2, 3, 1), self.bias).permute(0, 3, 1, 2)
        filters, bias = self.weight, self.bias
        if self._constant_for(x):
            filters, bias = filters.detach(), None if bias is None else bias.detach()
        return conv3x3(self.padded(x), filters, bias)

    def _constant_for(self, x: Tensor) -> bool:
        # Through x the output is part of a graph, of which group_grad takes the gradient.
        return self.filters_constant and x.requires_grad and x.device.type == "cuda"


def runs_as_conv3x3(layer: nn.Module) -> bool:
    """Whether a call of the layer is :meth:`Conv2d.forward`, and no subclass's."""
    return type(layer).forward is Conv2d.forward
