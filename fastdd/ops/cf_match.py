"""Matching characteristic functions (NCFM): every class and protected group, with no matrix of rows and frequencies."""

import torch
from torch import Tensor

from fastdd.ops import _dispatch
from fastdd.ops.segment_mean import check_constant_weights, segment_mean
from fastdd.reference import cf_match as reference
from fastdd.reference.segment_mean import accumulation_dtype

_KERNELS = {"cpu": "native", "cuda": "triton"}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _triton(name: str, *arguments) -> Tensor:
    from fastdd.kernels import cf_match as kernels

    return getattr(kernels, name)(*arguments)


def _launch_means(x, t, offsets, weights, classes) -> Tensor:
    return _triton("cf_means", x, t, offsets, weights, classes)


def _launch_pull(g, x, t, offsets, weights, classes) -> Tensor:
    return _triton("cf_pull", g, x, t, offsets, weights, classes)


_MEANS = _dispatch.define(
    "cf_means(Tensor x, Tensor t, Tensor offsets, Tensor? weights, Tensor classes) -> Tensor",
    reference.cf_means,
    _KERNELS,
)
_PULL = _dispatch.define(
    "cf_pull(Tensor g, Tensor x, Tensor t, Tensor offsets, Tensor? weights, Tensor classes) -> Tensor",
    reference.cf_pull,
    _KERNELS,
)
_FREQUENCIES = _dispatch.define(
    "cf_frequencies(Tensor keys, SymInt n) -> Tensor", reference.cf_frequencies, {"cpu": "native"}
)
_dispatch.register_triton(_MEANS, _launch_means)
_dispatch.register_triton(_PULL, _launch_pull)
_dispatch.register_fake(_MEANS, lambda x, t, offsets, weights, classes: t.new_empty((len(classes), t.shape[1], 2)))
_dispatch.register_fake(_PULL, lambda g, x, t, offsets, weights, classes: t.new_empty(x.shape))
_dispatch.register_fake(_FREQUENCIES, lambda keys, n: keys.new_empty((*keys.shape, n), dtype=torch.float32))


def _means_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _means_backward(ctx, g):
    x, t, offsets, weights, classes = ctx.saved_tensors
    pulled = _dispatch.peer(ctx, "cf_pull")(g, x, t, offsets, weights, classes).to(x.dtype)
    return pulled, None, None, None, None


_dispatch.register_autograd(_MEANS, _means_backward, _means_setup, constant=["t", "weights"])
_dispatch.register_no_autograd(_PULL)
_dispatch.register_no_autograd(_FREQUENCIES)


def cf_frequencies(keys: Tensor, number: int, columns: int, *, backend: str = "auto") -> Tensor:
    """Random frequencies t ~ N(0, I) from counter-based keys, one set a key.

    Args:
        keys: int64 [C], from :mod:`fastdd.core.rng`.
        number: frequencies a set, K.
        columns: D.
        backend: ``auto``, ``native`` (C++, CPU) or ``reference``; FASTDD_BACKEND sets what ``auto`` means.

    Returns:
        float32 [C, K, D] on the keys' device.

    Raises:
        ValueError: keys that are not int64 [C], or a negative size.
        RuntimeError: a backend asked for by name that can't run here.

    A function of the keys: two draws of 64 bits of a key (Box and Muller, magnitudes up to 6.8). Backends and devices
    agree up to the rounding of logarithm, sine and cosine. Cost: one write of the result.

    >>> from fastdd.core import rng
    >>> cf_frequencies(rng.lanes(rng.key(0, "docs"), 2), 3, 4).shape
    torch.Size([2, 3, 4])
    """
    if keys.dtype != torch.int64 or keys.dim() != 1:
        raise ValueError(f"keys must be int64 [C], not {keys.dtype} {list(keys.shape)}")
    if number < 0 or columns < 0:
        raise ValueError(f"number and columns must be at least 0, not {number} and {columns}")
    chosen = _dispatch.choose("cf_frequencies", backend, keys.device)
    draw = reference.cf_frequencies if chosen == "reference" else torch.ops.fastdd.cf_frequencies
    return draw(keys, number * columns).unflatten(1, (number, columns))


def _check(
    real: Tensor, synthetic: Tensor, t: Tensor, offsets: Tensor, weights: Tensor | None, classes: Tensor, count: int
) -> None:
    if real.dtype not in _FLOATS:
        raise TypeError(f"real must be float32, float64, bfloat16 or float16, not {real.dtype}")
    if real.dim() != 2:
        raise ValueError(f"real must be [N, D], not {list(real.shape)}: flatten the rest with real.flatten(1)")
    check_constant_weights(offsets, weights, real.shape[0], real.device)
    dtype = accumulation_dtype(real.dtype)
    for name, tensor in (("synthetic", synthetic), ("t", t)):
        if tensor.dtype != dtype:
            raise TypeError(f"{name} must be {dtype} to match real's {real.dtype}, not {tensor.dtype}")
        if tensor.device != real.device:
            raise ValueError(f"{name} is on {tensor.device} and real on {real.device}: move one of them")
    rows, columns = synthetic.shape if synthetic.dim() == 2 else (0, -1)
    if columns != real.shape[1] or count < 1 or rows < count or rows % count:
        raise ValueError(
            f"synthetic must be [C * IPC, D] with C = {count} and D = {real.shape[1]}, not {list(synthetic.shape)}"
        )
    if t.dim() != 3 or t.shape[0] not in (1, count) or t.shape[1] < 1 or t.shape[2] != columns:
        raise ValueError(
            f"t must be [C, K, D] or [1, K, D] with C = {count}, K at least 1 and D = {columns}, not {list(t.shape)}"
        )
    if t.requires_grad:
        raise ValueError("t is not differentiable here: pass t.detach()")
    _dispatch.check_classes(classes, offsets.shape[0] - 1, count, real.device)


