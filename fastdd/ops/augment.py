"""All six operations of differentiable Siamese augmentation (DSA) in one pass, from a parameter row per image or per
class.

With DSA (Zhao and Bilen, ICML 2021) the same random transform is applied to the real and to the synthetic images of a
class, and gradients flow through it. Here a transform is a row of numbers, so one call serves a batch in which every
class, or every image, has its own. Flip, crop, scale and rotation are all one 2x3 matrix.
"""

import functools
from collections.abc import Callable
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.reference import augment as reference
from fastdd.reference.contents import readable, values_of

_KERNELS = {"cpu": "native", "cuda": "native"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16)
# Below it the adjoint's window, which grows with the inverse, would no longer be small.
SMALLEST_SCALE = 0.25


class Param(IntEnum):
    """Columns of a parameter row.

    A..F: the matrix from result to source, in pixels: result pixel (x, y), x the column, samples the source at
    ``(A x + B y + C, D x + E y + F)``. BRIGHTNESS is added; SATURATION and CONTRAST are factors. Rows TOP <= y < BOTTOM
    of columns LEFT <= x < RIGHT become zero.
    """

    A = 0
    B = 1
    C = 2
    D = 3
    E = 4
    F = 5
    BRIGHTNESS = 6
    SATURATION = 7
    CONTRAST = 8
    TOP = 9
    LEFT = 10
    BOTTOM = 11
    RIGHT = 12


_MOST_ROWS = 2**31


