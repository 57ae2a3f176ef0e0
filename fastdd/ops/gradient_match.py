"""Gradient matching's distances: every layer, class and protected group, each gradient row read once."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.reference import gradient_match as reference
from fastdd.reference.segment_mean import accumulation_dtype

METRICS = ("ours", "mse", "cos", "l1")

_KERNELS = {"cpu": "native", "cuda": "triton"}
# CPUs go layer by layer, each in cache.
_ON_GPUS = {"cuda": "triton"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Metrics of differences, which sum over all parameters, and their ops.
_DIFFERENCES = {"mse": "gradient_match_distances", "l1": "gradient_match_absolutes"}


def _define(schema: str, kernels: Mapping[str, str] = MappingProxyType(_KERNELS)) -> str:
    name = schema[: schema.index("(")]

    def launch(*arguments):
        from fastdd.kernels import gradient_match, gradient_match_layers

        return getattr(gradient_match_layers if "layers" in name else gradient_match, name)(*arguments)

    qualified = _dispatch.define(schema, getattr(reference, name), kernels)
    _dispatch.register_triton(qualified, launch)
    return qualified


_PRODUCTS = _define("gradient_match_products(Tensor a, Tensor b, Tensor classes) -> (Tensor, Tensor, Tensor)")
_COMBINE = _define("gradient_match_combine(Tensor p, Tensor q, Tensor a, Tensor b, Tensor classes) -> Tensor")
_DISTANCES = _define("gradient_match_distances(Tensor a, Tensor b, Tensor classes) -> Tensor")
_PULL = _define("gradient_match_pull(Tensor p, Tensor a, Tensor b, Tensor classes) -> Tensor")
_ABSOLUTES = _define("gradient_match_absolutes(Tensor a, Tensor b, Tensor classes) -> Tensor")
_SIGNS = _define("gradient_match_signs(Tensor p, Tensor a, Tensor b, Tensor classes) -> Tensor")


def _rows_fake(a, b, classes):
    return b.new_empty(a.shape[:2])


def _products_fake(a, b, classes):
    return tuple(_rows_fake(a, b, classes) for _ in range(3))


def _combine_fake(p, q, a, b, classes):
    return b.new_empty(b.shape)


def _pull_fake(p, a, b, classes):
    return b.new_empty(b.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _products_backward(ctx, g_ab, g_aa, g_bb):
    a, b, classes = ctx.saved_tensors
    real = synthetic = None
    if ctx.needs_input_grad[0]:
        of_class = reference.rows_of(b, classes)
        real = (g_ab[..., None] * of_class + 2 * g_aa[..., None] * reference.present_rows(a, classes)).to(a.dtype)
    if ctx.needs_input_grad[1]:
        synthetic = _dispatch.peer(ctx, "gradient_match_combine")(g_ab, 2 * g_bb, a, b, classes)
    return real, synthetic, None


def _combine_backward(ctx, h):
    p, q, a, b, classes = ctx.saved_tensors
    g_p = g_q = real = synthetic = None
    if ctx.needs_input_grad[0]:
        g_p, _, _ = _dispatch.peer(ctx, "gradient_match_products")(a, h, classes)
    if ctx.needs_input_grad[1]:
        g_q = reference.rows_of((b * h).sum(2), classes)
    if ctx.needs_input_grad[2]:
        real = (p[..., None] * reference.rows_of(h, classes)).to(a.dtype)
    if ctx.needs_input_grad[3]:
        synthetic = _dispatch.peer(ctx, "gradient_match_combine")(torch.zeros_like(q), q, a, h, classes)
    return g_p, g_q, real, synthetic, None


def _distances_backward(ctx, g):
    a, b, classes = ctx.saved_tensors
    real = synthetic = None
    if ctx.needs_input_grad[0]:
        real = (2 * g[..., None] * (reference.present_rows(a, classes) - reference.rows_of(b, classes))).to(a.dtype)
    if ctx.needs_input_grad[1]:
        synthetic = _dispatch.peer(ctx, "gradient_match_pull")(2 * g, a, b, classes)
    return real, synthetic, None


def _pull_backward(ctx, h):
    p, a, b, classes = ctx.saved_tensors
    g_p = real = synthetic = None
    if ctx.needs_input_grad[0]:
        products, _, _ = _dispatch.peer(ctx, "gradient_match_products")(a, h, classes)
        g_p = reference.rows_of((b * h).sum(2), classes) - products
    if ctx.needs_input_grad[1]:
        real = -(p[..., None] * reference.rows_of(h, classes)).to(a.dtype)
    if ctx.needs_input_grad[2]:
        synthetic = _dispatch.peer(ctx, "gradient_match_combine")(torch.zeros_like(p), p, a, h, classes)
    return g_p, real, synthetic, None


def _absolutes_backward(ctx, g):
    a, b, classes = ctx.saved_tensors
    real = synthetic = None
    if ctx.needs_input_grad[0]:
        signs = (reference.present_rows(a, classes) - reference.rows_of(b, classes)).sign()
        real = (g[..., None] * signs).to(a.dtype)
    if ctx.needs_input_grad[1]:
        synthetic = _dispatch.peer(ctx, "gradient_match_signs")(g, a, b, classes)
    return real, synthetic, None


def _signs_backward(ctx, h):
    _, a, b, classes = ctx.saved_tensors
    g_p = real = synthetic = None
    if ctx.needs_input_grad[0]:
        signs = (reference.rows_of(b, classes) - reference.present_rows(a, classes)).sign()
        g_p = (reference.rows_of(h, classes) * signs).sum(2)
    # A sign is constant but at 0, where its slope is taken to be 0 too.
    if ctx.needs_input_grad[1]:
        real = torch.zeros_like(a)
    if ctx.needs_input_grad[2]:
        synthetic = torch.zeros_like(b)
    return g_p, real, synthetic, None


_dispatch.register_fake(_PRODUCTS, _products_fake)
_dispatch.register_fake(_COMBINE, _combine_fake)
_dispatch.register_fake(_DISTANCES, _rows_fake)
_dispatch.register_fake(_PULL, _pull_fake)
_dispatch.register_fake(_ABSOLUTES, _rows_fake)
_dispatch.register_fake(_SIGNS, _pull_fake)
_dispatch.register_autograd(_PRODUCTS, _products_backward, _save)
_dispatch.register_autograd(_COMBINE, _combine_backward, _save)
_dispatch.register_autograd(_DISTANCES, _distances_backward, _save)
_dispatch.register_autograd(_PULL, _pull_backward, _save)
_dispatch.register_autograd(_ABSOLUTES, _absolutes_backward, _save)
_dispatch.register_autograd(_SIGNS, _signs_backward, _save)


def _layers_fake(a, b, classes, present, rows, columns, metric):
    of_rows, none = b.new_empty((a.shape[0], sum(rows))), b.new_empty(0)
    others = (none, none.clone()) if metric in _DIFFERENCES else (of_rows.clone(), of_rows.clone())
    return b.new_empty(a.shape[0]), of_rows, *others


def _layers_setup(ctx, inputs, output):
    *tensors, ctx.rows, ctx.columns, ctx.metric = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _layers_backward(ctx, g, *_):
    a, b, classes, present, *products = ctx.saved_tensors
    geometry = ctx.rows, ctx.columns, ctx.metric
    if g is None:
        return (None,) * 7
    if not (torch.is_grad_enabled() or ctx.needs_input_grad[0]):
        pulled = _dispatch.peer(ctx, "gradient_match_layers_pull")(g, a, b, classes, present, *products, *geometry)
        return None, pulled, *(None,) * 5
    # Of a gradient that is differentiated again, and of the real side, which no method asks for: layer by layer.
    chosen = "interpret" if getattr(ctx, "interpreted", False) else "dispatch"
    asked = [t for t, needed in zip((a, b), ctx.needs_input_grad, strict=False) if needed]
    with torch.enable_grad():
        layers = [*zip(*(reference.split_layers(t, ctx.rows, ctx.columns) for t in (a, b)), strict=True)]
        distances = _by_layer(layers, classes, present, ctx.metric, chosen)
    found = iter(torch.autograd.grad(distances, asked, g, create_graph=torch.is_grad_enabled()))
    return *(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), *(None,) * 5


_LAYERS = _define(
    "gradient_match_layers(Tensor a, Tensor b, Tensor classes, Tensor? present, int[] rows, int[] columns, str metric)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _ON_GPUS,
)
_LAYERS_PULL = _define(
    "gradient_match_layers_pull(Tensor g, Tensor a, Tensor b, Tensor classes, Tensor? present, Tensor ab, Tensor aa,"
    " Tensor bb, int[] rows, int[] columns, str metric) -> Tensor",
    _ON_GPUS,
)
_dispatch.register_fake(_LAYERS, _layers_fake)
_dispatch.register_fake(_LAYERS_PULL, lambda g, a, b, *_: b.new_empty(b.shape))
_dispatch.register_autograd(_LAYERS, _layers_backward, _layers_setup)
_dispatch.register_no_autograd(_LAYERS_PULL)


def _op(name: str, chosen: str) -> Callable:
    if chosen == "reference":
        return getattr(reference, name)
    return _dispatch.interpreted(name) if chosen == "interpret" else getattr(torch.ops.fastdd, name)


def _check(real: Sequence[Tensor], synthetic: Sequence[Tensor], classes: Tensor, present: Tensor | None) -> None:
    if len(real) != len(synthetic) or not real:
        raise ValueError(f"real and synthetic must have one gradient a layer; got {len(real)} and {len(synthetic)}")
    for name, gradients in (("real", real), ("synthetic", synthetic)):
        for i, gradient in enumerate(gradients):
            _dispatch.check_tensor(f"{name}[{i}]", gradient)
    segments, num_classes = real[0].shape[:1], synthetic[0].shape[:1]
    device = real[0].device
    for i, (a, b) in enumerate(zip(real, synthetic, strict=True)):
        if a.dtype not in _FLOATS:
            raise TypeError(f"real[{i}] must be float32, float64, bfloat16 or float16, not {a.dtype}")
        if b.dtype != accumulation_dtype(a.dtype):
            raise TypeError(
                f"synthetic[{i}] must be {accumulation_dtype(a.dtype)} to match real's {a.dtype}, not {b.dtype}"
            )
        if not a.dim() or a.shape != segments + b.shape[1:] or b.shape[:1] != num_classes or a.dim() != b.dim():
            raise ValueError(
                f"real[{i}] must be [S, *shape] and synthetic[{i}] [C, *shape], with the same S and C for all layers; "
                f"got {list(a.shape)} and {list(b.shape)}"
            )
        if {a.device, b.device} != {device}:
            raise ValueError(f"real[{i}] is on {a.device} and synthetic[{i}] on {b.device}: move them to {device}")
    _dispatch.check_classes(classes, segments[0], num_classes[0], device)
    if present is not None:
        if present.dtype != torch.bool or present.shape != classes.shape:
            raise ValueError(f"present must be bool {list(classes.shape)}, not {present.dtype} {list(present.shape)}")
        if present.device != device:
            raise ValueError(f"present is on {present.device} and the gradients on {device}: move one of them")


def _rows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's gradients as rows of a matrix each: [n, out, in, h, w] -> [n, out, in * h * w]; below 2-D, one row."""
    channels_last = 0, 1, 3, 4, 2
    if a.dim() == 5 and not a.is_contiguous() and a.permute(channels_last).is_contiguous():
        # As convolutions give them; the order within a row doesn't matter, and this one needs no copy.
        a, b = a.permute(channels_last), b.permute(channels_last)
    while a.dim() < 3:
        a, b = a.unsqueeze(1), b.unsqueeze(1)
    return a.flatten(2), b.flatten(2)


