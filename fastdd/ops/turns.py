"""Steps of one optimiser that classes take in turn: all of a round's in one launch."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.reference import turns as reference


def _launch(*arguments) -> None:
    # PyTorch registers no derivative of what writes into an argument; the reference has its operations' own.
    if any(
        isinstance(t, Tensor) and (_dispatch.has_tangent(t) or (t.requires_grad and torch.is_grad_enabled()))
        for t in arguments
    ):
        raise RuntimeError("turns_ has no derivative: call it under torch.no_grad(), on tensors without tangents")
    from fastdd.kernels import turns as kernels

    kernels.turns_(*arguments)


_TURNS = _dispatch.define(
    "turns_(Tensor(a!) images, Tensor(b!) momentum, Tensor(c!)? second, Tensor? gradient, Tensor lr, int classes,"
    " Tensor done, float decay, float weight_decay) -> ()",
    reference.turns_,
    {"cuda": "triton"},
)
_dispatch.register_triton(_TURNS, _launch)
_dispatch.register_fake(_TURNS, lambda *_: None)


@_dispatch.public
def turns_(
    images: Tensor,
    momentum: Tensor,
    second: Tensor | None,
    gradient: Tensor | None,
    lr: Tensor,
    classes: int,
    done: int | Tensor,
    *,
    decay: float,
    weight_decay: float = 0.0,
    backend: str = "auto",
) -> None:
    """Half a round of AdamW, or of SGD with momentum, in which C classes step one after another; in place.

    Each of a round's C steps moves all images: those whose turn it is not have a gradient of zero, and go on by their
    moments. Without a gradient, the steps before each class's own; with one, its own and those after it.

    Args:
        images: float32 or float64 [C * IPC, ...], contiguous, class-major; changed in place.
        momentum: of their shape: SGD's buffer, or AdamW's first moment; changed in place.
        second: AdamW's second moment, changed in place; None: SGD.
        gradient: of their shape, or None.
        lr: float64 scalar on the images' device.
        classes: C.
        done: steps before the round; or an int64 scalar of them on the images' device, which nothing waits for.
        decay: of the momentum: SGD's, or AdamW's first beta (the second is 0.999, its epsilon 1e-8).
        weight_decay: AdamW's.
        backend: ``auto``, ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto`` means.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
        RuntimeError: a backend asked for by name that can't run here; on GPUs, a derivative asked for.

    Deterministic; an element's bits depend on no other's. On GPUs one launch; elsewhere C times some operations.

    >>> images, momentum = torch.zeros(2), torch.ones(2)
    >>> turns_(images, momentum, None, None, torch.tensor(1.0, dtype=torch.float64), 2, 0, decay=0.5)
    >>> images, momentum  # the second class has waited for one step
    (tensor([ 0.0000, -0.5000]), tensor([1.0000, 0.5000]))
    """
    given = [t for t in (momentum, second, gradient) if t is not None]
    if images.dtype not in (torch.float32, torch.float64) or not images.is_contiguous():
        raise ValueError(f"images must be contiguous float32 or float64, not {images.dtype} of {images.stride()}")
    for tensor in given:
        if tensor.shape != images.shape or tensor.dtype != images.dtype or tensor.device != images.device:
            raise ValueError(
                f"moments and gradient must be {images.dtype} {list(images.shape)} on {images.device} as the images "
                f"are, not {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
            )
    if lr.dtype != torch.float64 or lr.dim() or lr.device != images.device:
        raise ValueError(f"lr must be a float64 scalar on {images.device}, not {lr.dtype} {list(lr.shape)}")
    if not isinstance(done, Tensor):
        if done < 0:
            raise ValueError(f"done must be a number of steps, not {done}")
        done = torch.full((), done, dtype=torch.int64, device=images.device)
    if done.dtype != torch.int64 or done.dim() or done.device != images.device:
        raise ValueError(f"done must be an int64 scalar on {images.device}, not {done.dtype} {list(done.shape)}")
    if classes < 1 or not images.dim() or len(images) % classes:
        raise ValueError(f"images must be of {classes} classes, as many of each, not {list(images.shape)}")
    chosen = _dispatch.choose("turns_", backend, images.device)
    arguments = images, momentum, second, gradient, lr, classes, done, decay, weight_decay
    if chosen == "dispatch":
        torch.ops.fastdd.turns_(*arguments)
    else:
        (_launch if chosen == "interpret" else reference.turns_)(*arguments)
