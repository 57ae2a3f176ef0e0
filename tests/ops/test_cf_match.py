import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck

from fastdd.core import rng
from fastdd.ops import cf_frequencies, cf_match
from fastdd.ops.cf_match import _distances
from fastdd.reference import cf_match as reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ["auto", "reference"]
# One segment of each class, and more; one empty, one without weight, one of a single row.
LENGTHS, CLASSES = [5, 0, 3, 40, 1], [1, 0, 0, 1, 0]


def complex_means(rows, t, weights):
    """sum w exp(i t . x) / sum w, [K], in complex arithmetic."""
    return (weights.to(torch.complex128) @ torch.exp(1j * (rows @ t.T))) / weights.sum()


def published(a, b, amplitude, phase):
    """The published distance of complex numbers, whose second term is kept above 1e-12."""
    of_phase = 2 * (a.abs() * b.abs() - a.real * b.real - a.imag * b.imag)
    return torch.sqrt(amplitude * (a.abs() - b.abs()) ** 2 + phase * of_phase.clamp(min=1e-12))


def literal(real, synthetic, t, offsets, weights, classes, num_classes, amplitude=0.5, phase=0.5):
    """One segment after the other, in complex arithmetic."""
    weights = torch.ones(len(real), dtype=torch.float64) if weights is None else weights.double()
    distances = []
    for s, c in enumerate(classes.tolist()):
        rows = slice(int(offsets[s]), int(offsets[s + 1]))
        frequencies = t[c if len(t) > 1 else 0].double()
        images = synthetic.double().chunk(num_classes)[c]
        if weights[rows].sum() == 0:
            distances.append(0 * images.sum())
            continue
        a = complex_means(real[rows].double(), frequencies, weights[rows])
        b = complex_means(images, frequencies, torch.ones(len(images), dtype=torch.float64))
        distances.append(published(a, b, amplitude, phase).mean())
    return torch.stack(distances)


def case(seed=0, dtype=torch.float64, device="cpu", columns=7, frequencies=45, ipc=3, shared=False, weighted=True):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    n = int(offsets[-1])
    weights = torch.rand(n, generator=generator) if weighted else None
    if weighted:
        weights[5:8] = 0
    tensors = (
        normal(n, columns).to(dtype),
        normal(2 * ipc, columns).to(wide),
        normal(1 if shared else 2, frequencies, columns).to(wide),
        offsets,
        weights,
        torch.tensor(CLASSES),
    )
    return *(None if value is None else value.to(device) for value in tensors), 2


def with_gradients(function, real, synthetic, *rest, **options):
    leaves = real.detach().clone().requires_grad_(), synthetic.detach().clone().requires_grad_()
    distances = function(*leaves, *rest, **options)
    weights = torch.arange(1.0, len(distances) + 1, dtype=distances.dtype, device=distances.device)
    total = (weights * distances).sum()
    return distances.detach(), *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("amplitude", "phase"), [(0.5, 0.5), (0.9, 0.1), (0.2, 1.3), (1.0, 0.0), (0.0, 1.0)])
def test_equals_complex_arithmetic(backend, device, amplitude, phase):
    for shared, weighted in ((False, True), (True, False)):
        inputs = case(device=device, shared=shared, weighted=weighted)
        options = {"amplitude": amplitude, "phase": phase}
        got = with_gradients(cf_match, *inputs, backend=backend, **options)
        exact = with_gradients(literal, *(v.cpu() if isinstance(v, torch.Tensor) else v for v in inputs), **options)
        for a, b in zip(got, exact, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-10, atol=1e-12)
        absent = [1, 2] if weighted else [1]
        assert (got[0][absent] == 0).all()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    amplitude=st.floats(0, 2),
    phase=st.floats(0, 2),
    apart=st.sampled_from([1e-3, 0.1, 1.0]),
)
def test_the_stable_form_is_the_published_one(seed, amplitude, phase, apart):
    """Anywhere in the unit disc, but near what the published form clamps."""
    generator = torch.Generator().manual_seed(seed)
    b = torch.rand(50, 2, dtype=torch.float64, generator=generator) * 2 - 1
    a = b + apart * (torch.rand(50, 2, dtype=torch.float64, generator=generator) * 2 - 1)
    got = _distances(a, b, amplitude, phase)
    expected = published(torch.view_as_complex(a), torch.view_as_complex(b), amplitude, phase)
    turned = 2 * (a.norm(dim=1) * b.norm(dim=1) - (a * b).sum(1))
    safe = turned > 1e-9
    torch.testing.assert_close(got[safe], expected[safe], rtol=1e-6, atol=1e-9)


