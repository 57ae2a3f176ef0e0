"""IDC's augmentation (Kim et al., ICML 2022; DREAM has the same): more operations at a time than DSA's, in two passes.

Where DSA applies one operation of its strategy, IDC always applies flip, color and cutout, those of them that the
strategy names, and one of the others; in the order flip, color, the other, cutout. What is warped has its colors
changed already, so that the zeros that a shift brings in stay zeros: one pass of :func:`fastdd.ops.augment`, which
warps first, can't do both.
"""

import torch
from torch import Tensor

from fastdd.core import rng
from fastdd.ops.augment import Param, augment
from fastdd.ops.dsa import dsa_params, parse_strategy

_FIRST, _ALWAYS = ("flip", "color"), ("flip", "color", "cutout")


def idc_params(
    strategy: str | tuple[str, ...],
    keys: Tensor,
    size: tuple[int, int],
    *,
    shared_op: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Random parameter rows of one or two passes a key: flip, color and cutout, as far as the strategy names them, and
    one of its other operations, chosen uniformly.

    Ranges are those of :func:`fastdd.ops.dsa_params`, whose arguments these are; matching takes one key for the real
    and the synthetic images of a class, training one an image with ``shared_op`` (the chosen operation is the batch's).

    Returns:
        [R, 2, 13] or [*, R, 2, 13] on keys' device, for :func:`augment_passes`; with 1 in place of 2 where one pass is
        enough.

    >>> idc_params("color_crop_cutout", rng.lanes(rng.key(0, "docs"), 4), (32, 32)).shape
    torch.Size([4, 2, 13])
    """
    ops = parse_strategy(strategy) if isinstance(strategy, str) else tuple(strategy)
    of_op = dict(zip(_ALWAYS, rng.bits(keys, 3).unbind(-1), strict=True))

    def of(names: tuple[str, ...], lanes: Tensor) -> Tensor:
        return dsa_params(names, lanes, size, shared_op=shared_op, dtype=dtype)

    passes = []
    if any(name in ops for name in _FIRST):
        flip = of(("flip",) if "flip" in ops else (), of_op["flip"])
        if "color" in ops:
            color = slice(Param.BRIGHTNESS, Param.CONTRAST + 1)
            flip[..., color] = of(("color",), of_op["color"])[..., color]
        passes.append(flip)
    others = tuple(name for name in ops if name not in _ALWAYS)
    if others or "cutout" in ops or not passes:
        other = of(others, keys)
        if "cutout" in ops:
            cut = slice(Param.TOP, Param.RIGHT + 1)
            other[..., cut] = of(("cutout",), of_op["cutout"])[..., cut]
        passes.append(other)
    return torch.stack(passes, -2)


def augment_passes(x: Tensor, params: Tensor, rows: Tensor | None = None, **first) -> Tensor:
    """:func:`fastdd.ops.augment` pass after pass.

    Args:
        x, rows: as :func:`fastdd.ops.augment` takes them.
        params: [R, 13], or [R, passes, 13].
        first: further arguments of the first pass, of uint8 images.

    Returns, raises, cost: as :func:`fastdd.ops.augment`, a pass.
    """
    passes = params.unbind(1) if params.dim() == 3 else (params,)
    for number, of_pass in enumerate(passes):
        x = augment(x, of_pass.contiguous(), rows, **(first if number == 0 else {}))
    return x
