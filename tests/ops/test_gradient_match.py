import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck
from torch import nn

from fastdd.ops.gradient_match import METRICS, gradient_match

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ["auto", "reference"]
# Convolution, layer norm (over [C, H, W]), linear, bias: all that published code tells apart.
SHAPES = [(5, 3, 3, 3), (4, 2, 3), (3, 37), (6,)]


def rowwise(r, s):
    """A layer's distance as published: rows are output channels; 1-D parameters don't count."""
    if r.dim() == 4:
        r, s = (t.reshape(t.shape[0], t.shape[1] * t.shape[2] * t.shape[3]) for t in (r, s))
    elif r.dim() == 3:
        r, s = (t.reshape(t.shape[0], t.shape[1] * t.shape[2]) for t in (r, s))
    elif r.dim() == 1:
        return torch.zeros((), dtype=s.dtype, device=s.device)
    product = torch.sum(r * s, dim=-1)
    return torch.sum(1 - product / (torch.norm(r, dim=-1) * torch.norm(s, dim=-1) + 0.000001))


def literal(real, synthetic, classes, metric="ours", present=None, dtype=torch.float64):
    """One segment and one layer after the other, in ``dtype``; a list of distances."""
    distances = []
    for i, c in enumerate(classes.tolist()):
        r, s = [t[i].to(dtype) for t in real], [t[c].to(dtype) for t in synthetic]
        if present is not None and not present[i]:
            distance = 0 * s[0].sum()
        elif metric == "ours":
            distance = sum(rowwise(a, b) for a, b in zip(r, s, strict=True))
        else:
            r, s = (torch.cat([t.reshape(-1) for t in of]) for of in (r, s))
            if metric == "mse":
                distance = torch.sum((s - r) ** 2)
            elif metric == "l1":
                distance = torch.sum(torch.abs(s - r))
            else:
                distance = 1 - torch.sum(r * s) / (torch.norm(r) * torch.norm(s) + 0.000001)
        distances.append(distance)
    return torch.stack(distances)


def case(seed, classes, num_classes, dtype, device="cpu", shapes=SHAPES):
    """Real gradients near their class's synthetic ones."""
    generator = torch.Generator().manual_seed(seed)

    def normal(n, shape):
        return torch.randn(n, *shape, generator=generator, dtype=torch.float64)

    classes = torch.tensor(classes, dtype=torch.int64)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    synthetic = [normal(num_classes, shape).to(wide) for shape in shapes]
    real = [(s[classes] + normal(len(classes), s.shape[1:])).to(dtype) for s in synthetic]
    return [t.to(device) for t in real], [t.to(device) for t in synthetic], classes.to(device)