def identity_params(n: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """``n`` parameter rows that change nothing, [n, 13].

    >>> x = torch.rand(2, 3, 4, 4)
    >>> torch.equal(augment(x, identity_params(2)), x)
    True
    """
    if not 0 <= n < _MOST_ROWS:
        raise ValueError(f"n must be a number of rows, from 0 to below {_MOST_ROWS}, not {n}")
    params = torch.zeros(n, len(Param), dtype=dtype, device=device)
    # A and E, SATURATION and CONTRAST: slices, as a list of columns would be copied to a GPU.
    params[:, Param.A : Param.E + 1 : Param.E - Param.A] = 1
    params[:, Param.SATURATION : Param.CONTRAST + 1] = 1
    return params


def check_values(params: Tensor, rows: Tensor | None, n: int) -> None:
    """Raise ValueError for rows that don't exist, for what isn't finite and for matrices that enlarge too much."""
    if rows is not None and n and readable(rows):
        low, high = rows.aminmax()
        if low < 0 or high >= params.shape[0]:
            raise ValueError(
                f"rows must be in 0..{params.shape[0] - 1}, the rows of params; got {int(low)}..{int(high)}"
            )
    if readable(params):
        p = values_of(params)
        if not np.isfinite(p).all():
            raise ValueError(f"params row {int(np.argwhere(~np.isfinite(p))[0, 0])} is not finite")
        a, b, d, e = (p[:, i].astype(np.float64) for i in (Param.A, Param.B, Param.D, Param.E))
        # Smallest singular value s of a 2x2 matrix: s t = |det|, s^2 + t^2 = sum of squares.
        squares, det = a * a + b * b + d * d + e * e, np.abs(a * e - b * d)
        small = (
            np.sqrt(np.maximum(squares + 2 * det, 0)) - np.sqrt(np.maximum(squares - 2 * det, 0)) < 2 * SMALLEST_SCALE
        )
        if small.any():
            i = int(np.argmax(small))
            raise ValueError(
                f"params row {i}: the matrix {p[i, :6].tolist()} "
                f"enlarges more than {1 / SMALLEST_SCALE:g} times or is singular"
            )


def _checked(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The C++ kernels look at the values themselves, in a tenth of the time; the reference does not."""

    @functools.wraps(function)
    def check_and_run(x: Tensor, params: Tensor, rows: Tensor | None, *rest) -> Tensor:
        check_values(params, rows, x.shape[0])
        return function(x, params, rows, *rest)

    return check_and_run


_reference_augment, _reference_adjoint, _reference_uint8 = map(
    _checked, (reference.augment, reference.augment_adjoint, reference.augment_uint8)
)

_AUGMENT = _dispatch.define(
    "augment(Tensor x, Tensor params, Tensor? rows, bool linear) -> Tensor", _reference_augment, _KERNELS
)
_ADJOINT = _dispatch.define(
    "augment_adjoint(Tensor g, Tensor params, Tensor? rows) -> Tensor", _reference_adjoint, _KERNELS
)
_UINT8 = _dispatch.define(
    "augment_uint8(Tensor x, Tensor params, Tensor? rows, Tensor mean, Tensor std, ScalarType dtype) -> Tensor",
    _reference_uint8,
    _KERNELS,
)


def run(op: Callable[..., Tensor], n: int, x: Tensor, params: Tensor, rows: Tensor | None, *rest) -> Tensor:
    """Call an op on ``n`` images; what its kernel refuses is told as the reference tells it."""
    try:
        return op(x, params, rows, *rest)
    except RuntimeError:
        check_values(params, rows, n)
        raise


def _same_shape(x, *_):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1], inputs[2])


def _augment_backward(ctx, g):
    return torch.ops.fastdd.augment_adjoint(g, *ctx.saved_tensors), None, None, None


def _adjoint_backward(ctx, g):
    return torch.ops.fastdd.augment(g, *ctx.saved_tensors, True), None, None


_dispatch.register_fake(_AUGMENT, _same_shape)
_dispatch.register_fake(_ADJOINT, _same_shape)
_dispatch.register_fake(_UINT8, lambda x, params, rows, mean, std, dtype: x.new_empty(x.shape, dtype=dtype))
_dispatch.register_autograd(_AUGMENT, _augment_backward, _setup, constant=["params"])
_dispatch.register_autograd(_ADJOINT, _adjoint_backward, _setup, constant=["params"])
_dispatch.register_no_autograd(_UINT8)


def _check(x: Tensor, params: Tensor, rows: Tensor | None) -> None:
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x must be images [N, C, H, W], not {list(x.shape)}")
    check_params(params, rows, x.shape[0], x.device)


def check_params(params: Tensor, rows: Tensor | None, n: int, device: torch.device) -> None:
    """Raise ValueError or TypeError for parameters and rows that do not fit ``n`` images on a device."""
    if params.dim() != 2 or params.shape[1] != len(Param):
        raise ValueError(f"params must be [R, {len(Param)}], not {list(params.shape)}: see identity_params")
    if params.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"params must be float32 or float64, not {params.dtype}")
    if params.requires_grad:
        raise ValueError("params are not differentiable: pass params.detach()")
    count = params.shape[0]
    if rows is None:
        if count not in (1, n):
            raise ValueError(f"params have {count} rows for {n} images: pass rows, one row an image, or a single row")
    elif rows.dtype != torch.int64 or rows.shape != (n,):
        raise ValueError(f"rows must be int64 [{n}], not {rows.dtype} {list(rows.shape)}")
    for name, t in (("params", params), ("rows", rows)):
        if t is not None and t.device != device:
            raise ValueError(f"{name} are on {t.device} and x on {device}: move one of them")


@_dispatch.public
def augment(
    x: Tensor,
    params: Tensor,
    rows: Tensor | None = None,
    *,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """Augment every image by its parameter row, in one pass over the pixels.

    In this order: warp (bilinear, zeros outside, ``align_corners=False``), brightness ``v + beta``, saturation
    ``(v - m_p) sigma + m_p`` with m_p the mean over the channels of a pixel, contrast ``(v - m) kappa + m`` with m the
    mean over the image, cutout (zeros). The formulas are DSA's; a row with one operation is DSA's "S" mode. Shifts by
    whole pixels and flips are exact.

    Args:
        x: [N, C, H, W]; float32, float64 or bfloat16 (computed in float32), differentiable to any order; or uint8,
            which is normalised on the way, ``(x / 255 - mean) / std``.
        params: float32 or float64 [R, 13], columns :class:`Param`, on x's device; not differentiable. Matrices that
            enlarge more than 4 times are refused, on the CPU; on a GPU the contents are not looked at (no
            synchronisation).
        rows: int64 [N], the parameter row of each image; None: row i for image i, or the only row for all. On a GPU, an
            image whose row does not exist comes out as NaN.
        mean, std: [C], for uint8 x only (in units of 1, not of 255).
        dtype: of the result for uint8 x: float32 (default), bfloat16 or float64.
        backend: ``auto``, ``native`` (C++ or CUDA) or ``reference``; FASTDD_BACKEND sets what ``auto`` means.

    Returns:
        [N, C, H, W], contiguous, of x's dtype (for uint8, of ``dtype``).

    Raises:
        ValueError, TypeError: a shape, dtype, device or value that does not fit.
        RuntimeError: a backend asked for by name that can't run here.

    Two runs are bitwise equal, in the derivatives too (the adjoint of the warp gathers; nothing is added atomically),
    and do not depend on the number of threads. Cost: one read and one write of the images.

    >>> x = torch.arange(4.0).view(1, 1, 2, 2)
    >>> flip = identity_params(1)
    >>> flip[0, [Param.A, Param.C]] = torch.tensor([-1.0, 1.0])
    >>> augment(x, flip)
    tensor([[[[1., 0.],
              [3., 2.]]]])
    """
    raw = x.dtype == torch.uint8
    if not raw and x.dtype not in _FLOATS:
        raise TypeError(f"x must be float32, float64, bfloat16 or uint8, not {x.dtype}")
    _check(x, params, rows)
    if not raw:
        if mean is not None or std is not None or dtype not in (None, x.dtype):
            raise ValueError("mean, std and dtype are for uint8 images; floating-point images are taken as normalised")
        if _dispatch.choose("augment", backend, x.device) == "reference":
            return _reference_augment(x, params, rows)
        return run(torch.ops.fastdd.augment, x.shape[0], x, params, rows, False)
    if mean is None or std is None or mean.shape != (x.shape[1],) or std.shape != (x.shape[1],):
        raise ValueError(f"uint8 images need mean and std of shape [{x.shape[1]}]")
    if mean.device != x.device or std.device != x.device:
        raise ValueError(f"mean and std are on {mean.device} and {std.device} and x on {x.device}: move them")
    dtype = dtype or torch.float32
    if dtype not in _FLOATS:
        raise TypeError(f"dtype must be float32, float64 or bfloat16, not {dtype}")
    if _dispatch.choose("augment", backend, x.device) == "reference":
        return _reference_uint8(x, params, rows, mean, std, dtype)
    return run(torch.ops.fastdd.augment_uint8, x.shape[0], x, params, rows, mean, std, dtype)


@_dispatch.public
def augment_adjoint(g: Tensor, params: Tensor, rows: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """Transpose of :func:`augment`'s linear part: ``<augment_linear(x), g> = <x, augment_adjoint(g)>``; its backward
    pass.

    Args, errors and determinism: as :func:`augment`; g is [N, C, H, W], float32, float64 or bfloat16.
    """
    if g.dtype not in _FLOATS:
        raise TypeError(f"g must be float32, float64 or bfloat16, not {g.dtype}")
    _check(g, params, rows)
    if _dispatch.choose("augment_adjoint", backend, g.device) == "reference":
        return _reference_adjoint(g, params, rows)
    return run(torch.ops.fastdd.augment_adjoint, g.shape[0], g, params, rows)
