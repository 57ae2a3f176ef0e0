"""Derivatives that are not the ops' own: right by the reference, or refused in one line; never silently zero."""

import pytest
import torch
import torch.autograd.forward_ad as forward

from fastdd import ops

OFFSETS, CLASSES = torch.tensor([0, 2, 4, 6]), torch.tensor([0, 0, 1])


def _draw(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float32)


X, ROWS, FILTERS, WEIGHTS = _draw(2, 3, 8, 8), _draw(6, 5), _draw(4, 3, 3, 3), _draw(6)
PARAMS = ops.identity_params(2)
PARAMS[:, ops.Param.CONTRAST] = 1.5
CALLS = {
    "conv3x3": (X, lambda t, **o: ops.conv3x3(t, FILTERS, **o)),
    "augment": (X, lambda t, **o: ops.augment(t, PARAMS, **o)),
    "augment_adjoint": (X, lambda t, **o: ops.augment_adjoint(t, PARAMS, **o)),
    "formation": (X, lambda t, **o: ops.formation(t, 3, **o)),
    "formation_adjoint": (_draw(8, 3, 7, 6), lambda t, **o: ops.formation_adjoint(t, 2, (5, 6), 2, **o)),
    "augment_stored": (X, lambda t, **o: ops.augment_stored(t, PARAMS[:1], factor=2, **o)),
    "norm_act_pool": (X, lambda t, **o: ops.norm_act_pool(t, torch.ones(3), torch.zeros(3), **o)),
    "conv_norm_act_pool": (
        X,
        lambda t, **o: ops.conv_norm_act_pool(t, FILTERS, torch.ones(4), torch.zeros(4), **o),
    ),
    "segment_mean": (ROWS, lambda t, **o: ops.segment_mean(t, OFFSETS, WEIGHTS, **o)),
    "segment_spread": (ROWS[:3], lambda t, **o: ops.segment_spread(t, OFFSETS, WEIGHTS, 6, **o)),
    "embedding_match": (ROWS, lambda t, **o: ops.embedding_match(t, _draw(4, 5), OFFSETS, WEIGHTS, CLASSES, 2, **o)),
    "cf_match": (
        ROWS,
        lambda t, **o: ops.cf_match(t, _draw(4, 5), _draw(2, 9, 5), OFFSETS, WEIGHTS, CLASSES, 2, **o),
    ),
    "gradient_match": (_draw(3, 4, 5), lambda t, **o: ops.gradient_match([t], [_draw(2, 4, 5)], CLASSES, **o)),
    "loss_slopes": (ROWS, lambda t, **o: ops.loss_slopes(t, torch.arange(6) % 5, OFFSETS, WEIGHTS, **o)),
    "grouped_outer": (ROWS, lambda t, **o: ops.grouped_outer(t, ROWS, WEIGHTS, OFFSETS, **o)),
    "grouped_matmul": (ROWS, lambda t, **o: ops.grouped_matmul(t, _draw(3, 5, 2), WEIGHTS, OFFSETS, **o)),
    "grouped_conv_weight": (
        X,
        lambda t, **o: ops.grouped_conv_weight(t, _draw(2, 4, 6, 6), torch.tensor([0, 1, 2]), 3, **o),
    ),
    "kde": (ROWS, lambda t, **o: ops.kde(t, bandwidth=1.0, **o)),
}


def _difference(function, x, v):
    """The directional derivative by central differences."""
    step = 1e-2
    return (function(x + step * v, backend="reference") - function(x - step * v, backend="reference")) / (2 * step)


@pytest.mark.parametrize("name", CALLS)
def test_forward_mode(name):
    x, function = CALLS[name]
    v = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    _, tangent = torch.func.jvp(function, (x,), (v,))
    expected = _difference(function, x, v)
    error = (tangent - expected).norm() / expected.norm()
    assert error < (0.1 if "norm_act_pool" in name else 0.01)
    with forward.dual_level():
        again = forward.unpack_dual(function(forward.make_dual(x, v))).tangent
    torch.testing.assert_close(again, tangent, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "kde"])
def test_reverse_mode_of_functions(name):
    x, function = CALLS[name]
    gradient = torch.func.grad(lambda t: function(t).sum())(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(leaf).sum(), leaf)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transform", ["jvp", "grad"])
def test_a_backend_asked_for_by_name_does_not_fall_back(transform):
    def run(t):
        return ops.conv3x3(t, FILTERS, backend="native").sum()

    with pytest.raises(RuntimeError, match=r"backend='native': conv3x3 has no derivative for .*; use 'reference', or"):
        torch.func.jvp(run, (X,), (X,)) if transform == "jvp" else torch.func.grad(run)(X)


def test_dispatcher_ops_refuse_tangents():
    from tests.ops.test_zero_sizes import SCRIPT

    calls: dict = {}
    exec(SCRIPT.split("def without")[0], calls)
    for name, arguments in calls["CALLS"].items():
        if not any(isinstance(value, torch.Tensor) and value.is_floating_point() for value in arguments):
            continue
        with forward.dual_level():
            duals = [
                forward.make_dual(value, torch.ones_like(value))
                if isinstance(value, torch.Tensor) and value.is_floating_point()
                else value
                for value in arguments
            ]
            # PyTorch takes no derivatives of ops that write into an argument, and refuses what is inside.
            in_place = name == "random_parameters"
            if name == "turns_":  # what is inside has derivatives; the kernel refuses by itself
                continue
            refusal = "forward AD" if in_place else f"torch.ops.fastdd.{name} has no forward-mode derivative: call it"
            with pytest.raises(RuntimeError, match=refusal):
                getattr(torch.ops.fastdd, name)(*duals)
            getattr(torch.ops.fastdd, name)(*arguments)


def test_block_and_neighbours_refuse_tangents():
    block = ops.ConvBlock(FILTERS, torch.ones(4), torch.zeros(4))
    for function, x in ((block, X), (lambda t: ops.knn_kde(t, bandwidth=1.0).log_density, ROWS)):
        with pytest.raises(RuntimeError, match="has no forward-mode derivative"):
            torch.func.jvp(function, (x,), (x,))


def test_batches_stay_native():
    images = torch.stack([X, X + 1])
    result = torch.func.vmap(lambda x: ops.conv3x3(x, FILTERS))(images)
    assert torch.equal(result, torch.stack([ops.conv3x3(x, FILTERS) for x in images]))
