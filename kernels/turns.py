"""Triton kernel of turns_: an element is read once, and does all of its moves. Never run on a GPU yet."""

import math

import triton
import triton.language as tl
from torch import Tensor

from fastdd.kernels.config import config
from fastdd.kernels.segment_mean import accumulator, on

# AdamW's second beta and its epsilon, PyTorch's defaults.
_BETA, _EPS, _LOG_BETA = tl.constexpr(0.999), tl.constexpr(1e-8), tl.constexpr(math.log(0.999))


@triton.jit
def moved(b_x, b_m, b_v, rate, number, WEIGHT_DECAY: tl.constexpr, LOG_DECAY: tl.constexpr, ADAM: tl.constexpr):
    """Images after the move of step ``number``, from 1; its factors are float64, as they are near 0."""
    if ADAM:
        count = tl.cast(number, tl.float64)
        of_first = 1 - tl.exp(count * tl.full((), LOG_DECAY, dtype=tl.float64))
        of_second = 1 - tl.exp(count * tl.full((), _LOG_BETA, dtype=tl.float64))
        shrink = 1 - rate * tl.full((), WEIGHT_DECAY, dtype=tl.float64)
        b_scale = tl.sqrt(b_v / of_second.to(b_v.dtype)) + _EPS
        return b_x * shrink.to(b_x.dtype) + b_m / (b_scale * (of_first / -rate).to(b_x.dtype))
    else:
        return b_x - b_m * rate.to(b_x.dtype)


@triton.jit
def turns_moves(
    images,
    momentum,
    second,
    gradient,
    lr,
    n_classes,
    size,
    done,
    ACC: tl.constexpr,
    DECAY: tl.constexpr,
    LOG_DECAY: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    ADAM: tl.constexpr,
    OWN: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    blocks = tl.cdiv(size, ELEMENTS)
    i_class = tl.program_id(0) // blocks
    o_e = (tl.program_id(0) % blocks) * ELEMENTS + tl.arange(0, ELEMENTS)
    m_e = o_e < size
    o_x = i_class.to(tl.int64) * size + o_e
    rate = tl.load(lr)
    before = tl.load(done)
    decay = tl.full((), DECAY, dtype=tl.float64)
    beta = tl.full((), _BETA, dtype=tl.float64)
    b_x = tl.load(images + o_x, mask=m_e, other=0.0)
    b_m = tl.load(momentum + o_x, mask=m_e, other=0.0)
    if ADAM:  # noqa: SIM108 - compiled away
        b_v = tl.load(second + o_x, mask=m_e, other=0.0)
    else:
        b_v = b_m
    first = 0
    last = i_class
    if OWN:
        b_g = tl.load(gradient + o_x, mask=m_e, other=0.0)
        b_m = b_m * decay.to(ACC)
        if ADAM:
            b_m += (1 - decay).to(ACC) * b_g
            b_v = b_v * beta.to(ACC) + (1 - beta).to(ACC) * b_g * b_g
        else:
            b_m += b_g
        b_x = moved(b_x, b_m, b_v, rate, before + i_class + 1, WEIGHT_DECAY, LOG_DECAY, ADAM)
        first = i_class + 1
        last = n_classes
    for turn in range(first, last):
        b_m = b_m * decay.to(ACC)
        if ADAM:
            b_v = b_v * beta.to(ACC)
        b_x = moved(b_x, b_m, b_v, rate, before + turn + 1, WEIGHT_DECAY, LOG_DECAY, ADAM)
    tl.store(images + o_x, b_x, mask=m_e)
    tl.store(momentum + o_x, b_m, mask=m_e)
    if ADAM:
        tl.store(second + o_x, b_v, mask=m_e)


def turns_(
    images: Tensor,
    momentum: Tensor,
    second: Tensor | None,
    gradient: Tensor | None,
    lr: Tensor,
    classes: int,
    done: Tensor,
    decay: float,
    weight_decay: float,
) -> None:
    """One launch for :func:`fastdd.ops.turns_`."""
    size = images.numel() // classes
    if not size:
        return
    _, acc = accumulator(images.dtype)
    # What is not contiguous is written by a copy.
    states = [t if t is None or t.is_contiguous() else t.contiguous() for t in (momentum, second)]
    options = config("turns_moves", images.device)
    with on(images.device):
        turns_moves[(classes * -(-size // options["ELEMENTS"]),)](
            images,
            states[0],
            states[0] if second is None else states[1],
            images if gradient is None else gradient.contiguous(),
            lr,
            classes,
            size,
            done,
            ACC=acc,
            DECAY=decay,
            LOG_DECAY=math.log(decay) if decay else -1e9,
            WEIGHT_DECAY=weight_decay,
            ADAM=second is not None,
            OWN=gradient is not None,
            **options,
        )
    for given, written in zip((momentum, second), states, strict=True):
        if given is not written:
            given.copy_(written)