def test_near_agreement_keeps_its_digits():
    """Functions that agree to 1e-6: as a difference of squares float32 would keep nothing of their distance."""
    b = torch.tensor([[0.6, 0.3], [-0.2, 0.7]], dtype=torch.float64)
    a = b + 1e-6 * torch.tensor([[1.0, -2.0], [3.0, 1.0]], dtype=torch.float64)
    single = a.float(), b.float()
    for weights in ((0.5, 0.5), (0.8, 0.3), (0.1, 0.9)):
        exact = _distances(single[0].double(), single[1].double(), *weights)
        torch.testing.assert_close(_distances(*single, *weights).double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_derivatives(device):
    real, synthetic, *rest = case(1, device=device, columns=3, frequencies=5)
    for weights in ((0.5, 0.5), (0.3, 1.1)):
        amplitude, phase = weights

        def match(r, s, amplitude=amplitude, phase=phase):
            return cf_match(r, s, *rest, amplitude=amplitude, phase=phase)

        assert torch.autograd.gradcheck(match, (real.clone().requires_grad_(), synthetic.clone().requires_grad_()))
    leaf = synthetic.clone().requires_grad_()
    (first,) = torch.autograd.grad(cf_match(real, leaf, *rest).sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="has no derivative"):
        torch.autograd.grad(first.sum(), leaf)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(0, 30), min_size=0, max_size=5),
    columns=st.integers(1, 560),
    frequencies=st.integers(1, 80),
    ipc=st.integers(1, 14),
)
def test_any_shape(seed, lengths, columns, frequencies, ipc):
    generator = torch.Generator().manual_seed(seed)
    n, classes = sum(lengths), torch.randint(0, 2, (len(lengths),), generator=generator)
    real = torch.randn(n, columns, generator=generator, dtype=torch.float64)
    synthetic = torch.randn(2 * ipc, columns, generator=generator, dtype=torch.float64)
    t = torch.randn(2, frequencies, columns, generator=generator, dtype=torch.float64) / columns**0.5
    rest = t, torch.tensor([0, *lengths]).cumsum(0), None, classes, 2
    results = [with_gradients(cf_match, real, synthetic, *rest, backend=backend) for backend in BACKENDS]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_at_most_twice_plain_torchs(dtype, device):
    inputs = case(2, dtype, device, columns=1500, frequencies=64, ipc=8, weighted=False)
    real, synthetic, t, offsets, _, classes, count = inputs
    real = torch.nn.functional.normalize(real.float(), dim=1).to(dtype)
    synthetic = torch.nn.functional.normalize(synthetic, dim=1)
    doubles = (real.double(), synthetic.double(), t.double(), offsets, None, classes, count)
    exact = with_gradients(cf_match, *doubles, backend="reference")
    plain = with_gradients(cf_match, real.float(), synthetic, t, offsets, None, classes, count, backend="reference")
    got = with_gradients(cf_match, real, synthetic, t, offsets, None, classes, count)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    for ours, theirs, right in zip(got[::2], plain[::2], exact[::2], strict=True):
        assert (ours.double() - right).norm() <= 2 * (theirs.double() - right).norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e5, 1e30, math.inf, math.nan])
