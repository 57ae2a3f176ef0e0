"""Random parameters of differentiable Siamese augmentation (DSA; Zhao and Bilen, ICML 2021) from counter-based keys."""

import math

import torch
from torch import Tensor

from fastdd.core import rng
from fastdd.ops import _dispatch
from fastdd.ops.augment import Param, augment, identity_params

DSA_OPS = ("color", "crop", "cutout", "flip", "scale", "rotate")
DSA_STRATEGY = "_".join(DSA_OPS)

# The published ranges (DatasetCondensation, ParamDiffAug).
_BRIGHTNESS = 1.0  # added: (u - 0.5) times this
_SATURATION = 2.0  # factor: u times this
_CONTRAST = 0.5  # factor: u plus this
_CROP = 0.125  # largest shift, as a fraction of the side
_CUTOUT = 0.5  # side of the square, likewise
_SCALE = 1.2
_ROTATE = 15.0  # degrees


@_dispatch.public
def parse_strategy(strategy: str) -> tuple[str, ...]:
    """The operations of a strategy, joined by underscores; ``none`` and the empty string name none.

    Raises:
        ValueError: an unknown operation, or one that is named twice.

    >>> parse_strategy("color_crop_cutout"), parse_strategy("none")
    (('color', 'crop', 'cutout'), ())
    """
    if strategy in ("none", "None", ""):
        return ()
    ops = tuple(strategy.split("_"))
    for op in ops:
        if op not in DSA_OPS:
            raise ValueError(f"DSA strategy {strategy!r}: {op!r} is not one of {', '.join(DSA_OPS)}")
        if ops.count(op) > 1:
            raise ValueError(f"DSA strategy {strategy!r}: {op!r} is named twice")
    return ops


