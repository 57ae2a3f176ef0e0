"""Multi-formation: an image that is stored holds several smaller ones, and networks see those, enlarged.

Introduced by IDC (Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022, section
4.1): as many numbers, but factor x factor times as many images to train on.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.reference import formation as reference
from fastdd.reference.contents import check_range

_KERNELS = {"cpu": "native", "cuda": "native"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16)
# Of an image in [0, 1], as published: what is beside it where the factor does not divide its sides.
GREY = 0.5

_FORMATION = _dispatch.define(
    "formation(Tensor stored, int factor, Tensor? parts, Tensor? fill, SymInt[] size) -> Tensor",
    reference.formation,
    _KERNELS,
)
_ADJOINT = _dispatch.define(
    "formation_adjoint(Tensor g, SymInt n, SymInt height, SymInt width, int factor, Tensor? parts) -> Tensor",
    reference.formation_adjoint,
    _KERNELS,
)


def _fake(stored, factor, parts, fill, size):
    n = stored.shape[0] * factor**2 if parts is None else parts.shape[0]
    return stored.new_empty((n, stored.shape[1], *size))


def _adjoint_fake(g, n, height, width, factor, parts):
    return g.new_empty((n, g.shape[1], height, width))


def _setup(ctx, inputs, output):
    stored, ctx.factor, parts, _, _ = inputs
    ctx.save_for_backward(parts)
    ctx.n, _, ctx.height, ctx.width = stored.shape


def _backward(ctx, g):
    of_stored = torch.ops.fastdd.formation_adjoint(g, ctx.n, ctx.height, ctx.width, ctx.factor, *ctx.saved_tensors)
    return of_stored, None, None, None, None


def _adjoint_setup(ctx, inputs, output):
    g, *_, ctx.factor, parts = inputs
    ctx.save_for_backward(parts)
    ctx.size = g.shape[2:]


def _adjoint_backward(ctx, g):
    return torch.ops.fastdd.formation(g, ctx.factor, *ctx.saved_tensors, None, ctx.size), None, None, None, None, None


_dispatch.register_fake(_FORMATION, _fake)
_dispatch.register_fake(_ADJOINT, _adjoint_fake)
_dispatch.register_autograd(_FORMATION, _backward, _setup, constant=["fill"])
_dispatch.register_autograd(_ADJOINT, _adjoint_backward, _adjoint_setup)


def check_factor(factor: int, size: Sequence[int]) -> None:
    """ValueError unless images of ``size`` (height and width) hold factor x factor parts."""
    if isinstance(factor, bool) or not isinstance(factor, int):
        raise TypeError(f"factor must be a whole number, not {factor!r}")
    if not 1 <= factor <= min(size):
        raise ValueError(f"factor must be 1 to {min(size)}, the side of images of {size[0]} x {size[1]}, not {factor}")


def all_parts(stored: int, factor: int, device: torch.device | str | None = None) -> Tensor:
    """Addresses of every part of ``stored`` images, int64 [stored * factor^2, 2], the parts of an image together.

    >>> all_parts(2, 2).tolist()
    [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3]]
    """
    image, part = (torch.arange(count, device=device) for count in (stored, factor**2))
    return torch.cartesian_prod(image, part)


def check_stored(stored: Tensor, factor: int) -> None:
    """Raise TypeError or ValueError for images that are no images, or do not hold factor x factor parts."""
    if stored.dtype not in _FLOATS:
        raise TypeError(f"stored images must be float32, float64 or bfloat16, not {stored.dtype}")
    if stored.dim() != 4 or 0 in stored.shape[1:]:
        raise ValueError(f"stored must be images [M, C, H, W], not {list(stored.shape)}")
    check_factor(factor, stored.shape[2:])


def check_parts(parts: Tensor | None, stored: int, factor: int, device: torch.device) -> int:
    """How many images they are. ValueError for parts that do not fit ``stored`` images on a device; contents are read
    on CPUs only."""
    if parts is None:
        return stored * factor**2
    if parts.dtype != torch.int64 or parts.dim() != 2 or parts.shape[1] != 2:
        raise ValueError(f"parts must be int64 [N, 2], not {parts.dtype} {list(parts.shape)}: see all_parts")
    if parts.device != device:
        raise ValueError(f"parts are on {parts.device} and the images on {device}: move one of them")
    check_range("stored images of parts", parts[:, 0], 0, stored)
    check_range("parts of an image", parts[:, 1], 0, factor**2)
    return parts.shape[0]


def fill_of(fill: float | Tensor, stored: Tensor, factor: int) -> Tensor | None:
    """[C], or None where nothing is padded. ValueError for what is neither a number nor floating point [C]."""
    if isinstance(fill, Tensor):
        if fill.shape != stored.shape[1:2] or not fill.is_floating_point():
            raise ValueError(f"fill must be a number, or floating point [C] = {list(stored.shape[1:2])}, not {fill}")
        if fill.requires_grad:
            raise ValueError("fill is not differentiable: pass fill.detach()")
        if fill.device != stored.device:
            raise ValueError(f"fill is on {fill.device} and the images on {stored.device}: move one of them")
    if not (stored.shape[2] % factor or stored.shape[3] % factor):
        return None
    if isinstance(fill, Tensor):
        return fill
    return torch.full(stored.shape[1:2], fill, dtype=torch.float64, device=stored.device)


def formation(
    stored: Tensor,
    factor: int,
    parts: Tensor | None = None,
    *,
    fill: float | Tensor = GREY,
    size: int | tuple[int, int] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Decode images: each of their ``factor`` x ``factor`` parts, enlarged.

    Part p = i * factor + j of an image is its rows [i h, (i + 1) h) and columns [j w, (j + 1) w), with
    h = ceil(H / factor) and w = ceil(W / factor); beside the image is ``fill``. It is enlarged bilinearly as
    ``torch.nn.functional.interpolate(part, size, mode="bilinear")`` does it (``align_corners=False``): row y of the
    result samples row max((y + 0.5) h / H' - 0.5, 0) of the part. So do IDC and DREAM (``decode_zoom``), whose images
    are square; here they need not be.

    Args:
        stored: [M, C, H, W], float32, float64 or bfloat16 (computed in float32), differentiable to any order: but for
            ``fill`` the op is linear.
        factor: f, 1 to the shorter side.
        parts: int64 [N, 2] on stored's device, (stored image, its part) of every image of the result, in any order and
            number; the contents are checked on the CPU only, and what does not exist is NaN elsewhere. None: all, in
            the published order: the first part of every image, then the second of every image, and so on
            (:func:`all_parts` is the other order).
        fill: of every channel, or [C]; not differentiable. As published 0.5, for pixels in [0, 1]; for normalised
            images it is (0.5 - mean) / std.
        size: H' and W' of the result; None: H and W.
        backend: ``auto``, ``native`` (C++ or CUDA) or ``reference``; FASTDD_BACKEND sets what ``auto`` means.

    Returns:
        [N, C, H', W'], contiguous, of stored's dtype; N is M f^2 without ``parts``.

    Raises:
        ValueError, TypeError: a shape, dtype, device, factor or part that does not fit.
        RuntimeError: a backend asked for by name that can't run here.

    Two runs are bitwise equal, in the derivatives too, and do not depend on the number of threads. Cost: one read of
    the stored images and one write of the result.

    >>> image = torch.arange(4.0).view(1, 1, 2, 2)
    >>> formation(image, 2)[:, 0].tolist()
    [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]]]
    """
    check_stored(stored, factor)
    check_parts(parts, stored.shape[0], factor, stored.device)
    size = (size, size) if isinstance(size, int) else tuple(stored.shape[2:]) if size is None else tuple(size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a height and a width of at least 1, not {size}")
    arguments = stored, factor, parts, fill_of(fill, stored, factor), list(size)
    return _function(_FORMATION, reference.formation, backend, stored.device)(*arguments)


def formation_adjoint(
    g: Tensor, n: int, size: tuple[int, int], factor: int, parts: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Transpose of :func:`formation`'s linear part: ``<formation(x, fill=0), g> = <x, formation_adjoint(g)>``; its
    backward pass.

    Args:
        g: [N, C, H', W'], float32, float64 or bfloat16; differentiable to any order.
        n: stored images, M.
        size: their height and width.
        factor, parts, backend: as of :func:`formation`.

    Returns:
        [M, C, H, W], contiguous, of g's dtype: of a stored image the sum over the images that it was decoded into, in
        their order.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`formation`.
    """
    if g.dtype not in _FLOATS:
        raise TypeError(f"g must be float32, float64 or bfloat16, not {g.dtype}")
    if g.dim() != 4 or 0 in g.shape[1:]:
        raise ValueError(f"g must be images [N, C, H, W], not {list(g.shape)}")
    check_factor(factor, size)
    expected = check_parts(parts, n, factor, g.device)
    if g.shape[0] != expected:
        raise ValueError(f"g must be of {expected} decoded images, not {g.shape[0]}")
    return _function(_ADJOINT, reference.formation_adjoint, backend, g.device)(g, n, *size, factor, parts)


def _function(name: str, plain: Callable[..., Tensor], backend: str, device: torch.device) -> Callable[..., Tensor]:
    op = name.removeprefix("fastdd::")
    return plain if _dispatch.choose(op, backend, device) == "reference" else getattr(torch.ops.fastdd, op)
