"""Weighted gradients of a loss with respect to a network's weights, per segment: what gradient matching matches."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fastdd.ops._dispatch import check_tensor
from fastdd.ops.conv3x3 import runs_as_conv3x3
from fastdd.ops.gradient_job import Job, cross_entropy
from fastdd.ops.layer_grads import rule_of
from fastdd.ops.segment_mean import check_segments
from fastdd.ops.slices import slices
from fastdd.reference.segment_mean import accumulation_dtype

METHODS = ("auto", "slices", "fused")
# Which parameters -> the dimensions that theirs may have, in words and as a test.
PARAMETERS = {
    "weights": ("more than one dimension", lambda dimensions: dimensions > 1),
    "conv": ("four dimensions", lambda dimensions: dimensions == 4),
    "all": ("any dimension", lambda dimensions: dimensions >= 0),
}
_Result = TypeVar("_Result")
# 32 images of 32x32 a pass: of more, the activations of a block of ConvNet would be blocks that malloc maps anew at
# every use, unless the block is one op.
_CHUNK_PIXELS = 32 * 32 * 32


class _Swapped(nn.Module):
    """Runs a function while the network holds other tensors as its parameters and buffers."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, function: Callable[[], _Result]) -> _Result:
        return function()


def _run_with(net: nn.Module, tensors: dict[str, Tensor], function: Callable[[], _Result]) -> _Result:
    return torch.func.functional_call(_Swapped(net), {f"net.{name}": t for name, t in tensors.items()}, (function,))


def _zeros(leaf: Tensor, offsets: Tensor) -> Tensor:
    return leaf.new_zeros((len(offsets) - 1, *leaf.shape), dtype=accumulation_dtype(leaf.dtype))


@dataclass(frozen=True)
class _Owner:
    """A layer that holds asked-for parameters: its own names for them -> the network's."""

    title: str
    names: dict[str, str]

    def __str__(self) -> str:
        return self.title


@dataclass(frozen=True)
class _Call:
    """One call of a parametrised layer: its input as it was, and where in the graph its output's gradient arrives.

    An edge, because an activation that works in place gives the output another place in the graph.
    """

    layer: nn.Module
    x: Tensor
    version: int
    edge: GradientEdge


def _uses(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, int]:
    """How often each leaf enters the graph behind ``value``."""
    names = {id(leaf): name for name, leaf in leaves.items()}
    uses = dict.fromkeys(leaves, 0)
    seen, todo = set(), [value.grad_fn]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is None:
                continue
            name = names.get(id(getattr(node, "variable", None)))
            if name is not None:
                uses[name] += 1
            elif node not in seen:
                seen.add(node)
                todo.append(node)
    return uses