@_dispatch.public
def pixel_matrix(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """The 2x3 matrix of ``F.affine_grid(theta, ..., align_corners=False)``, in pixels.

    Pixel x has the normalised coordinate ``(2 x + 1) / W - 1``, and likewise y; solving for pixels on both sides gives

        a = t00,  b = t01 W / H,  c = (W - 1)/2 (1 - t00) - t01 (W / H) (H - 1)/2 + t02 W / 2
        d = t10 H / W,  e = t11,  f = (H - 1)/2 (1 - t11) - t10 (H / W) (W - 1)/2 + t12 H / 2

    For square images and no translation ``align_corners=True`` has the same matrix: both turn about the image's centre.

    Args:
        theta: floating point [*, 2, 3].
        size: (H, W) of the images.

    Returns:
        [*, 6]: a b c d e f, of theta's dtype.

    >>> pixel_matrix(torch.tensor([[-1.0, 0, 0], [0, 1, 0]]), (4, 4))
    tensor([-1., 0., 3., 0., 1., 0.])
    """
    if not theta.is_floating_point() or theta.shape[-2:] != (2, 3):
        raise ValueError(f"theta must be floating point [*, 2, 3], not {theta.dtype} {list(theta.shape)}")
    height, width = size
    (t00, t01, t02), (t10, t11, t12) = (row.unbind(-1) for row in theta.unbind(-2))
    b, d = t01 * (width / height), t10 * (height / width)
    c = (width - 1) / 2 * (1 - t00) - b * ((height - 1) / 2) + t02 * (width / 2)
    f = (height - 1) / 2 * (1 - t11) - d * ((width - 1) / 2) + t12 * (height / 2)
    return torch.stack([t00, b, c, d, t11, f], -1)


def _part(side: int, share: float) -> int:
    """So many pixels of a side, rounded as published code rounds them."""
    return int(side * share + 0.5)


def _whole(u: Tensor, n: int) -> Tensor:
    """Uniform on 0..n-1, from u uniform on [0, 1)."""
    return (u * n).floor()


def _cutout_range(u: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """First row (or column) cut and the one after the last; the square's centre may be anywhere, so its ends are
    clamped."""
    k = _part(side, _CUTOUT)
    first = _whole(u, side + (1 - k % 2)) - k // 2
    return first.clamp(0, side - 1), (first + k - 1).clamp(0, side - 1) + 1


def _plain_rows(keys: Tensor, numbers: list[int], height: int, width: int, shared: int, dtype: torch.dtype) -> Tensor:
    """:func:`dsa_params`, operation after operation; ``numbers`` are places in :data:`DSA_OPS`.

    ``shared`` rows, one after the other, have the operation of the first of them.
    """
    params = identity_params(keys.shape[0], dtype=torch.float64, device=keys.device)
    choice, u1, u2, u3 = rng.uniform(keys, 4).double().unbind(-1)
    op = _whole(choice[::shared].repeat_interleave(shared), len(numbers))
    zero, one = torch.zeros_like(u1), torch.ones_like(u1)

    def set_where(chosen: Tensor, first: Param, *values: Tensor) -> None:
        columns = params[:, first : first + len(values)]
        columns.copy_(torch.where(chosen[:, None], torch.stack(values, -1), columns))

    # A row has one operation, so all may use the same three numbers.
    for place, number in enumerate(numbers):
        chosen, name = op == place, DSA_OPS[number]
        if name == "color":
            values = (u1 - 0.5) * _BRIGHTNESS, u2 * _SATURATION, u3 + _CONTRAST
            set_where(chosen, Param.BRIGHTNESS, *values)
        elif name == "cutout":
            (top, bottom), (left, right) = _cutout_range(u1, height), _cutout_range(u2, width)
            set_where(chosen, Param.TOP, top, left, bottom, right)
        elif name == "crop":
            most_y, most_x = _part(height, _CROP), _part(width, _CROP)
            down, right = _whole(u1, 2 * most_y + 1) - most_y, _whole(u2, 2 * most_x + 1) - most_x
            set_where(chosen, Param.A, one, zero, right, zero, one, down)
        elif name == "flip":
            set_where(chosen & (u1 < 0.5), Param.A, -one, zero, (width - 1) * one)
        else:
            if name == "scale":
                x, y = (u * (_SCALE - 1 / _SCALE) + 1 / _SCALE for u in (u1, u2))
                theta = [x, zero, zero, zero, y, zero]
            else:
                angle = (u1 - 0.5) * (2 * _ROTATE * math.pi / 180)
                cos, sin = angle.cos(), angle.sin()
                theta = [cos, -sin, zero, sin, cos, zero]
            matrix = pixel_matrix(torch.stack(theta, -1).unflatten(-1, (2, 3)), (height, width))
            set_where(chosen, Param.A, *matrix.unbind(-1))
    return params.to(dtype)


_ROWS = _dispatch.define(
    "dsa_rows(Tensor keys, int[] numbers, int height, int width, int shared, ScalarType dtype) -> Tensor",
    _plain_rows,
    {"cuda": "triton"},
)


def _launch_rows(keys: Tensor, numbers: list[int], height: int, width: int, shared: int, dtype: torch.dtype) -> Tensor:
    from fastdd.kernels import dsa

    return dsa.rows(
        *(keys, numbers, height, width, shared, dtype),
        shifts=(_part(height, _CROP), _part(width, _CROP)),
        squares=(_part(height, _CUTOUT), _part(width, _CUTOUT)),
        brightness=_BRIGHTNESS,
        saturation=_SATURATION,
        contrast=_CONTRAST,
        scale=_SCALE,
        angle=_ROTATE * math.pi / 180,
    )


_dispatch.register_triton(_ROWS, _launch_rows)
_dispatch.register_fake(
    _ROWS, lambda keys, numbers, height, width, shared, dtype: keys.new_empty((len(keys), len(Param)), dtype=dtype)
)


@_dispatch.public
def dsa_params(
    strategy: str | tuple[str, ...],
    keys: Tensor,
    size: tuple[int, int],
    *,
    shared_op: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """One random parameter row a key: one operation of the strategy, chosen uniformly (DSA's mode "S"), with its
    parameters.

    Siamese matching takes one key a class and uses its row for the real and the synthetic images of that class.
    Training and evaluation take one key an image with ``shared_op=True``: the operation is common to the batch, its
    parameters are not.

    With u uniform on [0, 1): color is brightness u - 0.5, saturation 2 u and contrast u + 0.5; crop a shift by whole
    pixels up to an eighth of each side; cutout a square of half the side; flip happens if u < 0.5; scale has both
    factors independent and linear on [1/1.2, 1.2); rotate is up to 15 degrees either way.

    Args:
        strategy: such as ``"color_crop_cutout_flip_scale_rotate"``, or what :func:`parse_strategy` made of it.
        keys: int64 [R] or [*, R], from :mod:`fastdd.core.rng`. Rows do not depend on one another, except for a shared
            operation, which is that of the first of R keys.
        size: (H, W) of the images.
        shared_op: whether all R rows have the operation of the first.
        dtype: float32 or float64, of the result.

    Returns:
        [R, 13] or [*, R, 13] on keys' device, for :func:`fastdd.ops.augment.augment`.

    Raises:
        ValueError: an unknown operation.

    Deterministic in the keys, on any device up to the rounding of sine and cosine. Cost: on GPUs one launch,
    on CPUs some tens of operations on R elements.

    >>> dsa_params("crop", rng.lanes(rng.key(0, "docs"), 1), (32, 32))[0, [Param.C, Param.F]]
    tensor([ 2., -2.])
    """
    ops = parse_strategy(strategy) if isinstance(strategy, str) else tuple(strategy)
    if keys.dim() < 1 or keys.dtype != torch.int64:
        raise ValueError(f"keys must be int64 [R] or [*, R], not {keys.dtype} {list(keys.shape)}")
    if not ops or not keys.numel():
        return identity_params(keys.numel(), dtype=dtype, device=keys.device).view(*keys.shape, len(Param))
    shared = keys.shape[-1] if shared_op else 1
    arguments = keys.flatten(), [DSA_OPS.index(name) for name in ops], *size, shared, dtype
    if _dispatch.choose("dsa_rows", "auto", keys.device) == "reference":
        rows = _plain_rows(*arguments)
    else:
        rows = torch.ops.fastdd.dsa_rows(*arguments)
    return rows.view(*keys.shape, len(Param))


@_dispatch.public
def diff_augment(
    x: Tensor, strategy: str = DSA_STRATEGY, *, seed: int, siamese: bool = False, backend: str = "auto"
) -> Tensor:
    """Differentiable augmentation of a batch, as DSA's ``DiffAugment``: one random operation of the strategy.

    Args:
        x: normalised images [N, C, H, W], float32, float64 or bfloat16; differentiable to any order.
        strategy: operations joined by underscores, out of :data:`DSA_OPS`, or ``"none"``.
        seed: names the draw: the same seed gives the same augmentation, whatever else was drawn.
        siamese: one transform for all images, so two batches augmented with the same seed have the same. Otherwise the
            operation is common and its parameters are drawn for every image.
        backend: as for :func:`fastdd.ops.augment.augment`.

    Returns:
        [N, C, H, W] of x's dtype.

    Raises:
        ValueError: an unknown operation. TypeError, RuntimeError: as :func:`fastdd.ops.augment.augment`.

    The global random generators are neither read nor reseeded.

    >>> real, synthetic = torch.rand(8, 3, 16, 16), torch.rand(2, 3, 16, 16, requires_grad=True)
    >>> a, b = (diff_augment(t, seed=7, siamese=True) for t in (real, synthetic))
    >>> b.sum().backward(); a.shape, synthetic.grad.shape
    (torch.Size([8, 3, 16, 16]), torch.Size([2, 3, 16, 16]))
    """
    ops = parse_strategy(strategy)
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x must be images [N, C, H, W], not {list(x.shape)}")
    if not ops:
        return x
    keys = rng.lanes(rng.key(seed, "diff_augment"), 1 if siamese else x.shape[0], x.device)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return augment(x, dsa_params(ops, keys, (x.shape[-2], x.shape[-1]), shared_op=True, dtype=dtype), backend=backend)