def _norm(square: Tensor) -> Tensor:
    """The root, with slope 0 at 0 in every order of derivative, as published code's norm has in the first."""
    zero = square == 0
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


_Layers = Sequence[tuple[Tensor, Tensor]]


@_dispatch.public
def gradient_match(
    real: Sequence[Tensor],
    synthetic: Sequence[Tensor],
    classes: Tensor,
    *,
    metric: str = "ours",
    present: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Distance of every segment's real gradients r to the synthetic gradients s of its class, summed over the layers.

    As in published code of gradient matching (DC; Zhao, Mopuri and Bilen, ICLR 2021), ``l1`` in that of IDC (Kim et
    al., ICML 2022):

    - ``ours``: the sum over the rows of every layer of ``1 - <r, s> / (|r| |s| + 1e-6)``. A row is an output channel
      of a convolution [out, in, h, w], a channel of a layer norm [C, H, W], an output of a linear layer; 1-D
      parameters are left out.
    - ``mse``: ``|r - s|^2`` over all parameters.
    - ``cos``: ``1 - <r, s> / (|r| |s| + 1e-6)``, all parameters being one vector.
    - ``l1``: the sum of ``|r - s|`` over all parameters, with slope 0 where they agree. (IDC hands over those of
      convolutions only: ``parameters="conv"`` of :func:`fastdd.ops.group_grad`.)

    With segments that are the protected groups of a class this is FairDD's distance, where a synthetic gradient meets
    every group of its class. A norm has slope 0 at a row of zeros, in all orders of derivative.

    Args:
        real: for every layer [S, *shape], float32, float64, bfloat16 or float16; differentiable to any order.
        synthetic: for every layer [C, *shape], float64 where ``real`` is and float32 otherwise; differentiable to any
            order.
        classes: int64 [S], class of each segment, in any order; contents are checked on the CPU only.
        metric: ``ours``, ``mse``, ``cos`` or ``l1``.
        present: bool [S]; a segment that is not has distance 0 and pulls nothing, and its gradients are not read.
            None means that all are.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [S], of the synthetic gradients' dtype.

    Raises:
        ValueError: a shape, device, class or metric that does not fit.
        TypeError: a dtype that does not.
        RuntimeError: a backend asked for by name that can't run here.

    Two runs are bitwise equal, and do not depend on the number of threads. Cost: one pass over the real gradients, and
    one more for the gradient in the synthetic ones, whatever the number of segments a class; on GPUs two launches and
    one for any number of layers, after both sides are written side by side. Besides the gradients
    themselves, nothing but row products [S, rows] is kept.

    >>> real, synthetic = [torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])], [torch.tensor([[[3.0, 0.0]]])]
    >>> classes = torch.tensor([0, 0])
    >>> gradient_match(real, synthetic, classes)
    tensor([0.4000, 1.0000])
    >>> gradient_match(real, synthetic, classes, metric="mse", present=torch.tensor([True, False]))
    tensor([16.,  0.])
    """
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is not one of {', '.join(METRICS)}")
    _check(real, synthetic, classes, present)
    layers = [_rows(a, b) for a, b in zip(real, synthetic, strict=True) if metric != "ours" or a.dim() > 2]
    if not layers:
        raise ValueError("metric 'ours' matches parameters of 2 or more dimensions, and there are none; use 'mse'")
    chosen = _dispatch.choose("gradient_match_products", backend, classes.device)
    if chosen == "interpret" or (
        chosen == "dispatch" and _dispatch.has_kernel("gradient_match_layers", classes.device)
    ):
        of_one_type = {a.dtype for a, _ in layers} == {layers[0][0].dtype}
        if of_one_type:
            return _at_once(layers, classes, present, metric, chosen)
    return _by_layer(layers, classes, present, metric, chosen)


def _at_once(layers: _Layers, classes: Tensor, present: Tensor | None, metric: str, chosen: str) -> Tensor:
    """All layers side by side: so many launches for any number of them."""
    a, b = (torch.cat([t.flatten(1) for t in of_side], 1) for of_side in zip(*layers, strict=True))
    rows, columns = ([b.shape[i] for _, b in layers] for i in (1, 2))
    return _op("gradient_match_layers", chosen)(a, b, classes, present, rows, columns, metric)[0]


def _by_layer(layers: _Layers, classes: Tensor, present: Tensor | None, metric: str, chosen: str) -> Tensor:
    """One layer after another: on CPUs, and differentiable to any order."""
    owners = classes if present is None else torch.where(present, classes, -1)
    dtype = layers[0][1].dtype
    # Sums over rows and layers are float64: they are small, and it leaves no rounding but that of the rows.
    if metric in _DIFFERENCES:
        distances = _op(_DIFFERENCES[metric], chosen)
        return sum(distances(a, b, owners).sum(1, dtype=torch.float64) for a, b in layers).to(dtype)
    products = _op("gradient_match_products", chosen)
    rows = zip(*[products(a, b, owners) for a, b in layers], strict=True)
    ab, aa, bb = (torch.cat(of_layers, 1) for of_layers in rows)
    if metric == "cos":
        ab, aa, bb = (t.sum(1, keepdim=True, dtype=torch.float64) for t in (ab, aa, bb))
    total = (1 - ab / (_norm(aa) * _norm(bb) + reference.EPS)).sum(1, dtype=torch.float64).to(dtype)
    return total if present is None else torch.where(present, total, 0)