def _one_pass(job: Job, owners: dict[nn.Module, _Owner], part: slice) -> list[Tensor]:
    """Sums per segment over one chunk."""
    n = part.stop - part.start
    # The chunk's own segments, without a look at the offsets from the host.
    offsets = job.offsets if n == len(job.images) else job.offsets.clamp(part.start, part.stop) - part.start
    calls: list[_Call] = []

    def keep(layer: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
        if output.requires_grad:
            if len(output) != n:
                raise TypeError(
                    f"{owners[layer]} is called on {len(output)} rows for {n} samples, so its gradients can't be told "
                    "apart by sample: use method='slices'"
                )
            x = args[0] if args else kwargs["input"]
            x = x if job.create_graph else x.detach()
            calls.append(_Call(layer, x, x._version, get_gradient_edge(output)))

    handles = [layer.register_forward_hook(keep, prepend=True, with_kwargs=True) for layer in owners]
    convolutions = [layer for layer in owners if runs_as_conv3x3(layer)]
    try:
        for layer in convolutions:
            layer.filters_constant = True
        root, slope = job.root(part)
    finally:
        for layer in convolutions:
            layer.__dict__.pop("filters_constant", None)
        for handle in handles:
            handle.remove()
    called = Counter(name for call in calls for name in owners[call.layer].names.values())
    for name, uses in _uses(root, job.leaves).items():
        if uses > called[name]:
            raise TypeError(f"{name} is used outside of a call of its layer: use method='slices'")
    edges = [call.edge for call in calls]
    gradients = list(torch.autograd.grad(root, edges, slope, create_graph=job.create_graph, allow_unused=True))
    del root, slope, edges
    sums: dict[str, Tensor] = {}
    with torch.set_grad_enabled(job.create_graph):
        while calls:
            call, gradient = calls.pop(), gradients.pop()
            owner = owners[call.layer]
            if gradient is None:
                continue
            if call.x._version != call.version:
                raise RuntimeError(
                    f"the input of {owner} was modified in place after its call: use method='slices', or an operation "
                    "that does not work in place"
                )
            rule = rule_of(call.layer)
            for parameter, grad in rule(call.layer, call.x, gradient, offsets, {*owner.names}, job.backend).items():
                name = owner.names[parameter]
                sums[name] = sums[name] + grad if name in sums else grad
    return [sums[name] if name in sums else _zeros(leaf, offsets) for name, leaf in job.leaves.items()]


def _fused(job: Job) -> list[Tensor]:
    """One pass for all segments; the layers' inputs and output gradients are contracted per segment."""
    of_leaf = {id(leaf): name for name, leaf in job.leaves.items()}
    owners = {}
    for path, layer in job.net.named_modules():
        names = {parameter: of_leaf[id(p)] for parameter, p in layer._parameters.items() if id(p) in of_leaf}
        if names:
            owners[layer] = owner = _Owner(f"{path or 'net'} ({type(layer).__name__})", names)
            if rule_of(layer) is None or not names.keys() <= {"weight", "bias"}:
                raise TypeError(f"{owner} has no rule for method='fused': use method='slices'")
    n = len(job.images)
    passes = (_one_pass(job, owners, slice(low, min(low + job.chunk, n))) for low in range(0, n, job.chunk))
    return functools.reduce(lambda totals, sums: [a + b for a, b in zip(totals, sums, strict=True)], passes)


def group_grad(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    offsets: Tensor,
    weights: Tensor | None = None,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    parameters: str = "weights",
    create_graph: bool = False,
    method: str = "auto",
    chunk_size: int | None = None,
    backend: str = "auto",
) -> dict[str, Tensor]:
    """Weighted mean gradient of every segment: ``g[s] = sum w_i grad l_i / sum w_i``, i in segment s.

    The targets of gradient matching (DC, Zhao et al., ICLR 2021; DSA, ICML 2021) when a segment is a class, FairDD's
    when it is a protected group of a class; with ``create_graph`` the synthetic side too. An empty segment, or one
    whose weights sum to zero, gives zeros. The network is left as it is: parameters, gradients, buffers, mode; its
    parameters need not require gradients, and the result is not differentiable in them.

    Args:
        net: a network that treats every sample by itself.
        images: [N, ...], sorted by segment: segment s is ``images[offsets[s]:offsets[s + 1]]``.
        labels: [N, ...], what ``loss`` takes.
        offsets: int64 [S+1] on the images' device, rising from 0 to N. The contents are checked on the CPU only.
        weights: [N] floating point, at least 0; None means 1.
        loss: (net(images), labels) -> [N].
        parameters: ``weights``: those of more than one dimension, which is what DC's row-wise cosine distance
            compares (of convolutions and linear layers, and of a LayerNorm over [C, H, W]); ``conv``: those of four,
            the convolutions', which is what IDC compares (Kim et al., ICML 2022); ``all``: all.
        create_graph: whether the result is differentiable in images and weights, in which case the graph is kept.
            Take ``torch.autograd.grad`` with respect to them; ``backward`` would also work out what nobody reads.
        method: ``slices``: a forward and a backward a segment, any layers; on CPUs one for several short segments where
            all asked-for parameters are weights of Linear layers and of :class:`fastdd.ops.Conv2d`, with the same
            bits. ``fused``: one forward and one backward to the layers' outputs for all segments, then a grouped
            product a layer; nothing waits for the device. Layers with asked-for parameters are Linear, Conv2d,
            GroupNorm, LayerNorm, InstanceNorm and BatchNorm (in eval mode). ``auto``: fused on GPUs, but for ``all``,
            else slices (the reason is below).
        chunk_size: samples that go through the network at once, which bounds memory; None means all with ``fused`` and
            on GPUs, and 32,768 pixels with ``slices`` on CPUs.
        backend: of the grouped products (:func:`fastdd.ops.grouped_outer`).

    Returns:
        Parameter name -> [S, *shape], in the order of ``net.named_parameters()``; float64 for float64 parameters,
        float32 for all others.

    Raises:
        ValueError: an option that does not exist; a shape, dtype, device or offset that does not fit; a layer that
            couples the samples of a batch.
        TypeError: with ``fused``, a layer that has no rule, or a parameter that is used outside of its layer's call.
        RuntimeError: a backend asked for by name that can't run here; a loss without a gradient; with ``fused``, a
            layer's input that is modified in place afterwards.

    Cost: that of one forward and one backward of the N samples, whatever the number of segments; memory of the result,
    S times the parameters, besides. Two runs are bitwise equal where the network's own layers are.

    Why slices on CPUs: a pass that needs the weights' gradients runs on ConvNet's own convolutions (256 images of
    3x32x32 in 10 segments, 2 threads: 141 ms, fused 205), slices hold one segment's activations at a time and take any
    layer, and their second derivatives need no unfolding. Below three samples a segment fused wins (309 to 233 ms in
    100 segments, 714 to 302 in 256). Why fused on GPUs: kernels of few samples are bound by their launch, and a slice
    needs the offsets on the host.

    >>> net = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    >>> net.weight.fill_(0.0)
    Parameter containing:
    tensor([[0., 0.],
            [0., 0.]])
    >>> images, labels = torch.tensor([[2.0, 0.0], [0.0, 4.0], [6.0, 6.0]]), torch.tensor([0, 0, 1])
    >>> group_grad(net, images, labels, torch.tensor([0, 2, 3]))["weight"]
    tensor([[[-0.5000, -1.0000],
             [ 0.5000,  1.0000]],
    <BLANKLINE>
            [[ 3.0000,  3.0000],
             [-3.0000, -3.0000]]])
    """
    for what, value, known in (("method", method, METHODS), ("parameters", parameters, PARAMETERS)):
        if value not in known:
            raise ValueError(f"{what}={value!r} is not one of {', '.join(known)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")
    for what, tensor in (("images", images), ("labels", labels), ("offsets", offsets)):
        check_tensor(what, tensor)
    check_tensor("weights", weights, optional=True)
    if images.dim() and len(images) and not images.numel():
        raise ValueError(f"images of no pixels: {list(images.shape)}")
    if not images.dim() or not labels.dim():
        raise ValueError(
            f"images and labels must have a first dimension, not {list(images.shape)}, {list(labels.shape)}"
        )
    n = len(images)
    if len(labels) != n or labels.device != images.device:
        raise ValueError(
            f"labels must be [{n}] on {images.device} as the images are, not {list(labels.shape)} on {labels.device}"
        )
    check_segments(offsets, weights, n, images.device)
    for path, layer in net.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None):
            raise ValueError(
                f"{path or 'net'} ({type(layer).__name__}) couples the samples of a batch in training mode, so "
                "per-sample gradients do not exist: use instance norm, or net.eval()"
            )
    if method == "auto":
        # All parameters include those of norms, which a network may use in an op of its own, where no hook sees them.
        method = "slices" if images.device.type == "cpu" or parameters == "all" else "fused"
    pixels = images[0, 0].numel() if n and images.dim() > 2 else 1
    chunk = chunk_size
    if chunk is None:
        on_cpu = method == "slices" and images.device.type == "cpu"
        chunk = max(1, _CHUNK_PIXELS // pixels) if on_cpu else max(1, n)
    tensors = {name: p.detach() for name, p in net.named_parameters()}
    dimensions, asked = PARAMETERS[parameters]
    leaves = {name: p.requires_grad_() for name, p in tensors.items() if asked(p.dim())}
    if not leaves:
        raise ValueError(f"net has no parameters of {dimensions}: ask for parameters='all'")
    tensors |= {name: buffer.clone() for name, buffer in net.named_buffers()}
    if not create_graph:
        images, weights = images.detach(), None if weights is None else weights.detach()
    with torch.enable_grad():
        job = Job(net, leaves, images, labels, weights, offsets, loss, create_graph, chunk, backend)
        if n == 0:
            sums = [_zeros(leaf, offsets) for leaf in leaves.values()]
        else:
            sums = _run_with(net, tensors, functools.partial(slices if method == "slices" else _fused, job))
    return dict(zip(leaves, sums, strict=True))
