import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck

from fastdd.ops.segment_mean import segment_mean, segment_spread

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ["auto", "reference"]


def truth(x, offsets, weights):
    """Segment by segment, in float64."""
    rows = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        part = x[start:end].double()
        w = torch.ones(end - start, dtype=torch.float64, device=x.device)
        if weights is not None:
            w = weights[start:end].double()
        rows.append((part * w[:, None]).sum(0) / w.sum() if w.sum() != 0 else torch.zeros_like(x[0:1].double().sum(0)))
    return torch.stack(rows)


def plain(x, offsets, weights):
    """What anyone would write, in x's dtype: a mean per segment."""
    rows = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        part = x[start:end]
        if weights is None:
            rows.append(part.mean(0) if end > start else part.sum(0))
        else:
            w = weights[start:end].to(x.dtype)
            rows.append((part * w[:, None]).sum(0) / w.sum() if w.sum() != 0 else torch.zeros_like(part.sum(0)))
    return torch.stack(rows)


def case(seed, lengths, columns, dtype, weighted, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    x = torch.randn(n, columns, generator=generator, dtype=torch.float64).to(dtype)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    weights = torch.rand(n, generator=generator) if weighted else None
    return x.to(device), offsets.to(device), None if weights is None else weights.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_at_most_twice_plain_torchs(device, weighted, dtype):
    # 3,000 rows: longer than one work item, so the split sum is taken too.
    x, offsets, weights = case(0, [300, 0, 1, 3000, 17], 37, dtype, weighted, device)
    got = segment_mean(x, offsets, weights)
    exact = truth(x, offsets, weights)
    assert got.dtype == torch.float32
    error = (got.double() - exact).abs().max()
    assert error <= 2 * (plain(x, offsets, weights).double() - exact).abs().max()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(0, 40), min_size=0, max_size=6),
    columns=st.integers(0, 600),
    weighted=st.booleans(),
)
def test_any_shape(seed, lengths, columns, weighted):
    x, offsets, weights = case(seed, lengths, columns, torch.float64, weighted)
    got = segment_mean(x, offsets, weights)
    assert got.shape == (len(lengths), columns)
    if lengths:
        torch.testing.assert_close(got, truth(x, offsets, weights), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(got, segment_mean(x, offsets, weights, backend="reference"), rtol=1e-13, atol=1e-13)
    # <mean(x), g> = <x, spread(g)>
    g = torch.randn(got.shape, dtype=torch.float64)
    spread = segment_spread(g, offsets, weights, len(x))
    torch.testing.assert_close((got * g).sum(), (x * spread).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_and_weightless_segments_are_zero(device, backend):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], device=device)
    offsets = torch.tensor([0, 0, 2, 2, 3, 3], device=device)
    weights = torch.tensor([1.0, 3.0, 0.0], device=device)
    expected = torch.tensor([[0.0, 0.0], [2.5, 3.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], device=device)
    assert torch.equal(segment_mean(x, offsets, weights, backend=backend), expected)
    g = torch.ones(5, 2, device=device)
    expected = torch.tensor([[0.25, 0.25], [0.75, 0.75], [0.0, 0.0]], device=device)
    assert torch.equal(segment_spread(g, offsets, weights, 3, backend=backend), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lengths", [[3, 0, 4], [], [1], [0]])
def test_derivatives_of_first_and_second_order(device, lengths, weighted):
    x, offsets, weights = case(1, lengths, 3, torch.float64, weighted, device)
    x.requires_grad_()
    g = torch.randn(len(lengths), 3, dtype=torch.float64, device=device, requires_grad=True)
    for function, argument in (
        (lambda t: segment_mean(t, offsets, weights), x),
        (lambda t: segment_spread(t, offsets, weights, len(x)), g),
    ):
        assert torch.autograd.gradcheck(function, argument)
        assert torch.autograd.gradgradcheck(function, argument)


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_of_bfloat16_rows_is_bfloat16(device):
    x, offsets, weights = case(2, [4, 3], 5, torch.bfloat16, True, device)
    x.requires_grad_()
    segment_mean(x, offsets, weights).sum().backward()
    expected = segment_spread(torch.ones(2, 5, device=device), offsets, weights, 7)
    assert torch.equal(x.grad, expected.bfloat16())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device, dtype):
    x, offsets, weights = case(3, [3, 0, 4], 3, dtype, True, device)
    x.requires_grad_()
    for w in (None, weights):
        opcheck(torch.ops.fastdd.segment_mean, (x, offsets, w), dtype)
        g = torch.randn(3, 3, device=device, requires_grad=True)
        opcheck(torch.ops.fastdd.segment_spread, (g, offsets, w, 7), dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device):
    x, offsets, weights = case(4, [5, 6], 8, torch.float32, True, device)
    expected = segment_mean(x, offsets, weights)
    assert torch.equal(segment_mean(x.t().contiguous().t(), offsets, weights), expected)
    assert torch.equal(segment_mean(x, offsets, torch.stack([weights, weights], 1)[:, 0]), expected)
    row = x[:1]
    assert torch.equal(segment_mean(row.expand(11, 8), offsets, None), segment_mean(row.repeat(11, 1), offsets, None))
    # Gradients of sums arrive with stride 0.
    leaf = x.clone().requires_grad_()
    segment_mean(leaf, offsets, weights).sum().backward()
    assert torch.equal(leaf.grad, segment_spread(torch.ones(2, 8, device=device), offsets, weights, 11))


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_are_bitwise_equal(device):
    x, offsets, weights = case(5, [5000, 3, 4000], 300, torch.float32, True, device)
    first = segment_mean(x, offsets, weights), segment_spread(x[:3], offsets, weights, len(x))
    second = segment_mean(x, offsets, weights), segment_spread(x[:3], offsets, weights, len(x))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_results_do_not_depend_on_the_number_of_threads():
    x, offsets, weights = case(6, [5000, 3, 4000], 300, torch.float32, True)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append((segment_mean(x, offsets, weights), segment_spread(x[:3], offsets, weights, len(x))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.gpu
def test_runs_on_the_current_stream():
    x, offsets, weights = case(7, [3000, 20], 64, torch.float32, True)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = [t.pin_memory().to("cuda", non_blocking=True) for t in (x, offsets, weights)]
        torch.cuda._sleep(10_000_000)
        got = segment_mean(moved[0] * 2, *moved[1:])
    stream.synchronize()
    torch.testing.assert_close(got.cpu(), segment_mean(x * 2, offsets, weights))


def test_what_does_not_fit_is_refused():
    x = torch.zeros(3, 2)
    offsets = torch.tensor([0, 1, 3])
    with pytest.raises(TypeError, match=r"float32, float64, bfloat16 or float16, not torch\.int64"):
        segment_mean(x.long(), offsets)
    with pytest.raises(ValueError, match=r"\[N, D\], not \[3, 2, 1\]"):
        segment_mean(x[..., None], offsets)
    with pytest.raises(ValueError, match=r"int64 \[S\+1\], not torch\.int32"):
        segment_mean(x, offsets.int())
    for wrong in ([0, 2], [1, 3], [0, 2, 1, 3]):
        with pytest.raises(ValueError, match="rise from 0 to the number of rows, 3"):
            segment_mean(x, torch.tensor(wrong))
    with pytest.raises(ValueError, match=r"floating point \[3\]"):
        segment_mean(x, offsets, torch.ones(2))
    with pytest.raises(ValueError, match=r"weights\.detach"):
        segment_mean(x, offsets, torch.ones(3, requires_grad=True))
    with pytest.raises(ValueError, match=r"S = 2 segments, not \[3, 2\]"):
        segment_spread(x, offsets, None, 3)