def test_sine_and_cosine(device, scale):
    """One row, so that the means are them: within two units of float32's last place of 1, at any phase."""
    t = scale * torch.linspace(-7, 7, 5001, device=device)
    zero = torch.tensor([0], device=device)
    got = torch.ops.fastdd.cf_means(
        torch.ones(1, 1, device=device), t.view(1, -1, 1), torch.tensor([0, 1], device=device), None, zero
    )[0]
    if not math.isfinite(scale):
        assert got[1:-1][t[1:-1] != 0].isnan().all() or scale == math.inf
        assert got[0].isnan().all()
        return
    assert got.abs().max() <= 1 + 2**-22
    near = t.abs() < 5e3
    exact = torch.stack([t.double().cos(), t.double().sin()], 1)
    # The quarter turns of a phase have its relative error.
    allowed = 2**-22 + 2**-23 * t[near].abs().double()
    assert ((got[near].double() - exact[near]).abs() <= allowed[:, None]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device, dtype):
    real, _, t, offsets, weights, classes, _ = case(3, dtype, device)
    for x in (real, real.clone().requires_grad_()):
        opcheck(torch.ops.fastdd.cf_means, (x, t, offsets, weights, classes), dtype)
    g = torch.randn(len(LENGTHS), t.shape[1], 2, device=device)
    opcheck(torch.ops.fastdd.cf_pull, (g, real, t, offsets, weights, classes), dtype)
    opcheck(torch.ops.fastdd.cf_frequencies, (torch.arange(3, device=device), 5), dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device):
    real, synthetic, t, offsets, weights, classes, count = case(4, torch.float32, device, shared=True)
    expected = with_gradients(cf_match, real, synthetic, t, offsets, weights, classes, count)

    def through(r, s, frequencies, *rest):
        twisted = (v.transpose(0, 1).contiguous().transpose(0, 1) for v in (r, s))
        return cf_match(*twisted, frequencies.transpose(1, 2).contiguous().transpose(1, 2), *rest)

    strided = torch.stack([classes, classes], 1)[:, 0], torch.stack([offsets, offsets], 1)[:, 0]
    got = with_gradients(through, real, synthetic, t, strided[1], weights, strided[0], count)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    got = with_gradients(cf_match, real, synthetic, t.expand(2, -1, -1), offsets, weights, classes, count)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    one, many = real[:1].expand(len(real), -1), real[:1].repeat(len(real), 1)
    results = [with_gradients(cf_match, r, synthetic, t, offsets, weights, classes, count) for r in (one, many)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_results_do_not_depend_on_the_number_of_threads():
    inputs = case(5, torch.float32, columns=300, frequencies=500, ipc=30)
    keys = rng.lanes(rng.key(0, "test"), 2)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append((*with_gradients(cf_match, *inputs), cf_frequencies(keys, 300, 301)))
    finally:
        torch.set_num_threads(before)
    for again in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], again, strict=True))


def test_what_a_class_sees_does_not_depend_on_the_others():
    real, synthetic, t, offsets, weights, classes, count = case(6, torch.float32, columns=50)
    distances, *_ = with_gradients(cf_match, real, synthetic, t, offsets, weights, classes, count)
    rows = slice(int(offsets[2]), int(offsets[3]))
    alone = cf_match(real[rows], synthetic[:3], t[:1], offsets[2:4] - offsets[2], None, torch.tensor([0]), 1)
    both = cf_match(real, synthetic, t, offsets, None, classes, count)
    assert torch.equal(alone[0], both[2])
    assert distances[2] == 0


