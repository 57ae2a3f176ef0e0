"""Blocks on dual numbers: the C++ kernels against the reference in float64; the reference itself is the derivative that
``tests/methods/test_mtt.py`` holds against the graph over all steps."""

import pytest
import torch

from fastdd.core import ext
from fastdd.ops.dual_blocks import dual_block_ops
from fastdd.reference import dual_blocks as reference

# Name -> which arguments are written. Shapes are those of images, channels and pooling below.
WRITTEN = {
    "conv3x3": ["y", "dy"],
    "conv3x3_weight": ["out"],
    "norm_act_pool": ["y", "dy", "stats", "dstats"],
    "norm_act_pool_backward": ["z", "dz", "to_weight", "to_bias"],
    "first_block": ["y", "dy", "stats", "dstats"],
    "first_block_backward": ["to_x", "to_filters", "to_weight", "to_bias"],
}
# Images, height, width, channels in (of the first block, fewer) and out.
SHAPES = [(3, 8, 8, 32, 48), (2, 7, 5, 17, 40), (1, 33, 4, 16, 8)]
needs_kernels = pytest.mark.skipif(not ext.available(), reason="no extension")


def arguments(name, shape, pool="avg", *, dual=True, few=3, adjoint=False, seed=0):
    """By name, in the op's order, in float64; those that are written have NaN in them."""
    n, h, w, inputs, outputs = shape
    generator = torch.Generator().manual_seed(seed)
    inputs = few if name.startswith("first") else inputs
    pooled = (h, w) if pool == "none" else (h // 2, w // 2)
    big, small = (n, h, w, outputs), (n, *pooled, outputs)
    x, g = ((n, h, w, inputs), big) if not adjoint else (big, (n, h, w, inputs))
    filters, channels = (outputs, inputs, 3, 3), (outputs,)
    stats = (n, 2, outputs)
    pair = {"z": big, "weight": channels, "bias": channels, "filters": filters, "x": x}
    order = {
        "conv3x3": ["x", "dx", "filters", "dfilters", adjoint, "y", "dy"],
        "conv3x3_weight": ["x", "dx", "g", "dg", "out"],
        "norm_act_pool": ["z", "dz", *NORM, 1e-5, pool, "y", "dy", "stats", "dstats"],
        "norm_act_pool_backward": ["g", "dg", "z", "dz", *NORM, pool, "stats", "dstats", "to_weight", "to_bias"],
        "first_block": ["x", "filters", "dfilters", *NORM, 1e-5, pool, "y", "dy", "stats", "dstats"],
        "first_block_backward": [
            *["g", "dg", "x", "filters", "dfilters", *NORM, pool, "stats", "dstats"],
            *["to_x", "to_filters", "to_weight", "to_bias"],
        ],
    }[name]
    shapes = {**pair, "g": g if name == "conv3x3_weight" else small, "y": g if name == "conv3x3" else small}
    shapes |= {"stats": stats, "out": filters, "to_x": x, "to_filters": filters}
    shapes |= {"to_weight": channels, "to_bias": channels}
    values = []
    for argument in order:
        if not isinstance(argument, str) or argument == pool:
            values.append(argument)
        elif not dual and (argument == "to_x" or (argument[0] == "d" and argument[1:] in shapes)):
            values.append(None)
        else:
            of = shapes[argument] if argument in shapes else shapes[argument[1:]]
            # Filters as large as a network's, so that sums over inputs are about 1.
            scale = (9 * inputs) ** -0.5 if "filters" in argument else 1.0
            values.append(scale * torch.randn(of, generator=generator, dtype=torch.float64))
    named = dict(zip(map(str, range(len(order))), order, strict=True))
    if "backward" in name:  # what the way there has found
        forward = arguments("norm_act_pool", (n, h, w, inputs, outputs), pool, dual=dual)
        if name.startswith("first"):
            z, dz = reference._convolved(values[order.index("x")], *(values[order.index(k)] for k in FILTERS))
        else:
            z, dz = values[order.index("z")], values[order.index("dz")]
        norm = [values[order.index(k)] for k in NORM]
        forward[:6] = z, dz, *norm
        reference.norm_act_pool(*forward)
        values[order.index("stats")], values[order.index("dstats")] = forward[-2:]
    for place, argument in named.items():
        if argument in WRITTEN[name] and argument not in ("z", "dz") and values[int(place)] is not None:
            values[int(place)] = torch.full_like(values[int(place)], torch.nan)
    return values


NORM, FILTERS = ["weight", "dweight", "bias", "dbias"], ["filters", "dfilters"]


def called(function, values, dtype):
    """All tensors after a call."""
    values = [v.to(dtype, copy=True) if isinstance(v, torch.Tensor) else v for v in values]
    assert function(*values) is None
    return [v for v in values if isinstance(v, torch.Tensor)]


def check(name, values):
    exact = called(getattr(reference, name), values, torch.float64)
    plain = called(getattr(reference, name), values, torch.float32)
    ours = called(dual_block_ops(torch.float32)(name), values, torch.float32)
    for own, theirs, truth in zip(ours, plain, exact, strict=True):
        error, allowed = (own.double() - truth).norm(), (theirs.double() - truth).norm()
        assert error <= 2 * allowed + 1e-6 * truth.norm(), (error / truth.norm(), allowed / truth.norm())


@needs_kernels
@pytest.mark.parametrize("dual", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_error_is_at_most_twice_the_references(shape, dual):
    wide = (*shape[:4], max(shape[4], 16))  # the adjoint's inputs
    check("conv3x3", arguments("conv3x3", shape, dual=dual))
    check("conv3x3", arguments("conv3x3", wide, dual=dual, adjoint=True))
    check("conv3x3_weight", arguments("conv3x3_weight", shape, dual=dual))
    for pool in ("avg", "max", "none"):
        for name in ("norm_act_pool", "norm_act_pool_backward", "first_block", "first_block_backward"):
            check(name, arguments(name, shape, pool, dual=dual))


@needs_kernels
@pytest.mark.parametrize("few", [1, 15])
def test_first_blocks_of_other_numbers_of_channels(few):
    for name in ("first_block", "first_block_backward"):
        check(name, arguments(name, SHAPES[1], few=few))


@needs_kernels
def test_what_is_not_asked_for_is_left_out():
    values = arguments("first_block_backward", SHAPES[0])
    whole = called(dual_block_ops(torch.float32)("first_block_backward"), values, torch.float32)
    values[-4] = values[-3] = None  # the images' and the filters' gradients
    *_, to_weight, to_bias = called(dual_block_ops(torch.float32)("first_block_backward"), values, torch.float32)
    assert torch.equal(to_weight, whole[-2])
    assert torch.equal(to_bias, whole[-1])
    values = arguments("conv3x3", SHAPES[0])
    values[1] = None  # the images have no tangent
    check("conv3x3", values)


@needs_kernels
def test_two_threads_make_the_same_bits():
    threads = torch.get_num_threads()
    try:
        for name in WRITTEN:
            values, results = arguments(name, SHAPES[0]), []
            for torch_threads in (1, 2):
                torch.set_num_threads(torch_threads)
                results.append(called(dual_block_ops(torch.float32)(name), values, torch.float32))
            assert all(map(torch.equal, *results)), name
    finally:
        torch.set_num_threads(threads)


@needs_kernels
@pytest.mark.parametrize("name", WRITTEN)
def test_opcheck_and_refusals(name):
    op = getattr(torch.ops.fastdd, f"dual_{name}")
    values = [v.float() if isinstance(v, torch.Tensor) else v for v in arguments(name, (2, 4, 4, 16, 16))]
    values = [v.nan_to_num() if isinstance(v, torch.Tensor) else v for v in values]
    torch.library.opcheck(op.default, tuple(values), test_utils=("test_schema", "test_faketensor"))
    with pytest.raises(RuntimeError, match="has no derivative: detach its inputs"):
        op(values[0].clone().requires_grad_(), *values[1:])
    for wrong in (values[0].double(), values[0][:1], values[0].transpose(1, 2)):
        with pytest.raises(
            RuntimeError, match="dual blocks take contiguous float32 tensors of shapes that fit together"
        ):
            op(wrong, *values[1:])