def pulled(function, real, synthetic, *rest, g=None, **options):
    """Distances, and the gradients in the synthetic ones."""
    leaves = [t.detach().clone().requires_grad_() for t in synthetic]
    distances = function(real, leaves, *rest, **options)
    gradients = torch.autograd.grad(
        distances, leaves, torch.ones_like(distances) if g is None else g, allow_unused=True, materialize_grads=True
    )
    return [distances.detach(), *gradients]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_literal_loop(device, backend, metric):
    real, synthetic, classes = case(0, [1, 0, 1, 3, 1, 0], 4, torch.float64, device)
    present = torch.tensor([True, True, False, True, True, True], device=device)
    g = torch.randn(6, dtype=torch.float64, device=device)
    for there in (None, present):
        got = pulled(gradient_match, real, synthetic, classes, g=g, metric=metric, present=there, backend=backend)
        exact = pulled(literal, real, synthetic, classes, g=g, metric=metric, present=there)
        for a, b in zip(got, exact, strict=True):
            assert (a - b).norm() <= 1e-14 * b.norm()
        # No segment is of class 2, so nothing pulls it.
        assert all((gradient[2] == 0).all() for gradient in got[1:])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    classes=st.lists(st.integers(0, 3), min_size=0, max_size=9),
    shapes=st.lists(
        st.one_of(st.tuples(st.integers(1, 9), st.integers(0, 200)), st.just((2, 3, 3, 3)), st.just((70,))),
        min_size=1,
        max_size=3,
    ),
    metric=st.sampled_from(METRICS),
)
def test_any_shape(seed, classes, shapes, metric):
    real, synthetic, classes = case(seed, classes, 4, torch.float64, shapes=[*shapes, (3, 5)])
    for backend in BACKENDS:
        got = pulled(gradient_match, real, synthetic, classes, metric=metric, backend=backend)
        assert got[0].shape == classes.shape
        if len(classes):
            exact = pulled(literal, real, synthetic, classes, metric=metric)
            torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
        else:
            assert all((gradient == 0).all() for gradient in got[1:])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_at_most_twice_plain_torchs(device, metric, dtype):
    # The weights of a ConvNet: long rows.
    shapes = [(12, 3, 3, 3), (12, 128, 3, 3), (10, 2048), (12,)]
    real, synthetic, classes = case(1, [0, 1, 1, 2, 0, 1], 3, dtype, device, shapes)
    exact = pulled(literal, real, [s.double() for s in synthetic], classes, metric=metric)
    ours = pulled(gradient_match, real, synthetic, classes, metric=metric)
    plain = pulled(literal, real, synthetic, classes, metric=metric, dtype=torch.float32)
    for got, theirs, right in zip(ours, plain, exact, strict=True):
        assert got.dtype == torch.float32
        assert (got.double() - right).norm() <= 2 * (theirs.double() - right).norm()


@pytest.mark.parametrize("device", DEVICES)
def test_a_squared_difference_does_not_cancel(device):
    """Gradients that agree to 1e-3: |r|^2 - 2 <r, s> + |s|^2 in float32 would keep one digit."""
    real, synthetic, classes = case(2, [0, 1, 1], 2, torch.float32, device)
    real = [s[classes] + 1e-3 * (r - s[classes]) for r, s in zip(real, synthetic, strict=True)]
    exact = pulled(literal, real, [s.double() for s in synthetic], classes, metric="mse")
    got = pulled(gradient_match, real, synthetic, classes, metric="mse")
    for a, b in zip(got, exact, strict=True):
        assert (a.double() - b).norm() <= 1e-6 * b.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_derivatives_of_first_and_second_order(device, metric):
    real, synthetic, classes = case(3, [1, 0, 1], 2, torch.float64, device, [(2, 3, 1, 1), (2, 2), (2,)])
    present = torch.tensor([True, False, True], device=device)
    for there in (None, present):
        for leaves in (synthetic, [*real, *synthetic]):
            leaves = [t.clone().requires_grad_() for t in leaves]

            def match(*t, there=there):
                return gradient_match(t[:3] if len(t) > 3 else real, t[-3:], classes, metric=metric, present=there)

            used = [t for t in leaves if metric != "ours" or t.dim() > 2]

            def of_used(*t, leaves=leaves, used=used, match=match):
                t = iter(t)
                return match(*[next(t) if any(leaf is u for u in used) else leaf for leaf in leaves])

            assert torch.autograd.gradcheck(of_used, used)
            assert torch.autograd.gradgradcheck(of_used, used)


