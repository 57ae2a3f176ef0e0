"""Triton kernel of dsa_params: augmentation parameters from keys in one launch. Never run on a GPU yet."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.draws import share, word
from fastdd.kernels.segment_mean import on

_COLUMNS = 13


@triton.jit
def uniform(keys, number: tl.constexpr):
    """Number ``number`` of keys on [0, 1), in float64, as the formulas of the reference are."""
    return share(word(keys, keys * 0 + number)).to(tl.float64)


@triton.jit
def cut_ends(u, side, k):
    """First row cut, and the one after the last, of a square of ``k`` whose centre may be anywhere."""
    first = tl.floor(u * (side + 1 - k % 2)) - k // 2
    last = tl.minimum(tl.maximum(first + k - 1, 0), side - 1)
    return tl.minimum(tl.maximum(first, 0), side - 1), last + 1


@triton.jit
def small_cos_sin(x):
    """Cosine and sine of |x| <= 15 degrees to a last bit of float64, by their series: libdevice's would spill."""
    y = x * x
    cos = 1.0 - y / 132.0
    sin = 1.0 - y / 156.0
    for k in tl.static_range(5):
        cos = 1.0 - y * cos / ((10 - 2 * k) * (9 - 2 * k))
        sin = 1.0 - y * sin / ((11 - 2 * k) * (10 - 2 * k))
    return cos, x * sin


@triton.jit
def dsa_rows(
    keys,
    out,
    n,
    n_shared,
    height,
    width,
    crop_y,
    crop_x,
    cut_y,
    cut_x,
    BRIGHTNESS: tl.constexpr,
    SATURATION: tl.constexpr,
    CONTRAST: tl.constexpr,
    SCALE: tl.constexpr,
    ANGLE: tl.constexpr,
    OPS: tl.constexpr,
    N_OPS: tl.constexpr,
    ROWS: tl.constexpr,
):
    # OPS: places in DSA_OPS of the strategy's operations, four bits each, the first lowest.
    # n_shared: as many rows, one after the other, have the operation of the first of them.
    o_r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    m_r = o_r < n
    b_keys = tl.load(keys + o_r, mask=m_r, other=0)
    u1, u2, u3 = uniform(b_keys, 1), uniform(b_keys, 2), uniform(b_keys, 3)
    op = tl.floor(uniform(tl.load(keys + o_r // n_shared * n_shared, mask=m_r, other=0), 0) * N_OPS)
    one = u1 * 0 + 1
    zero = u1 * 0
    a, b, c, d, e, f = one, zero, zero, zero, one, zero
    brightness, saturation, contrast = zero, one, one
    top, left, bottom, right = zero, zero, zero, zero
    for place in tl.static_range(N_OPS):
        chosen = op == place
        if (OPS >> (4 * place)) & 15 == 0:
            brightness = tl.where(chosen, (u1 - 0.5) * BRIGHTNESS, brightness)
            saturation = tl.where(chosen, u2 * SATURATION, saturation)
            contrast = tl.where(chosen, u3 + CONTRAST, contrast)
        elif (OPS >> (4 * place)) & 15 == 1:
            f = tl.where(chosen, tl.floor(u1 * (2 * crop_y + 1)) - crop_y, f)
            c = tl.where(chosen, tl.floor(u2 * (2 * crop_x + 1)) - crop_x, c)
        elif (OPS >> (4 * place)) & 15 == 2:
            first_y, last_y = cut_ends(u1, height, cut_y)
            first_x, last_x = cut_ends(u2, width, cut_x)
            top, bottom = tl.where(chosen, first_y, top), tl.where(chosen, last_y, bottom)
            left, right = tl.where(chosen, first_x, left), tl.where(chosen, last_x, right)
        elif (OPS >> (4 * place)) & 15 == 3:
            turned = chosen & (u1 < 0.5)
            a = tl.where(turned, -1.0, a)
            c = tl.where(turned, width - 1.0, c)
        else:
            if (OPS >> (4 * place)) & 15 == 4:
                x, y = u1 * (SCALE - 1 / SCALE) + 1 / SCALE, u2 * (SCALE - 1 / SCALE) + 1 / SCALE
                cross = zero
            else:
                angle = (u1 - 0.5) * (2 * ANGLE)
                x, cross = small_cos_sin(angle)
                y = x
            # pixel_matrix of [x, -cross, 0, cross, y, 0].
            of_x = -cross * (width / height.to(tl.float64))
            of_y = cross * (height / width.to(tl.float64))
            middle_x, middle_y = (width - 1) * 0.5, (height - 1) * 0.5
            a, b = tl.where(chosen, x, a), tl.where(chosen, of_x, b)
            c = tl.where(chosen, middle_x * (1 - x) - of_x * middle_y, c)
            d, e = tl.where(chosen, of_y, d), tl.where(chosen, y, e)
            f = tl.where(chosen, middle_y * (1 - y) - of_y * middle_x, f)
    o_out = o_r * 13
    tl.store(out + o_out, a, mask=m_r)
    tl.store(out + o_out + 1, b, mask=m_r)
    tl.store(out + o_out + 2, c, mask=m_r)
    tl.store(out + o_out + 3, d, mask=m_r)
    tl.store(out + o_out + 4, e, mask=m_r)
    tl.store(out + o_out + 5, f, mask=m_r)
    tl.store(out + o_out + 6, brightness, mask=m_r)
    tl.store(out + o_out + 7, saturation, mask=m_r)
    tl.store(out + o_out + 8, contrast, mask=m_r)
    tl.store(out + o_out + 9, top, mask=m_r)
    tl.store(out + o_out + 10, left, mask=m_r)
    tl.store(out + o_out + 11, bottom, mask=m_r)
    tl.store(out + o_out + 12, right, mask=m_r)


def rows(
    keys: Tensor,
    numbers: list[int],
    height: int,
    width: int,
    shared: int,
    dtype: torch.dtype,
    *,
    shifts: tuple[int, int],
    squares: tuple[int, int],
    **ranges: float,
) -> Tensor:
    """One launch for :func:`fastdd.ops.dsa_params`.

    Args:
        keys, numbers, height, width, shared, dtype: the op's.
        shifts, squares: largest shift of a crop and side of what a cutout cuts, by rows and by columns.
        **ranges: brightness, saturation, contrast, scale, and the largest angle in radians, below 0.27.
    """
    keys, n = keys.contiguous(), len(keys)
    out = keys.new_empty((n, _COLUMNS), dtype=dtype)
    if not n:
        return out
    packed = sum(number << (4 * place) for place, number in enumerate(numbers))
    options = config("dsa_rows", keys.device) | {name.upper(): value for name, value in ranges.items()}
    with on(keys.device):
        dsa_rows[(-(-n // options["ROWS"]),)](
            keys, out, n, shared, height, width, *shifts, *squares, OPS=packed, N_OPS=len(numbers), **options
        )
    return out
