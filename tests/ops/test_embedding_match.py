import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck

from fastdd.ops.embedding_match import embedding_match

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ["auto", "reference"]
CLASSES = 3


def truth(real, synthetic, offsets, weights, classes, num_classes, dtype=torch.float64):
    """Segment by segment, as the formula reads, in ``dtype``."""
    of_class = synthetic.to(dtype).chunk(num_classes)
    distances = []
    for s, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        part = real[start:end].to(dtype)
        w = torch.ones(end - start, dtype=dtype, device=real.device)
        if weights is not None:
            w = weights[start:end].to(dtype)
        if w.sum() == 0:
            distances.append(0 * of_class[0].sum())
        else:
            mean = (part * w[:, None]).sum(0) / w.sum()
            distances.append((mean - of_class[classes[s]].mean(0)).square().sum())
    return torch.stack(distances) if distances else synthetic.new_zeros(0, dtype=dtype)


def case(seed, lengths, columns, dtype, weighted, device="cpu", ipc=4):
    """Segments of classes 2 0 1 2 0 1 ..., in no order, and a synthetic set near the real one."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    real = (torch.randn(n, columns, generator=generator, dtype=torch.float64) + 1).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    synthetic = torch.randn(CLASSES * ipc, columns, generator=generator, dtype=torch.float64).to(wide)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    weights = torch.rand(n, generator=generator) if weighted else None
    classes = (torch.arange(len(lengths)) + 2) % CLASSES
    weights = None if weights is None else weights.to(device)
    return real.to(device), synthetic.to(device), offsets.to(device), weights, classes.to(device), CLASSES


def pulled(function, arguments, g=None):
    """Distances and the gradient in the synthetic rows."""
    real, synthetic, *rest = arguments
    leaf = synthetic.detach().clone().requires_grad_()
    distances = function(real, leaf, *rest)
    (gradient,) = torch.autograd.grad(distances, leaf, torch.ones_like(distances) if g is None else g)
    return distances.detach(), gradient


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_at_most_twice_plain_torchs(device, weighted, dtype):
    # Many segments: the error of one is a matter of luck, half a unit in its last place.
    arguments = case(0, [300, 0, 1, 3000, 17, 40] * 5, 371, dtype, weighted, device)
    exact = pulled(truth, (arguments[0], arguments[1].double(), *arguments[2:]))
    ours = pulled(embedding_match, arguments)
    plain = pulled(lambda *a: truth(*a, dtype=torch.float32), arguments)
    assert ours[0].dtype == ours[1].dtype == torch.float32
    for got, theirs, right in zip(ours, plain, exact, strict=True):
        assert (got.double() - right).norm() <= 2 * (theirs.double() - right).norm()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(0, 40), min_size=0, max_size=7),
    columns=st.integers(0, 600),
    weighted=st.booleans(),
    ipc=st.integers(1, 5),
)
def test_any_shape(seed, lengths, columns, weighted, ipc):
    arguments = case(seed, lengths, columns, torch.float64, weighted, ipc=ipc)
    g = torch.randn(len(lengths), dtype=torch.float64)
    exact = pulled(truth, arguments, g) if lengths else (torch.zeros(0).double(), torch.zeros_like(arguments[1]))
    for backend in BACKENDS:
        got = pulled(lambda *a, backend=backend: embedding_match(*a, backend=backend), arguments, g)
        assert got[0].shape == (len(lengths),)
        torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_empty_or_weightless_pulls_nothing(device, backend):
    real = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], device=device)
    synthetic = torch.tensor([[9.0, 8.0], [1.0, 0.0]], device=device)
    offsets = torch.tensor([0, 2, 2, 3], device=device)
    weights = torch.tensor([1.0, 3.0, 0.0], device=device)
    classes = torch.tensor([1, 0, 0], device=device)

    def rooted(*a):
        # The slope of the root is infinite at the distance 0 of the empty and the weightless segment.
        return embedding_match(*a, backend=backend).sqrt()

    distances, gradient = pulled(rooted, (real, synthetic, offsets, weights, classes, 2))
    # (2.5, 3.5) - (1, 0): the root of 2.25 + 12.25.
    expected = torch.tensor([14.5**0.5, 0.0, 0.0], device=device)
    torch.testing.assert_close(distances, expected)
    assert torch.equal(gradient[0], torch.zeros(2, device=device))
    torch.testing.assert_close(gradient[1], -torch.tensor([1.5, 3.5], device=device) / 14.5**0.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lengths", [[3, 0, 4, 1], [], [1], [0]])
def test_derivatives_of_first_and_second_order(device, lengths, weighted):
    real, synthetic, *rest = case(1, lengths, 3, torch.float64, weighted, device, ipc=2)
    real.requires_grad_()
    synthetic.requires_grad_()
    for function, leaves in (
        (lambda r, s: embedding_match(r, s, *rest), (real, synthetic)),
        (lambda s: embedding_match(real.detach(), s, *rest), (synthetic,)),
        # The differences are an output of the op too, with a derivative of their own.
        (lambda r, s: torch.ops.fastdd.embedding_match(r, s, *rest)[:2], (real, synthetic)),
    ):
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


def test_third_derivative_of_a_composite():
    """Of f = (sum of distances)^2 along a line; f is a quartic in t, so differences of it are exact."""
    real, synthetic, *rest = case(2, [5, 0, 3, 4], 3, torch.float64, True, ipc=2)
    along = torch.randn_like(synthetic)

    def f(t):
        return embedding_match(real, synthetic + t * along, *rest).sum() ** 2

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = f(t)
    for _ in range(3):
        (value,) = torch.autograd.grad(value, t, create_graph=True)
    # The central third difference of a quartic, with unit steps.
    differences = (f(2) - 2 * f(1) + 2 * f(-1) - f(-2)) / 2
    torch.testing.assert_close(value, differences, rtol=1e-10, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_of_bfloat16_rows_is_bfloat16(device):
    real, synthetic, *rest = case(3, [4, 3], 5, torch.bfloat16, True, device)
    real.requires_grad_()
    embedding_match(real, synthetic, *rest).sum().backward()
    exact = real.detach().double().requires_grad_()
    truth(exact, synthetic.double(), *rest).sum().backward()
    assert real.grad.dtype == torch.bfloat16
    torch.testing.assert_close(real.grad.double(), exact.grad, rtol=2**-8, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_only_the_differences_are_kept_for_the_synthetic_gradient(device):
    real, synthetic, *rest = case(4, [500, 600], 64, torch.float32, True, device)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        embedding_match(real, synthetic.requires_grad_(), *rest)
    assert 2 * 64 in kept
    assert max(kept) <= len(real)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device, dtype):
    real, synthetic, offsets, weights, classes, _ = case(5, [3, 0, 4], 3, dtype, True, device)
    synthetic.requires_grad_()
    for w in (None, weights):
        for r in (real, real.clone().requires_grad_()):
            opcheck(torch.ops.fastdd.embedding_match, (r, synthetic, offsets, w, classes, CLASSES), dtype)
    g = torch.randn(3, device=device, requires_grad=True)
    x = torch.randn(3, 3, device=device, requires_grad=True)
    totals = torch.tensor([1.0, 0.0, 2.0], device=device)
    for scale in (None, g):
        opcheck(torch.ops.fastdd.embedding_match_pull, (scale, x, totals, classes, CLASSES, 6, -2.0), dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device):
    real, synthetic, offsets, weights, classes, _ = case(6, [5, 6], 8, torch.float32, True, device)
    expected = pulled(embedding_match, (real, synthetic, offsets, weights, classes, CLASSES))

    def transposed(t):
        return t.t().contiguous().t()

    strided = torch.stack([weights, weights], 1)[:, 0], torch.stack([classes, classes], 1)[:, 0]

    def through(real, synthetic, *rest):
        return embedding_match(transposed(real), transposed(synthetic), *rest)

    got = pulled(through, (real, synthetic, offsets, *strided, CLASSES))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    row = real[:1]
    got, expected = (
        pulled(embedding_match, (rows, synthetic, offsets, None, classes, CLASSES))
        for rows in (row.expand(11, 8), row.repeat(11, 1))
    )
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    # Gradients of sums arrive with stride 0.
    ones = torch.ones(2, device=device)
    got, expected = (
        pulled(embedding_match, (real, synthetic, offsets, None, classes, CLASSES), g)
        for g in (ones[:1].expand(2), ones)
    )
    assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_are_bitwise_equal(device):
    arguments = case(7, [5000, 3, 0, 4000], 300, torch.float32, True, device)
    first, second = pulled(embedding_match, arguments), pulled(embedding_match, arguments)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_results_do_not_depend_on_the_number_of_threads():
    arguments = case(8, [5000, 3, 4000, 10, 10, 10], 300, torch.float32, True, ipc=50)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(pulled(embedding_match, arguments))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_does_not_fit_is_refused():
    names = ("real", "synthetic", "offsets", "weights", "classes", "num_classes")
    right = dict(zip(names, case(9, [3, 2], 4, torch.float32, True), strict=True))
    real, synthetic, weights, c = right["real"], right["synthetic"], right["weights"], CLASSES

    def match(**changed):
        return embedding_match(**{**right, **changed})

    with pytest.raises(TypeError, match=r"real must be float32, .* not torch\.int64"):
        match(real=real.long())
    with pytest.raises(ValueError, match=r"\[N, D\], not \[5, 4, 1\]"):
        match(real=real[..., None])
    with pytest.raises(TypeError, match=r"must be torch\.float32 to match real's torch\.bfloat16, not torch\.bfloat16"):
        match(real=real.bfloat16(), synthetic=synthetic.bfloat16())
    with pytest.raises(TypeError, match=r"must be torch\.float64"):
        match(real=real.double())
    for wrong, classes_of in ((synthetic[:-1], c), (synthetic[:, 1:], c), (synthetic[:0], c), (synthetic, 0)):
        with pytest.raises(ValueError, match=r"\[C \* IPC, D\] with C = \d and D = 4, not"):
            match(synthetic=wrong, num_classes=classes_of)
    with pytest.raises(ValueError, match="rise from 0 to the number of rows, 5"):
        match(offsets=torch.tensor([0, 3, 4]))
    with pytest.raises(ValueError, match=r"weights\.detach"):
        match(weights=weights.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"int64 \[S\] = \[2\], not torch\.int64 \[3\]"):
        match(classes=torch.zeros(3, dtype=torch.int64))
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"from 0 to 2; got {wrong}"):
            match(classes=torch.tensor([0, wrong]))


def test_compiles_without_graph_breaks():
    real, synthetic, *rest = case(10, [5, 0, 6], 8, torch.float32, True)
    synthetic.requires_grad_()

    def loss(s):
        return embedding_match(real, s, *rest).sum()

    (expected,) = torch.autograd.grad(loss(synthetic), synthetic)
    (got,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(synthetic), synthetic)
    assert torch.equal(got, expected)