def test_no_matrix_of_rows_and_frequencies():
    """20,000 rows at 4,096 frequencies, of which a matrix would take 330 MB."""
    script = """
import resource, torch
from fastdd.ops import cf_match
real, synthetic, t = torch.rand(20000, 2), torch.rand(4, 2, requires_grad=True), torch.rand(1, 4096, 2)
rest = torch.tensor([0, 20000]), None, torch.tensor([0]), 1
cf_match(real[:10], synthetic, t[:, :9], torch.tensor([0, 10]), *rest[1:]).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cf_match(real.requires_grad_(), synthetic, t, *rest).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert grown * (1024 if sys.platform != "darwin" else 1) < 50e6


@pytest.mark.parametrize("device", DEVICES)
def test_frequencies(device):
    keys = rng.lanes(rng.key(0, "test"), 3, device)
    t = cf_frequencies(keys, 400, 501)
    assert t.shape == (3, 400, 501)
    values = t.flatten().double()
    n = len(values)
    for power, (moment, spread) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96), 6: (15, 10170)}.items():
        assert abs(values.pow(power).mean() - moment) < 4 * (spread / n) ** 0.5
    # Neighbours, which come of the same bits, and keys are independent.
    pairs = t.flatten(1)[:, : 2 * (t[0].numel() // 2)].unflatten(1, (-1, 2)).double()
    for a, b in (
        (pairs[..., 0], pairs[..., 1]),
        (pairs[0], pairs[1]),
        (pairs[..., 0] ** 2 - 1, pairs[..., 1] ** 2 - 1),
    ):
        assert abs((a * b).mean()) < 4 * 2 / a.numel() ** 0.5
    expected = reference.cf_frequencies(keys.cpu(), 400 * 501).view(3, 400, 501)
    torch.testing.assert_close(t.cpu(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(cf_frequencies(keys[1:], 400, 501)[0], t[1])
    assert cf_frequencies(keys, 0, 5).shape == (3, 0, 5)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_weights_that_are_zero_in_float32_are_no_weight(backend):
    real, synthetic, t, offsets, weights, classes, count = case(8, torch.float32)
    tiny = torch.full_like(weights, 1e-60, dtype=torch.float64)
    synthetic.requires_grad_()
    distances = cf_match(real, synthetic, t, offsets, tiny, classes, count, backend=backend)
    assert not distances.any()
    assert not torch.autograd.grad(distances.sum(), synthetic)[0].any()


def test_what_does_not_fit_is_refused():
    real, synthetic, t, offsets, weights, classes, count = case(7, torch.float32)
    good = {
        **{"real": real, "synthetic": synthetic, "t": t, "offsets": offsets},
        **{"weights": weights, "classes": classes, "num_classes": count},
    }
    for changed, error, message in (
        ({"real": real.long()}, TypeError, "real must be float32, .* not torch.int64"),
        ({"real": real[:, None]}, ValueError, r"real must be \[N, D\]"),
        ({"real": real[:, :3]}, ValueError, r"synthetic must be \[C \* IPC, D\] with C = 2 and D = 3"),
        ({"synthetic": synthetic.double()}, TypeError, "synthetic must be torch.float32 .*, not torch.float64"),
        ({"synthetic": synthetic[:5]}, ValueError, r"not \[5, 7\]"),
        ({"num_classes": 0}, ValueError, "with C = 0"),
        ({"t": t[:, :, :2]}, ValueError, r"t must be \[C, K, D\] or \[1, K, D\] .*, not \[2, 45, 2\]"),
        ({"t": t[:, :0]}, ValueError, "K at least 1"),
        ({"t": t.repeat(2, 1, 1)}, ValueError, r"with C = 2.*not \[4, 45, 7\]"),
        ({"t": t.clone().requires_grad_()}, ValueError, "t is not differentiable here"),
        ({"offsets": offsets[:-1]}, ValueError, "rise from 0 to the number of rows, 49"),
        ({"weights": weights[1:]}, ValueError, r"weights must be floating point \[49\]"),
        ({"weights": weights.clone().requires_grad_()}, ValueError, "weights are not differentiable here"),
        ({"classes": classes + 1}, ValueError, "classes must be from 0 to 1; got 2"),
        ({"amplitude": -1.0}, ValueError, "amplitude must be finite and at least 0, not -1.0"),
        ({"phase": math.nan}, ValueError, "phase must be finite and at least 0, not nan"),
    ):
        with pytest.raises(error, match=message):
            cf_match(**{**good, **changed})
    with pytest.raises(ValueError, match=r"keys must be int64 \[C\], not torch.float32 \[2\]"):
        cf_frequencies(torch.rand(2), 3, 4)
    with pytest.raises(ValueError, match="must be at least 0, not 3 and -1"):
        cf_frequencies(torch.tensor([1]), 3, -1)
