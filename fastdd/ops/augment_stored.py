"""Multi-formation and augmentation in one pass: what a matching step sees of images that hold several each."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.ops.augment import check_params, check_values, run
from fastdd.ops.formation import GREY, check_parts, check_stored, fill_of
from fastdd.reference.augment import augment, augment_adjoint
from fastdd.reference.formation import formation, formation_adjoint

_KERNELS = {"cpu": "native", "cuda": "native"}


def _reference(
    stored: Tensor,
    params: Tensor,
    rows: Tensor | None,
    linear: bool,
    factor: int,
    parts: Tensor | None,
    fill: Tensor | None,
) -> Tensor:
    seen = formation(stored, factor, parts, fill)
    check_values(params, rows, len(seen))
    return augment(seen, params, rows, linear)


def _reference_adjoint(
    g: Tensor, params: Tensor, rows: Tensor | None, n: int, factor: int, parts: Tensor | None
) -> Tensor:
    check_values(params, rows, len(g))
    return formation_adjoint(augment_adjoint(g, params, rows), n, *g.shape[2:], factor, parts)


_AUGMENT = _dispatch.define(
    "augment_stored(Tensor stored, Tensor params, Tensor? rows, bool linear, int factor, Tensor? parts, Tensor? fill) "
    "-> Tensor",
    _reference,
    _KERNELS,
)
_ADJOINT = _dispatch.define(
    "augment_stored_adjoint(Tensor g, Tensor params, Tensor? rows, SymInt n, int factor, Tensor? parts) -> Tensor",
    _reference_adjoint,
    _KERNELS,
)


def _fake(stored, params, rows, linear, factor, parts, fill):
    n = stored.shape[0] * factor**2 if parts is None else parts.shape[0]
    return stored.new_empty((n, *stored.shape[1:]))


def _adjoint_fake(g, params, rows, n, factor, parts):
    return g.new_empty((n, *g.shape[1:]))


def _setup(ctx, inputs, output):
    stored, params, rows, _, ctx.factor, parts, _ = inputs
    ctx.save_for_backward(params, rows, parts)
    ctx.n = stored.shape[0]


def _backward(ctx, g):
    params, rows, parts = ctx.saved_tensors
    of_stored = torch.ops.fastdd.augment_stored_adjoint(g, params, rows, ctx.n, ctx.factor, parts)
    return of_stored, None, None, None, None, None, None


def _adjoint_setup(ctx, inputs, output):
    _, params, rows, _, ctx.factor, parts = inputs
    ctx.save_for_backward(params, rows, parts)


def _adjoint_backward(ctx, g):
    params, rows, parts = ctx.saved_tensors
    of_g = torch.ops.fastdd.augment_stored(g, params, rows, True, ctx.factor, parts, None)
    return of_g, None, None, None, None, None


_dispatch.register_fake(_AUGMENT, _fake)
_dispatch.register_fake(_ADJOINT, _adjoint_fake)
_dispatch.register_autograd(_AUGMENT, _backward, _setup, constant=["params", "fill"])
_dispatch.register_autograd(_ADJOINT, _adjoint_backward, _adjoint_setup, constant=["params"])


def augment_stored(
    stored: Tensor,
    params: Tensor,
    rows: Tensor | None = None,
    *,
    factor: int,
    parts: Tensor | None = None,
    fill: float | Tensor = GREY,
    backend: str = "auto",
) -> Tensor:
    """``augment(formation(stored, factor, parts, fill=fill), params, rows)``, without the decoded images in between.

    Args:
        stored: [M, C, H, W], float32, float64 or bfloat16 (computed in float32, also in between), differentiable to any
            order.
        params, rows: of the decoded images, as of :func:`fastdd.ops.augment`: a row of parameters for each address.
        factor, parts, fill: as of :func:`fastdd.ops.formation`.
        backend: ``auto``, ``native`` (C++ or CUDA) or ``reference``; FASTDD_BACKEND sets what ``auto`` means.

    Returns:
        [N, C, H, W], contiguous, of stored's dtype.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`fastdd.ops.formation` and :func:`fastdd.ops.augment`.

    Two runs are bitwise equal, in the derivatives too, and do not depend on the number of threads. Cost: one read of
    the stored images and one write of the result; on CPUs the adjoint likewise, on GPUs it writes the gradients of the
    decoded images on the way.
    """
    check_stored(stored, factor)
    n = check_parts(parts, stored.shape[0], factor, stored.device)
    check_params(params, rows, n, stored.device)
    rest = False, factor, parts, fill_of(fill, stored, factor)
    if _dispatch.choose("augment_stored", backend, stored.device) == "reference":
        return _reference(stored, params, rows, *rest)
    return run(torch.ops.fastdd.augment_stored, n, stored, params, rows, *rest)
