"""Right calls of every op, drawn at random: what the campaign then makes hostile.

A :class:`Target` is one function; ``run(backend, **arguments)`` calls it. ``backend`` is ``"auto"`` (the kernels of the
extension) or ``"reference"`` (plain PyTorch, which in float64 is the truth).
"""

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.core import rng
from fastdd.ops.conv_block import tile_columns
from fastdd.reference import (
    augment as augment_plain,
)
from fastdd.reference import contents
from fastdd.reference import (
    conv3x3 as conv_plain,
)
from fastdd.reference import (
    conv_block as block_plain,
)
from fastdd.reference import (
    embedding_match as embedding_plain,
)
from fastdd.reference import (
    gradient_match as gradient_plain,
)
from fastdd.reference import (
    group_grad as group_plain,
)
from fastdd.reference import (
    kde as kde_plain,
)
from fastdd.reference import (
    norm_act_pool as norm_plain,
)
from fastdd.reference import (
    segment_mean as segment_plain,
)

SIZES = (0, 1, 1, 2, 2, 3, 4, 5, 7, 8, 16, 17, 33)
POOLS = ("avg", "max", "none")
Arguments = dict[str, Any]


class Draw:
    """Numbers and tensors that follow from a text."""

    def __init__(self, seed: str):
        self.random = random.Random(seed)
        self._torch = torch.Generator().manual_seed(self.random.getrandbits(60))

    def size(self, least: int = 0, most: int = 40) -> int:
        return min(most, max(least, self.random.choice(SIZES)))

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self._torch).to(dtype)

    def positive(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return (torch.rand(shape, generator=self._torch) + 0.05).to(dtype)

    def below(self, high: int, *shape: int) -> Tensor:
        return torch.randint(max(high, 1), shape, generator=self._torch)

    def float_type(self) -> torch.dtype:
        return self.pick(*[torch.float32] * 5, torch.float64, torch.bfloat16, torch.float16)

    def segments(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Offsets over n rows, with empty segments; and weights, some of them 0, or None."""
        count = self.size(0 if n == 0 else 1, 9)
        inner = sorted(self.random.randint(0, n) for _ in range(count - 1))
        offsets = torch.tensor([0, *inner, n][: count + 1] if count else [0])
        if self.chance(0.4):
            return offsets, None
        weights = self.positive(n)
        return offsets, torch.where(weights < 0.15, 0, weights)


@dataclass(frozen=True)
class Target:
    """One function.

    Attributes:
        run: (backend, **arguments) -> tensors.
        draw: right arguments.
        public: whether it is of ``fastdd.ops``, which refuses in words of its own, alike whatever the backend.
        compares: whether its backends are to agree in value.
        derives: whether it has derivatives that backends are to agree on.
        traces: whether it can be called on tensors without contents.
    """

    run: Callable[..., Any]
    draw: Callable[[Draw], Arguments]
    public: bool = True
    compares: bool = True
    derives: bool = True
    traces: bool = True


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _rows(draw: Draw) -> Arguments:
    x = draw.normal(draw.size(), draw.size(), dtype=draw.float_type())
    offsets, weights = draw.segments(len(x))
    return {"x": x, "offsets": offsets, "weights": weights}


def _spread(draw: Draw) -> Arguments:
    n = draw.size()
    offsets, weights = draw.segments(n)
    g = draw.normal(len(offsets) - 1, draw.size(), dtype=draw.pick(torch.float32, torch.float64))
    return {"g": g, "offsets": offsets, "weights": weights, "n": n}


def _match(draw: Draw) -> Arguments:
    dtype, columns, num_classes = draw.float_type(), draw.size(), draw.size(1, 5)
    real = draw.normal(draw.size(), columns, dtype=dtype)
    offsets, weights = draw.segments(len(real))
    synthetic = draw.normal(num_classes * draw.size(1, 4), columns, dtype=_wide(dtype))
    classes = draw.below(num_classes, len(offsets) - 1)
    named = {"offsets": offsets, "weights": weights, "classes": classes, "num_classes": num_classes}
    return {"real": real, "synthetic": synthetic, **named}


def _match_pull(draw: Draw) -> Arguments:
    segments, columns, num_classes = draw.size(0, 9), draw.size(), draw.size(1, 5)
    return {
        "scale": draw.pick(None, draw.normal(segments)),
        "x": draw.normal(segments, columns),
        "totals": draw.below(3, segments).float(),
        "classes": draw.below(num_classes, segments),
        "num_classes": num_classes,
        "n": num_classes * draw.size(1, 4),
        "factor": 2.0,
    }


def _gradients(draw: Draw) -> Arguments:
    dtype, segments, classes = draw.float_type(), draw.size(0, 6), draw.size(1, 4)
    rows, columns = draw.size(), draw.size()
    return {
        "a": draw.normal(segments, rows, columns, dtype=dtype),
        "b": draw.normal(classes, rows, columns, dtype=_wide(dtype)),
        "classes": draw.below(classes + 1, segments) - 1,
    }


def _combine(draw: Draw, *names: str) -> Arguments:
    gradients = _gradients(draw)
    a, b = gradients["a"], gradients["b"]
    return {**{name: draw.normal(*a.shape[:2], dtype=b.dtype) for name in names}, **gradients}


def _layers(draw: Draw) -> Arguments:
    dtype, segments, classes = draw.float_type(), draw.size(0, 6), draw.size(1, 4)
    shapes = [draw.pick((3, 2, 3, 3), (4, 5), (1, 1), (2, 3, 4), (17, 33)) for _ in range(draw.size(1, 3))]
    return {
        "real": [draw.normal(segments, *shape, dtype=dtype) for shape in shapes],
        "synthetic": [draw.normal(classes, *shape, dtype=_wide(dtype)) for shape in shapes],
        "classes": draw.below(classes, segments),
        "metric": draw.pick("ours", "mse", "cos"),
        "present": draw.pick(None, draw.below(3, segments) > 0),
    }


def _outer(draw: Draw) -> Arguments:
    n, rows, dtype = draw.size(), draw.pick(1, 1, 2, 3), draw.float_type()
    offsets, weights = draw.segments(n)
    a, b = (draw.normal(n * rows, draw.size(), dtype=dtype) for _ in range(2))
    return {"a": a, "b": b, "weights": weights, "offsets": offsets, "rows_per_sample": rows}


def _matmul(draw: Draw) -> Arguments:
    n, rows, dtype, inner = draw.size(), draw.pick(1, 1, 2, 3), draw.float_type(), draw.size()
    offsets, weights = draw.segments(n)
    x, g = draw.normal(n * rows, inner, dtype=dtype), draw.normal(len(offsets) - 1, inner, draw.size())
    return {"x": x, "g": g.to(_wide(dtype)), "weights": weights, "offsets": offsets, "rows_per_sample": rows}


def _conv_weight(draw: Draw) -> Arguments:
    n, groups, dtype = draw.size(0, 8), draw.pick(1, 1, 2), draw.float_type()
    kernel, stride, padding = draw.pick(1, 3), draw.pick(1, 2), draw.pick(0, 1)
    side = draw.size(kernel, 9)
    out = (side + 2 * padding - kernel) // stride + 1
    x = draw.normal(n, groups * draw.size(1, 4), side, side, dtype=dtype)
    b = draw.normal(n, groups * draw.size(1, 4), out, out, dtype=dtype)
    geometry = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": 1, "groups": groups}
    return {"x": x, "b": b, "offsets": draw.segments(n)[0], **geometry}


def _images(draw: Draw, least: int = 1, channels: int = 5) -> Tensor:
    dtype = draw.pick(*[torch.float32] * 4, torch.float64, torch.bfloat16)
    return draw.normal(draw.size(0, 5), draw.size(1, channels), draw.size(least, 17), draw.size(least, 17), dtype=dtype)


def _params(draw: Draw, count: int) -> Tensor:
    keys = rng.lanes(rng.key(draw.random.getrandbits(30), "campaign"), count)
    return ops.dsa_params(ops.DSA_STRATEGY, keys, (8, 8), dtype=draw.pick(torch.float32, torch.float64))


def _augment(draw: Draw) -> Arguments:
    x = _images(draw)
    rows = draw.chance(0.5)
    params = _params(draw, draw.size(1, 4) if rows else draw.pick(1, len(x)))
    return {"x": x, "params": params, "rows": draw.below(len(params), len(x)) if rows else None}


def _augment_raw(draw: Draw) -> Arguments:
    arguments = _augment(draw)
    x = arguments["x"]
    normalisation = {"mean": draw.positive(x.shape[1]), "std": draw.positive(x.shape[1])}
    dtype = draw.pick(torch.float32, torch.float64, torch.bfloat16)
    return {**arguments, "x": draw.below(256, *x.shape).to(torch.uint8), **normalisation, "dtype": dtype}


def _conv(draw: Draw) -> Arguments:
    inputs, outputs = (draw.pick(1, 2, 3, 5, 16, 17, 32) for _ in range(2))
    dtype = draw.pick(*[torch.float32] * 5, torch.float64, torch.bfloat16)
    x = draw.normal(draw.size(0, 4), inputs, draw.size(1, 17), draw.size(1, 17), dtype=dtype)
    filters = draw.normal(outputs, inputs, 3, 3, dtype=dtype)
    return {"x": x, "filters": filters, "bias": draw.pick(None, draw.normal(outputs, dtype=dtype))}


def _norm(draw: Draw) -> Arguments:
    x = _images(draw, least=2, channels=17)
    weight, bias = (draw.normal(x.shape[1], dtype=_wide(x.dtype)) for _ in range(2))
    return {"x": x, "weight": weight, "bias": bias, "eps": 1e-5, "pool": draw.pick(*POOLS)}


def _conv_norm(draw: Draw) -> Arguments:
    x = draw.normal(draw.size(0, 4), draw.pick(1, 3, 15, 16), draw.size(2, 17), draw.size(2, 17))
    outputs = draw.pick(1, 3, 8, 16, 17)
    weight, bias = draw.normal(outputs), draw.normal(outputs)
    shift = draw.pick(None, draw.normal(outputs))
    named = {"weight": weight, "bias": bias, "shift": shift, "eps": 1e-5, "pool": draw.pick(*POOLS)}
    return {"x": x, "filters": draw.normal(outputs, x.shape[1], 3, 3), **named}


def _block(draw: Draw) -> Arguments:
    arguments = _conv_norm(draw)
    return {**{key: value for key, value in arguments.items() if key != "shift"}, "padding": draw.pick(1, 1, 2)}


def _run_block(backend: str, x: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, **options: Any) -> Tensor:
    return ops.ConvBlock(filters, weight, bias, backend=backend, **options)(x)


def _density(draw: Draw) -> Arguments:
    x = draw.normal(draw.size(), draw.size(1), dtype=draw.float_type())
    segmented = draw.chance(0.4)
    queries = None if segmented or draw.chance(0.5) else draw.normal(draw.size(), x.shape[1], dtype=x.dtype)
    return {
        "x": x,
        "queries": queries,
        "bandwidth": draw.pick(0.3, 1.0, 2.5),
        "weights": draw.pick(None, draw.positive(len(x))),
        "offsets": draw.segments(len(x))[0] if segmented else None,
        "leave_one_out": queries is None and draw.chance(0.5),
    }


def _neighbours(draw: Draw) -> Arguments:
    arguments = _density(draw)
    del arguments["weights"]
    return {**arguments, "k": draw.pick(1, 3, 256), "far_samples": draw.pick(1, 8)}


def _double(t: Any) -> Any:
    return t.double() if isinstance(t, Tensor) and t.is_floating_point() else t


def _run_neighbours(backend: str, x: Tensor, k: int, far_samples: int, **options: Any) -> Tensor:
    """The true density: within its bounds, where that is what it is to be."""
    found = None if backend == "reference" else ops.knn_kde(x, k=k, far_samples=far_samples, **options)
    if not isinstance(k, int) or not isinstance(far_samples, int):
        raise TypeError("k and far_samples are integers")
    wide = {name: _double(value) if name == "queries" else value for name, value in options.items()}
    truth = ops.kde(_double(x), backend="reference", **wide)
    return truth if found is None else truth.clamp(found.lower.double(), found.upper.double())


def _run_either(backend: str, x: Tensor, **options: Any) -> Tensor:
    return ops.log_density(x, **options) if backend == "auto" else ops.kde(x, backend=backend, **options)


def _either(draw: Draw) -> Arguments:
    arguments = _density(draw)
    return {key: value for key, value in arguments.items() if key not in ("queries", "weights")} | {
        "leave_one_out": False
    }


def _network(draw: Draw) -> Arguments:
    n, classes = draw.size(0, 9), 3
    offsets, weights = draw.segments(n)
    return {
        "images": draw.normal(n, 2, 4, 4, dtype=draw.pick(torch.float32, torch.float64)),
        "labels": draw.below(classes, n),
        "offsets": offsets,
        "weights": weights,
        "parameters": draw.pick("weights", "all"),
        "method": draw.pick("auto", "slices", "fused"),
        "chunk_size": draw.pick(None, None, 1, 3),
    }


def _run_network(backend: str, images: Tensor, **options: Any) -> list[Tensor]:
    net = nn.Sequential(ops.Conv2d(2, 3, 3, padding=1), nn.GroupNorm(3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    for parameter in net.parameters():  # not drawn: threads share the generator
        parameter.data = torch.arange(float(parameter.numel())).sin().view_as(parameter)
    if isinstance(images, Tensor) and images.is_floating_point():
        net = net.to(images.dtype)
    method = options.pop("method")
    method = method if backend == "auto" or method not in ("auto", "fused") else "slices"
    return [*ops.group_grad(net, images, backend=backend, method=method, **options).values()]


def _run_layer(backend: str, x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    if not isinstance(filters, Tensor) or filters.shape[2:] != (3, 3):
        raise TypeError("a layer has filters")
    layer = (ops.Conv2d if backend == "auto" else nn.Conv2d)(filters.shape[1], filters.shape[0], 3, padding=1)
    values = {"weight": filters, "bias": layer.bias * 0 if bias is None else bias}
    return torch.func.functional_call(layer, values, (x,))


def _siamese(draw: Draw) -> Arguments:
    strategy = draw.pick(ops.DSA_STRATEGY, "none", "flip", "color_crop")
    return {"x": _images(draw), "strategy": strategy, "seed": draw.size(), "siamese": draw.chance(0.5)}


def _strategy(draw: Draw) -> Arguments:
    keys = rng.lanes(rng.key(draw.size(), "campaign"), draw.size())
    return {"strategy": draw.pick(ops.DSA_STRATEGY, "none", "flip"), "keys": keys, "size": (draw.size(1), draw.size(1))}


def _adjoint(draw: Draw) -> Arguments:
    arguments = _augment(draw)
    return {"g": arguments.pop("x"), **arguments}


def _function(name: str) -> Callable[..., Any]:
    function = getattr(ops, name)
    if "backend" in inspect.signature(function).parameters:
        return lambda backend, **arguments: function(backend=backend, **arguments)
    return lambda backend, **arguments: function(**arguments)


PUBLIC = {
    **{
        name: Target(_function(name), draw)
        for name, draw in {
            "segment_mean": _rows,
            "segment_spread": _spread,
            "embedding_match": _match,
            "gradient_match": _layers,
            "grouped_outer": _outer,
            "grouped_matmul": _matmul,
            "grouped_conv_weight": _conv_weight,
            "augment": lambda draw: draw.pick(_augment, _augment_raw)(draw),
            "augment_adjoint": _adjoint,
            "conv3x3": _conv,
            "norm_act_pool": _norm,
            "conv_norm_act_pool": _conv_norm,
            "diff_augment": _siamese,
        }.items()
    },
    "kde": Target(_function("kde"), _density, derives=False),
    "dsa_params": Target(_function("dsa_params"), _strategy, derives=False),
    "pixel_matrix": Target(
        _function("pixel_matrix"), lambda draw: {"theta": draw.normal(2, 2, 3), "size": (draw.size(1), draw.size(1))}
    ),
    "identity_params": Target(_function("identity_params"), lambda draw: {"n": draw.size()}, derives=False),
    "ConvBlock": Target(_run_block, _block, derives=False),
    "Conv2d": Target(_run_layer, _conv, public=False),  # what it does not take is nn.Conv2d's
    "knn_kde": Target(_run_neighbours, _neighbours, derives=False, traces=False),
    "log_density": Target(_run_either, _either, derives=False),
    "group_grad": Target(_run_network, _network, derives=False, traces=False),
}


def _op(name: str, function: Callable[..., Any], draw: Callable[[Draw], Arguments], **options: bool) -> Target:
    def run(backend: str, **arguments: Any) -> Any:
        chosen = function if backend == "reference" else getattr(torch.ops.fastdd, name)
        return chosen(*arguments.values())

    return Target(run, draw, public=False, **options)


def _last(arguments: Arguments) -> Arguments:
    """Images as the kernels take them, [N, H, W, C]."""
    return {k: v.permute(0, 2, 3, 1).contiguous() if k == "x" else v for k, v in arguments.items()}


def _conv_op(draw: Draw) -> Arguments:
    arguments = _last(_conv(draw))
    if draw.chance(0.3):
        return {
            **arguments,
            "filters": arguments["filters"].transpose(0, 1).contiguous(),
            "bias": None,
            "adjoint": True,
        }
    return {**arguments, "adjoint": False}


def _conv_weight_op(draw: Draw) -> Arguments:
    x = _last(_conv(draw))["x"]
    return {"x": x, "g": draw.normal(*x.shape[:3], draw.size(1), dtype=x.dtype)}


def _normed(draw: Draw) -> Arguments:
    """Inputs of the derivatives of norm_act_pool, with the forward pass's own statistics."""
    arguments = _last(_norm(draw))
    y, stats = norm_plain.forward(*arguments.values())
    return {"g": draw.normal(*y.shape, dtype=y.dtype), "stats": stats, **arguments}


def _norm_backward(draw: Draw) -> Arguments:
    have = _normed(draw)
    return {key: have[key] for key in ("g", "x", "weight", "bias", "stats", "pool")}


def _norm_second(draw: Draw) -> Arguments:
    have = _norm_backward(draw)
    x, weight = have["x"], have["weight"]
    u, vw, vb = draw.normal(*x.shape, dtype=x.dtype), *(draw.normal(len(weight), dtype=weight.dtype) for _ in range(2))
    return {"u": u, "vw": vw, "vb": vb, **have}


def _conv_norm_op(draw: Draw) -> Arguments:
    have = _last(_conv_norm(draw))
    return {key: have[key] for key in ("x", "filters", "shift", "weight", "bias", "eps", "pool")}


def _conv_norm_backward(draw: Draw) -> Arguments:
    have = _conv_norm_op(draw)
    y, stats = conv_plain.conv_norm_act_pool(*have.values())
    x, filters, weight, bias, pool = (have[key] for key in ("x", "filters", "weight", "bias", "pool"))
    named = {"x": x, "filters": filters, "weight": weight, "bias": bias, "stats": stats, "pool": pool}
    return {"g": draw.normal(*y.shape), **named}


def _block_op(draw: Draw) -> Arguments:
    have = _last(_block(draw))
    x, filters = have["x"], have["filters"]
    columns = tile_columns(x.shape[3], x.shape[1], x.shape[2], have["padding"])
    rest = {key: have[key] for key in ("weight", "bias", "padding", "eps", "pool")}
    return {"x": x, "filters": filters, "columns": columns, **rest}


def _run_block_op(backend: str, x: Tensor, filters: Tensor, columns: int, *rest: Any, **named: Any) -> Tensor:
    packed = torch.ops.fastdd.pack_filters(filters, columns)
    function = block_plain.conv_block if backend == "reference" else torch.ops.fastdd.conv_block
    return function(x, filters, packed, *rest, *named.values())


def _kde_op(draw: Draw) -> Arguments:
    have = _density(draw)
    have["x"] = have["x"].to(_wide(have["x"].dtype))
    if have["queries"] is not None:
        have["queries"] = have["queries"].to(have["x"].dtype)
    return {k: have[k] for k in ("x", "queries", "weights", "offsets", "bandwidth", "leave_one_out")} | {
        "precision": "fp32"
    }


def _raw_op(draw: Draw) -> Arguments:
    return _augment_raw(draw)


def _conv_weight_grouped(draw: Draw) -> Arguments:
    have = _conv_weight(draw)
    pairs = {key: [have[key]] * 2 for key in ("kernel_size", "stride", "padding", "dilation")}
    return {"x": have["x"], "b": have["b"], "offsets": have["offsets"], **pairs, "groups": have["groups"]}


DISPATCHED = {
    name: _op(name, function, draw, derives=derives)
    for name, function, draw, derives in [
        ("segment_mean", segment_plain.segment_mean, _rows, True),
        ("segment_spread", segment_plain.segment_spread, _spread, True),
        ("embedding_match", embedding_plain.embedding_match, _match, False),
        ("embedding_match_pull", embedding_plain.embedding_match_pull, _match_pull, True),
        ("gradient_match_products", gradient_plain.gradient_match_products, _gradients, True),
        ("gradient_match_combine", gradient_plain.gradient_match_combine, lambda d: _combine(d, "p", "q"), True),
        ("gradient_match_distances", gradient_plain.gradient_match_distances, _gradients, True),
        ("gradient_match_pull", gradient_plain.gradient_match_pull, lambda d: _combine(d, "p"), True),
        ("grouped_outer", group_plain.grouped_outer, _outer, True),
        ("grouped_matmul", group_plain.grouped_matmul, _matmul, True),
        ("grouped_conv_weight", group_plain.grouped_conv_weight, _conv_weight_grouped, True),
        ("kde", kde_plain.kde, _kde_op, False),
        ("augment", augment_plain.augment, lambda d: {**_augment(d), "linear": d.chance(0.5)}, True),
        ("augment_adjoint", augment_plain.augment_adjoint, _adjoint, True),
        ("augment_uint8", augment_plain.augment_uint8, _raw_op, False),
        ("conv3x3", conv_plain.conv3x3, _conv_op, True),
        ("conv3x3_weight", conv_plain.conv3x3_weight, _conv_weight_op, True),
        ("norm_act_pool", norm_plain.forward, lambda d: _last(_norm(d)), False),
        ("norm_act_pool_backward", norm_plain.backward, _norm_backward, False),
        ("norm_act_pool_double_backward", norm_plain.double_backward, _norm_second, False),
        ("conv_norm_act_pool", conv_plain.conv_norm_act_pool, _conv_norm_op, False),
        ("conv_norm_act_pool_backward", conv_plain.conv_norm_act_pool_backward, _conv_norm_backward, False),
        (
            "conv_norm_act_pool_image_gradient",
            conv_plain.conv_norm_act_pool_image_gradient,
            _conv_norm_backward,
            False,
        ),
    ]
}
DISPATCHED["conv_block"] = Target(_run_block_op, _block_op, public=False, derives=False, traces=False)
# Packed for the kernels, by nothing that plain PyTorch has.
DISPATCHED["pack_filters"] = _op(
    "pack_filters",
    block_plain.pack_filters,
    lambda draw: {"filters": draw.normal(draw.size(), draw.size(), 3, 3), "columns": draw.pick(0, 2, 4)},
    compares=False,
    derives=False,
    traces=False,
)


def _alone(function: Callable[..., Any], draw: Callable[[Draw], Arguments]) -> Target:
    return Target(lambda backend, **have: function(*have.values()), draw, public=False, derives=False, traces=False)


def _picked(draw: Draw) -> Arguments:
    t = draw.normal(draw.size(1), draw.size())
    return {"what": "rows", "t": t, "index": draw.below(len(t), draw.size())}


# What the reference has beside the ops' own functions.
PLAIN = {
    "norm_act_pool": _alone(norm_plain.norm_act_pool, lambda draw: {**_norm(draw)}),
    "rows_of": _alone(gradient_plain.rows_of, lambda d: {k: v for k, v in _gradients(d).items() if k != "a"}),
    "present_rows": _alone(gradient_plain.present_rows, lambda d: {k: v for k, v in _gradients(d).items() if k != "b"}),
    "picked": _alone(contents.picked, _picked),
    "check_offsets": _alone(contents.check_offsets, lambda d: {"offsets": d.segments(9)[0], "n": 9}),
    "segment_totals": _alone(
        segment_plain.segment_totals,
        lambda d: dict(zip(("offsets", "weights"), d.segments(9), strict=True)) | {"n": 9, "dtype": torch.float32},
    ),
    "segment_shares": _alone(
        segment_plain.segment_shares,
        lambda d: dict(zip(("offsets", "weights"), d.segments(9), strict=True)) | {"n": 9, "dtype": torch.float32},
    ),
}

TARGETS = {
    **{f"ops.{name}": target for name, target in PUBLIC.items()},
    **{f"torch.ops.fastdd.{name}": target for name, target in DISPATCHED.items()},
    **{f"reference.{name}": target for name, target in PLAIN.items()},
}
