"""Grouped matrix products: the weight gradients of linear layers and convolutions, summed per segment of samples.

The inner ops of :func:`fastdd.ops.group_grad`. ``grouped_outer`` is linear in each of its three arguments, and its
derivatives are ``grouped_matmul``, whose derivatives are both again: closed under differentiation. So are
``grouped_conv_weight`` and ``grouped_conv``, which convolves every image by its segment's filters.
"""

import functools

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.ops.segment_mean import check_segments
from fastdd.reference import group_grad as reference
from fastdd.reference.segment_mean import accumulation_dtype

# CPUs run the reference: its products are MKL's and oneDNN's.
_KERNELS = {"cuda": "triton"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _triton(name: str, *arguments):
    from fastdd.kernels import group_grad as kernels

    return getattr(kernels, name)(*arguments)


def _launch_outer(a: Tensor, b: Tensor, weights: Tensor | None, offsets: Tensor, rows: int) -> Tensor:
    return _triton("grouped_outer", a, b, weights, offsets, rows)


def _launch_matmul(x: Tensor, g: Tensor, weights: Tensor | None, offsets: Tensor, rows: int) -> Tensor:
    return _triton("grouped_matmul", x, g, weights, offsets, rows)


def _launch_conv(x: Tensor, b: Tensor, offsets: Tensor, kernel, stride, padding, dilation, groups: int) -> Tensor:
    return _triton("grouped_conv_weight", x, b, offsets, kernel, stride, padding, dilation, groups)


_OUTER = _dispatch.define(
    "grouped_outer(Tensor a, Tensor b, Tensor? weights, Tensor offsets, SymInt rows) -> Tensor",
    reference.grouped_outer,
    _KERNELS,
)
_MATMUL = _dispatch.define(
    "grouped_matmul(Tensor x, Tensor g, Tensor? weights, Tensor offsets, SymInt rows) -> Tensor",
    reference.grouped_matmul,
    _KERNELS,
)
_CONV = _dispatch.define(
    "grouped_conv_weight(Tensor x, Tensor b, Tensor offsets, int[] kernel, int[] stride, int[] padding, "
    "int[] dilation, int groups) -> Tensor",
    reference.grouped_conv_weight,
    _KERNELS,
)
_CONVOLVE = _dispatch.define(
    "grouped_conv(Tensor x, Tensor g, Tensor offsets, SymInt[] size, int[] stride, int[] padding, int[] dilation,"
    " int groups, bool adjoint) -> Tensor",
    reference.grouped_conv,
    _KERNELS,
)
_dispatch.register_triton(_CONVOLVE, functools.partial(_triton, "grouped_conv"))
_dispatch.register_triton(_OUTER, _launch_outer)
_dispatch.register_triton(_MATMUL, _launch_matmul)
_dispatch.register_triton(_CONV, _launch_conv)


def _outer_fake(a, b, weights, offsets, rows):
    return a.new_empty((offsets.shape[0] - 1, b.shape[1], a.shape[1]), dtype=accumulation_dtype(a.dtype))


def _matmul_fake(x, g, weights, offsets, rows):
    return g.new_empty((x.shape[0], g.shape[2]))


def _conv_fake(x, b, offsets, kernel, stride, padding, dilation, groups):
    shape = (offsets.shape[0] - 1, b.shape[1], x.shape[1] // groups, *kernel)
    return x.new_empty(shape, dtype=accumulation_dtype(x.dtype))


def _convolve_fake(x, g, offsets, size, stride, padding, dilation, groups, adjoint):
    return g.new_empty((x.shape[0], groups * g.shape[2] if adjoint else g.shape[1], *size))


def _by_sample(products: Tensor, rows: int) -> Tensor:
    """Sum of every sample's rows; [N * rows, M] -> [N]."""
    return products.sum(1).unflatten(0, (-1, rows)).sum(1)


def _weighted(x: Tensor, weights: Tensor | None, rows: int) -> Tensor:
    return x if weights is None else x * weights.to(x.dtype).repeat_interleave(rows)[:, None]


def _outer_setup(ctx, inputs, output):
    a, b, weights, offsets, ctx.rows = inputs
    ctx.save_for_backward(a, b, weights, offsets)


def _outer_backward(ctx, g):
    a, b, weights, offsets = ctx.saved_tensors
    da = db = dw = None
    if ctx.needs_input_grad[0]:
        da = torch.ops.fastdd.grouped_matmul(b, g, weights, offsets, ctx.rows).to(a.dtype)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        plain = torch.ops.fastdd.grouped_matmul(a, g.mT, None, offsets, ctx.rows)
        if ctx.needs_input_grad[1]:
            db = _weighted(plain, weights, ctx.rows).to(b.dtype)
        if ctx.needs_input_grad[2]:
            dw = _by_sample(plain * b, ctx.rows).to(weights.dtype)
    return da, db, dw, None, None


def _matmul_setup(ctx, inputs, output):
    x, g, weights, offsets, ctx.rows = inputs
    ctx.save_for_backward(x, g, weights, offsets)


def _matmul_backward(ctx, dy):
    x, g, weights, offsets = ctx.saved_tensors
    dx = dg = dw = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.fastdd.grouped_matmul(dy, g.mT, weights, offsets, ctx.rows).to(x.dtype)
    if ctx.needs_input_grad[1]:
        dg = torch.ops.fastdd.grouped_outer(dy, x.to(dy.dtype), weights, offsets, ctx.rows)
    if ctx.needs_input_grad[2]:
        plain = torch.ops.fastdd.grouped_matmul(x, g, None, offsets, ctx.rows)
        dw = _by_sample(plain * dy, ctx.rows).to(weights.dtype)
    return dx, dg, dw, None, None


def _conv_setup(ctx, inputs, output):
    x, b, offsets, *ctx.geometry, ctx.groups = inputs
    ctx.save_for_backward(x, b, offsets)


def _conv_backward(ctx, g):
    x, b, offsets = ctx.saved_tensors
    _, *geometry = ctx.geometry
    dx = db = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.fastdd.grouped_conv(b, g, offsets, x.shape[2:], *geometry, ctx.groups, True).to(x.dtype)
    if ctx.needs_input_grad[1]:
        db = torch.ops.fastdd.grouped_conv(x, g, offsets, b.shape[2:], *geometry, ctx.groups, False).to(b.dtype)
    return dx, db, *(None,) * 6


def _convolve_setup(ctx, inputs, output):
    x, g, offsets, ctx.size, *ctx.geometry, ctx.adjoint = inputs
    ctx.save_for_backward(x, g, offsets)


def _convolve_backward(ctx, dy):
    x, g, offsets = ctx.saved_tensors
    dx = dg = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.fastdd.grouped_conv(dy, g, offsets, x.shape[2:], *ctx.geometry, not ctx.adjoint).to(x.dtype)
    if ctx.needs_input_grad[1]:
        pair = (dy, x.to(dy.dtype)) if ctx.adjoint else (x.to(dy.dtype), dy)
        dg = torch.ops.fastdd.grouped_conv_weight(*pair, offsets, g.shape[3:], *ctx.geometry)
    return dx, dg, *(None,) * 7


_dispatch.register_fake(_CONVOLVE, _convolve_fake)
_dispatch.register_autograd(_CONVOLVE, _convolve_backward, _convolve_setup)
_dispatch.register_fake(_OUTER, _outer_fake)
_dispatch.register_fake(_MATMUL, _matmul_fake)
_dispatch.register_fake(_CONV, _conv_fake)
_dispatch.register_autograd(_OUTER, _outer_backward, _outer_setup)
_dispatch.register_autograd(_MATMUL, _matmul_backward, _matmul_setup)
_dispatch.register_autograd(_CONV, _conv_backward, _conv_setup)


def _check_rows(what: str, x: Tensor, rows_per_sample: int) -> int:
    """Number of samples."""
    if x.dtype not in _FLOATS:
        raise TypeError(f"{what} must be float32, float64, bfloat16 or float16, not {x.dtype}")
    if x.dim() != 2:
        raise ValueError(f"{what} must have two dimensions, rows and columns, not {list(x.shape)}")
    if rows_per_sample < 1 or len(x) % rows_per_sample:
        raise ValueError(f"{what} has {len(x)} rows, which is no multiple of rows_per_sample={rows_per_sample}")
    return len(x) // rows_per_sample


def _same(what: str, x: Tensor, other: Tensor) -> None:
    if x.dtype != other.dtype or x.device != other.device:
        raise ValueError(
            f"{what} must be of one dtype and device, not {x.dtype} on {x.device} and {other.dtype} on {other.device}"
        )


def _run(name: str, backend: str, *arguments) -> Tensor:
    chosen = _dispatch.choose(name, backend, arguments[0].device)
    if chosen == "interpret":
        if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in arguments):
            raise RuntimeError(f"{name} has no derivative in Triton's interpreter: call it under torch.no_grad()")
        return _triton(name, *arguments)
    return getattr(reference if chosen == "reference" else torch.ops.fastdd, name)(*arguments)


@_dispatch.public
def grouped_outer(
    a: Tensor,
    b: Tensor,
    weights: Tensor | None,
    offsets: Tensor,
    *,
    rows_per_sample: int = 1,
    backend: str = "auto",
) -> Tensor:
    """Weighted sum of outer products per segment: ``out[s] = sum w_i b_r a_r^T``, r in sample i, i in segment s.

    With the inputs a and the output gradients b of a linear layer, the gradients of its weight (Goodfellow,
    arXiv:1510.01799), summed per segment instead of kept per sample.

    Args:
        a: [N * rows_per_sample, P], float32, float64, bfloat16 or float16; the samples are sorted by segment.
        b: [N * rows_per_sample, Q], of a's dtype.
        weights: [N] floating point, or None for 1.
        offsets: int64 [S+1] on a's device, rising from 0 to N: they count samples. The contents are checked on the CPU
            only.
        rows_per_sample: consecutive rows that belong to a sample, such as the positions of a sequence.
        backend: ``auto``, ``triton`` (GPU) or ``reference``, which is what CPUs run; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [S, Q, P], float64 for float64 and float32 for everything narrower, which is summed in float32 too; zeros for
        an empty segment. Differentiable in a, b and weights to any order.

    Raises:
        ValueError: a shape, dtype, device or offset that does not fit.
        TypeError: inputs that are not floating point.
        RuntimeError: a backend asked for by name that can't run here.

    Two runs are bitwise equal. Cost: 2 N rows_per_sample P Q operations, whatever the number of segments.

    >>> a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0], [10.0]])
    >>> grouped_outer(a, b, torch.tensor([1.0, 0.5]), torch.tensor([0, 2, 2]))
    tensor([[[16., 22.]],
            [[ 0.,  0.]]])
    """
    n = _check_rows("a", a, rows_per_sample)
    if b.dim() != 2 or len(b) != len(a):
        raise ValueError(f"b must be [{len(a)}, Q] for a {list(a.shape)}, not {list(b.shape)}")
    _same("a and b", a, b)
    check_segments(offsets, weights, n, a.device)
    return _run("grouped_outer", backend, a, b, weights, offsets, rows_per_sample)


@_dispatch.public
def grouped_matmul(
    x: Tensor,
    g: Tensor,
    weights: Tensor | None,
    offsets: Tensor,
    *,
    rows_per_sample: int = 1,
    backend: str = "auto",
) -> Tensor:
    """Every row times the matrix of its segment: ``out[r] = w_i x_r g[s]``, r in sample i, i in segment s.

    Args:
        x: [N * rows_per_sample, K], float32, float64, bfloat16 or float16; the samples are sorted by segment.
        g: [S, K, M], float64 for float64 rows, else float32.
        weights: [N] floating point, or None for 1.
        offsets: int64 [S+1], rising from 0 to N.
        rows_per_sample: consecutive rows that belong to a sample.
        backend: as for :func:`grouped_outer`.

    Returns:
        [N * rows_per_sample, M], of g's dtype. Differentiable in x, g and weights to any order.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`grouped_outer`.

    >>> grouped_matmul(torch.tensor([[1.0], [2.0]]), torch.tensor([[[5.0]], [[7.0]]]), None, torch.tensor([0, 1, 2]))
    tensor([[ 5.],
            [14.]])
    """
    n = _check_rows("x", x, rows_per_sample)
    check_segments(offsets, weights, n, x.device)
    expected = accumulation_dtype(x.dtype)
    if g.dim() != 3 or g.shape[:2] != (len(offsets) - 1, x.shape[1]) or g.dtype != expected or g.device != x.device:
        raise ValueError(
            f"g must be [{len(offsets) - 1}, {x.shape[1]}, M], {expected} on {x.device}, "
            f"not {list(g.shape)}, {g.dtype} on {g.device}"
        )
    return _run("grouped_matmul", backend, x, g, weights, offsets, rows_per_sample)


def _pair(name: str, value: int | tuple[int, int]) -> list[int]:
    pair = [value, value] if isinstance(value, int) else [*value] if isinstance(value, tuple | list) else []
    least = 0 if name == "padding" else 1
    if len(pair) != 2 or not all(isinstance(part, int) and part >= least for part in pair):
        raise ValueError(f"{name} must be one or two integers, at least {least}, not {value!r}")
    return pair


@_dispatch.public
def grouped_conv_weight(
    x: Tensor,
    b: Tensor,
    offsets: Tensor,
    kernel_size: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    backend: str = "auto",
) -> Tensor:
    """Gradient of a convolution's weight, summed per segment: ``out[s] = sum over i of conv2d_weight(x_i, b_i)``.

    The GPU kernel reads its operands in channels-last memory and never unfolds the images.

    Args:
        x: [N, C, H, W], the convolution's inputs, sorted by segment; float32, float64, bfloat16 or float16.
        b: [N, O, H', W'], the gradients of its outputs, of x's dtype.
        offsets: int64 [S+1] on x's device, rising from 0 to N.
        kernel_size, stride, padding, dilation, groups: of the convolution.
        backend: as for :func:`grouped_outer`.

    Returns:
        [S, O, C / groups, *kernel_size], float64 for float64 and float32 for everything narrower; zeros for an empty
        segment. Differentiable in x and b to any order.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`grouped_outer`.

    Two runs are bitwise equal.

    >>> x, b = torch.ones(2, 1, 3, 3), torch.ones(2, 1, 1, 1)
    >>> grouped_conv_weight(x, b, torch.tensor([0, 0, 2]), 3)[:, 0, 0, 0]
    tensor([[0., 0., 0.],
            [2., 2., 2.]])
    """
    if x.dtype not in _FLOATS:
        raise TypeError(f"x must be float32, float64, bfloat16 or float16, not {x.dtype}")
    if x.dim() != 4:
        raise ValueError(f"x must be [N, C, H, W], not {list(x.shape)}")
    named = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    geometry = [_pair(name, value) for name, value in named.items()]
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups={groups} does not divide the {x.shape[1]} channels of x")
    size = [
        (length + 2 * p - d * (k - 1) - 1) // s + 1 for length, k, s, p, d in zip(x.shape[2:], *geometry, strict=True)
    ]
    if b.dim() != 4 or b.shape[0] != x.shape[0] or [*b.shape[2:]] != size or b.shape[1] % groups:
        raise ValueError(
            f"b must be [{len(x)}, O, {size[0]}, {size[1]}] with O a multiple of groups={groups}, not {list(b.shape)}"
        )
    _same("x and b", x, b)
    check_segments(offsets, None, len(x), x.device)
    return _run("grouped_conv_weight", backend, x, b, offsets, *geometry, groups)