def test_third_derivative_of_a_composite():
    """Of f = (sum of squared distances)^2 along a line; a quartic in t, so differences of it are exact."""
    real, synthetic, classes = case(4, [0, 1, 1], 2, torch.float64)
    along = [torch.randn_like(s) for s in synthetic]

    def f(t):
        moved = [s + t * d for s, d in zip(synthetic, along, strict=True)]
        return gradient_match(real, moved, classes, metric="mse").sum() ** 2

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = f(t)
    for _ in range(3):
        (value,) = torch.autograd.grad(value, t, create_graph=True)
    differences = (f(2) - 2 * f(1) + 2 * f(-1) - f(-2)) / 2
    torch.testing.assert_close(value, differences, rtol=1e-10, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_gradients_of_images_through_a_network(device, metric):
    """Images -> gradients of a network's loss -> distance -> gradient in the images, as gradient matching takes it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(6, 6), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 4, 3, padding=1)
    )
    net.append(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)))
    net = net.double().to(device)
    with torch.no_grad():
        net[1].bias[2] = -50  # a dead channel: its rows of the synthetic gradients are exactly zero
    parameters = list(net.parameters())
    images = torch.randn(3, 2, 2, 6, 6, dtype=torch.float64, device=device, requires_grad=True)

    def gradients(x, c, **options):
        labels = torch.full((len(x),), c, device=device)
        return torch.autograd.grad(nn.functional.cross_entropy(net(x), labels), parameters, **options)

    classes = torch.tensor([0, 0, 1, 2, 2, 2], device=device)
    present = torch.tensor([True, True, True, True, False, True], device=device)
    of_segment = [gradients(torch.randn(4, 2, 6, 6, dtype=torch.float64, device=device), c) for c in classes.tolist()]
    real = [torch.stack(layer) for layer in zip(*of_segment, strict=True)]
    real[0][:, 2] = torch.randn_like(real[0][:, 2])  # what the dead row is to be matched to
    of_class = [gradients(x, c, create_graph=True) for c, x in enumerate(images)]
    synthetic = [torch.stack(layer) for layer in zip(*of_class, strict=True)]
    assert (synthetic[0][:, 2] == 0).all()
    results = []
    for function in (gradient_match, literal):
        loss = function(real, synthetic, classes, metric=metric, present=present).sum()
        results.append((loss, *torch.autograd.grad(loss, images, retain_graph=True)))
    (loss, gradient), (expected_loss, expected) = results
    assert expected.norm() > 0
    assert abs(loss - expected_loss) <= 1e-12 * abs(expected_loss)
    assert (gradient - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_zeros_have_finite_derivatives(device, backend, metric):
    r = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64, device=device)
    s = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]], dtype=torch.float64, device=device)
    options = {"metric": metric, "backend": backend}
    zero = torch.tensor([0], device=device)
    for real, synthetic in ((r, s), (r, 0 * s), (0 * r, 0 * s)):
        a, b = real.clone().requires_grad_(), synthetic.clone().requires_grad_()
        distance = gradient_match([a], [b], zero, **options).sum()
        first = torch.autograd.grad(distance, (a, b), create_graph=True)
        second = torch.autograd.grad(sum(g.sin().sum() for g in first), (a, b))
        assert all(g.isfinite().all() for g in (*first, *second))
        if metric == "ours":
            # A row of the formula with both norms 0: 1 - <r, s> / 1e-6, whose slope is -r / 1e-6.
            assert distance == 3
            expected = torch.zeros_like(s)
            expected[0, 0] = -real[0, 0] / 1e-6
            torch.testing.assert_close(first[1], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_l1_has_slope_0_where_gradients_agree(device, backend):
    """By hand; rows longer than a register, with agreement in the vectors and in the rest."""
    synthetic = torch.arange(70.0, device=device).view(1, 2, 35)
    real = synthetic.repeat(3, 1, 1)
    real[0, 0, 3:20] += 2
    real[1, 1, 34] -= 0.5
    leaves = real.requires_grad_(), synthetic.clone().requires_grad_()
    classes = torch.tensor([0, 0, 0], device=device)
    distances = gradient_match([leaves[0]], [leaves[1]], classes, metric="l1", backend=backend)
    assert distances.tolist() == [34, 0.5, 0]
    of_real, of_synthetic = torch.autograd.grad(distances @ torch.tensor([1.0, 3.0, 5.0], device=device), leaves)
    expected = torch.zeros_like(real)
    expected[0, 0, 3:20], expected[1, 1, 34] = 1, -3
    assert torch.equal(of_real, expected)
    assert torch.equal(of_synthetic, -expected.sum(0, keepdim=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_absent_is_not_read(device, backend, metric):
    real, synthetic, classes = case(5, [1, 0, 0], 2, torch.float64, device)
    present = torch.tensor([False, True, True], device=device)
    exact = pulled(gradient_match, real, synthetic, classes, metric=metric, present=present, backend=backend)
    for layer in real:
        layer[0] = torch.nan
    real = [t.requires_grad_() for t in real]
    got = pulled(gradient_match, real, synthetic, classes, metric=metric, present=present, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(got, exact, strict=True))
    assert got[0][0] == 0
    assert all((gradient[1] == 0).all() for gradient in got[1:])
    distances = gradient_match(real, synthetic, classes, metric=metric, present=present, backend=backend)
    for gradient in torch.autograd.grad(distances.sum(), real, allow_unused=True, materialize_grads=True):
        assert (gradient[0] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device, dtype):
    (a,), (b,), classes = case(6, [1, 0, 1], 2, dtype, device, [(2, 4)])
    owners = torch.tensor([1, -1, 1], device=device)
    p, q = torch.randn(2, 3, 2, device=device, requires_grad=True)
    p, q, b = (t.detach().requires_grad_() for t in (p, q, b))
    for of, real in ((classes, a), (owners, a.clone().requires_grad_())):
        opcheck(torch.ops.fastdd.gradient_match_products, (real, b, of), dtype)
        opcheck(torch.ops.fastdd.gradient_match_combine, (p, q, real, b, of), dtype)
        opcheck(torch.ops.fastdd.gradient_match_distances, (real, b, of), dtype)
        opcheck(torch.ops.fastdd.gradient_match_pull, (p, real, b, of), dtype)
        opcheck(torch.ops.fastdd.gradient_match_absolutes, (real, b, of), dtype)
        opcheck(torch.ops.fastdd.gradient_match_signs, (p, real, b, of), dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_strides_do_not_matter(device, metric):
    real, synthetic, classes = case(7, [1, 0, 1], 2, torch.float32, device, [(3, 4, 3, 3), (3, 9)])
    expected = pulled(gradient_match, real, synthetic, classes, metric=metric)

    def transposed(tensors):
        return [t.transpose(0, 2).contiguous().transpose(0, 2) for t in tensors]

    def through(real, synthetic, classes, **options):
        return gradient_match(transposed(real), transposed(synthetic), classes, **options)

    strided = torch.stack([classes, classes], 1)[:, 0]
    got = pulled(through, real, synthetic, strided, metric=metric)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    got, expected = (
        pulled(gradient_match, [make(r[:1]) for r in real], synthetic, classes, metric=metric)
        for make in (lambda r: r.expand(3, *r.shape[1:]), lambda r: r.repeat(3, *[1] * (r.dim() - 1)))
    )
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_channels_last_gradients_are_not_copied(device, metric):
    """As torch.stack leaves the weight gradients of channels-last convolutions."""
    real, synthetic, classes = case(11, [1, 0, 1], 2, torch.float64, device, [(3, 4, 3, 3)])
    expected = pulled(gradient_match, real, synthetic, classes, metric=metric)
    weights = [[w.contiguous(memory_format=torch.channels_last) for w in of] for of in (real[0], synthetic[0])]
    real, synthetic = ([torch.stack(of)] for of in weights)
    assert not real[0].is_contiguous()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gradient_match(real, [s.requires_grad_() for s in synthetic], classes, metric=metric)
    for t in (*real, *synthetic):
        assert t.data_ptr() in [k.data_ptr() for k in kept]
    got = pulled(gradient_match, real, synthetic, classes, metric=metric)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 1e-14 * b.norm()
    got = pulled(gradient_match, real, [s.contiguous() for s in synthetic], classes, metric=metric)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 1e-14 * b.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
def test_two_runs_are_bitwise_equal(device, metric):
    arguments = case(8, [2, 0, 1, 1, 0, 1], 3, torch.float32, device, [(64, 300), (8, 5000)])
    first, second = (pulled(gradient_match, *arguments, metric=metric) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("metric", METRICS)
def test_results_do_not_depend_on_the_number_of_threads(metric):
    arguments = case(9, [2, 0, 1, 1, 0, 1], 3, torch.float32, shapes=[(64, 300), (8, 5000), (40_000,)])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(pulled(gradient_match, *arguments, metric=metric))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_does_not_fit_is_refused():
    real, synthetic, classes = case(10, [1, 0], 2, torch.float32, shapes=[(2, 3), (4,)])
    with pytest.raises(ValueError, match="metric='mae' is not one of ours, mse, cos, l1"):
        gradient_match(real, synthetic, classes, metric="mae")
    with pytest.raises(ValueError, match="one gradient a layer; got 1 and 2"):
        gradient_match(real[:1], synthetic, classes)
    with pytest.raises(ValueError, match="one gradient a layer; got 0 and 0"):
        gradient_match([], [], classes)
    with pytest.raises(TypeError, match=r"real\[1\] must be float32, .* not torch\.int64"):
        gradient_match([real[0], real[1].long()], synthetic, classes)
    with pytest.raises(TypeError, match=r"synthetic\[0\] must be torch\.float32 .*, not torch\.bfloat16"):
        gradient_match(real, [s.bfloat16() for s in synthetic], classes)
    for wrong in ([real[0], real[1][:1]], [real[0], real[1][:, :3]], [real[0], torch.zeros(())]):
        with pytest.raises(ValueError, match=r"real\[1\] must be \[S, \*shape\]"):
            gradient_match(wrong, synthetic, classes)
    with pytest.raises(ValueError, match="from 0 to 1; got 2"):
        gradient_match(real, synthetic, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"int64 \[S\] = \[2\]"):
        gradient_match(real, synthetic, classes[:1])
    with pytest.raises(ValueError, match=r"present must be bool \[2\], not torch\.int64 \[2\]"):
        gradient_match(real, synthetic, classes, present=classes)
    with pytest.raises(ValueError, match="2 or more dimensions, and there are none"):
        gradient_match(real[1:], synthetic[1:], classes)


@pytest.mark.parametrize("metric", METRICS)
def test_compiles_without_graph_breaks(metric):
    real, synthetic, classes = case(12, [1, 0, 1], 2, torch.float32, shapes=[(3, 5)])
    present = torch.tensor([True, False, True])
    synthetic[0].requires_grad_()

    def loss(s):
        return gradient_match(real, [s], classes, metric=metric, present=present).sum()

    (expected,) = torch.autograd.grad(loss(synthetic[0]), synthetic)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    (got,) = torch.autograd.grad(compiled(synthetic[0]), synthetic)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("metric", METRICS)
def test_all_layers_at_once_are_the_layers_one_by_one(metric):
    real, synthetic, classes = case(8, [2, 0, 1], 3, torch.float64, "cpu", [(2, 4), (1, 3)])
    present = torch.tensor([True, False, True])
    leaves = [t.detach().requires_grad_() for t in (*real, *synthetic)]
    flat = [torch.cat([t.flatten(1) for t in side], 1) for side in (leaves[:2], leaves[2:])]
    distances = torch.ops.fastdd.gradient_match_layers(*flat, classes, present, [2, 1], [4, 3], metric)[0]
    expected = gradient_match(leaves[:2], leaves[2:], classes, metric=metric, present=present)
    torch.testing.assert_close(distances, expected, rtol=1e-13, atol=1e-13)
    g = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    for asked, again in ((leaves[2:], False), (leaves, False), (leaves, True)):
        options = {"retain_graph": True, "create_graph": again}
        for got, right in zip(
            *(torch.autograd.grad(d, asked, g, **options) for d in (distances, expected)), strict=True
        ):
            torch.testing.assert_close(got, right, rtol=1e-12, atol=1e-13)


def test_opcheck_of_all_layers():
    a, b, classes = torch.rand(3, 9), torch.rand(2, 9).requires_grad_(), torch.tensor([1, 0, 1])
    geometry = [2, 1], [3, 3], "ours"
    torch.library.opcheck(torch.ops.fastdd.gradient_match_layers.default, (a, b, classes, None, *geometry))
    products = (torch.rand(3, 3) for _ in range(3))
    pull = torch.rand(3), a, b.detach(), classes, None, *products, *geometry
    torch.library.opcheck(torch.ops.fastdd.gradient_match_layers_pull.default, pull)