def _length(z: Tensor) -> Tensor:
    """Of complex numbers [*, 2], with slope 0 at 0."""
    return torch.linalg.vector_norm(z, dim=-1)


def _distances(real: Tensor, synthetic: Tensor, amplitude: float, phase: float) -> Tensor:
    """``sqrt(amplitude (|a| - |b|)^2 + phase 2 (|a| |b| - Re a conj b))`` of complex numbers [*, 2].

    The second term is |a - b|^2 less the first. None of it is taken as a difference of what is nearly equal:
    |a| - |b| = Re (a - b) conj(a + b) / (|a| + |b|), and with p = |a| |b| and q = Re a conj b, p - q = (Im (a - b) conj
    b)^2 / (p + q).
    """
    difference = real - synthetic
    if amplitude == phase:
        return amplitude**0.5 * _length(difference)
    lengths = _length(real), _length(synthetic)
    total = lengths[0] + lengths[1]
    nearer = (difference * (real + synthetic)).sum(-1) / torch.where(total == 0, 1, total)
    product, inner = lengths[0] * lengths[1], (real * synthetic).sum(-1)
    cross = difference[..., 1] * synthetic[..., 0] - difference[..., 0] * synthetic[..., 1]
    below = product + inner
    acute = inner > 0
    turned = torch.where(acute, cross.square() / torch.where(acute, below, 1), product - inner)
    square = amplitude * nearer.square() + 2 * phase * turned
    zero = square <= 0
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


def cf_match(
    real: Tensor,
    synthetic: Tensor,
    t: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    classes: Tensor,
    num_classes: int,
    *,
    amplitude: float = 0.5,
    phase: float = 0.5,
    backend: str = "auto",
) -> Tensor:
    """Distance of every segment's characteristic function to its class's, at random frequencies.

        out[s] = mean over k of sqrt(amplitude (|A| - |B|)^2 + phase 2 (|A| |B| - Re A conj B)),
        A = sum_i w_i exp(i t_k . real_i) / sum_i w_i,    B = mean_j exp(i t_k . synthetic_j)

    with i over the rows of segment s and j over the IPC rows of class ``classes[s]``: the loss of NCFM (Wang et al.,
    CVPR 2025; 300 times this) when a segment is a class. Where both weights are a half it is ``sqrt(1/2) mean |A -
    B|``. The published code takes a difference of nearly equal numbers under the root, and keeps it above 1e-12; this
    is the same without the difference. A segment that is empty, or whose weights sum to zero, has distance 0 and pulls
    nothing.

    Args:
        real: [N, D], float32, float64, bfloat16 or float16, sorted by segment; differentiable once.
        synthetic: [C * IPC, D], class-major, float64 when ``real`` is and float32 otherwise; differentiable once.
        t: [C, K, D] frequencies of every class, or [1, K, D] for all, of synthetic's dtype, as from
            :func:`cf_frequencies`. Not differentiable.
        offsets: int64 [S+1], rising from 0 to N: segment s is ``real[offsets[s]:offsets[s + 1]]``.
        weights: [N] floating point, at least 0; None means 1. Not differentiable.
        classes: int64 [S], class of each segment, in any order. On a GPU the contents of offsets and classes are not
            checked.
        num_classes: C.
        amplitude, phase: weights, at least 0, of the difference in length and of that in direction.
        backend: ``auto``, ``native`` (C++, CPU), ``triton`` (GPU) or ``reference``; FASTDD_BACKEND sets what ``auto``
            means.

    Returns:
        [S], of synthetic's dtype.

    Raises:
        ValueError: a shape, device, offset, class or weight that does not fit.
        TypeError: a dtype that does not.
        RuntimeError: a backend asked for by name that can't run here; a second derivative.

    Two runs are bitwise equal, and do not depend on the number of threads. Cost: N K D multiply-adds, and three times
    that of every row that needs a gradient; memory: on CPUs a copy of a class's rows, and [S, K] numbers, never [N, K].
    Phases of float32 from 2^22 quarter turns on count as none.

    >>> real, synthetic = torch.tensor([[0.0], [0.5]]), torch.tensor([[0.5]], requires_grad=True)
    >>> t = torch.tensor([[[3.0], [-1.0]]])
    >>> distances = cf_match(real, synthetic, t, torch.tensor([0, 1, 2]), None, torch.tensor([0, 0]), 1)
    >>> distances
    tensor([0.6569, 0.0000], grad_fn=...)
    """
    _check(real, synthetic, t, offsets, weights, classes, num_classes)
    for name, value in (("amplitude", amplitude), ("phase", phase)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be finite and at least 0, not {value}")
    chosen = _dispatch.choose("cf_means", backend, real.device)
    means = reference.cf_means if chosen == "reference" else torch.ops.fastdd.cf_means
    if chosen == "interpret":
        means = _dispatch.interpreted("cf_means")
    every = torch.arange(num_classes + 1, device=real.device)
    of_real = means(real, t, offsets, weights, classes)
    of_classes = means(synthetic, t, every * (synthetic.shape[0] // num_classes), None, every[:-1])
    found = _distances(of_real, of_classes[classes], float(amplitude), float(phase)).mean(1)
    present = offsets.diff() > 0
    if weights is not None:
        present = segment_mean(weights[:, None].to(found.dtype), offsets, backend=backend)[:, 0] > 0
    return torch.where(present, found, 0)
