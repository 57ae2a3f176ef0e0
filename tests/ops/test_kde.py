import math
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KernelDensity

from fastdd.ops import kde, log_density
from fastdd.ops.kde import PRECISIONS

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ["auto", "reference"]


def truth(x, queries=None, *, bandwidth, weights=None, offsets=None, leave_one_out=False):
    """Pair by pair, from differences, in float64."""
    x = x.double()
    q = x if queries is None else queries.double()
    w = torch.ones(len(x), device=x.device) if weights is None else weights
    w = w.double().expand(len(q), len(x)).clone()
    if offsets is not None:
        segment = torch.bucketize(torch.arange(len(x), device=x.device), offsets[1:], right=True)
        w[segment[:, None] != segment] = 0
    if leave_one_out:
        w.fill_diagonal_(0)
    squared = torch.cdist(q, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    log_sum = (w.log() - squared / (2 * bandwidth**2)).logsumexp(1)
    volume = x.shape[1] * math.log(bandwidth * math.sqrt(2 * math.pi))
    return torch.where(log_sum == -math.inf, log_sum, log_sum - w.sum(1).log() - volume)


def rows(seed, n, d, dtype=torch.float64, device="cpu"):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(0, 90), min_size=0, max_size=4),
    queries=st.integers(0, 70),
    columns=st.integers(0, 40),
    weighted=st.booleans(),
    bandwidth=st.floats(0.05, 20),
    backend=st.sampled_from(BACKENDS),
)
def test_any_shape(seed, lengths, queries, columns, weighted, bandwidth, backend):
    n = sum(lengths)
    x, offsets = rows(seed, n, columns), torch.tensor([0, *lengths]).cumsum(0)
    weights = rows(seed, n, 1)[:, 0].relu() if weighted else None
    q = rows(seed + 1, queries, columns)
    options = {"bandwidth": bandwidth, "weights": weights}
    for got, exact in (
        (kde(x, q, **options, backend=backend), truth(x, q, **options)),
        (kde(x, **options, backend=backend), truth(x, **options)),
        (kde(x, **options, leave_one_out=True, backend=backend), truth(x, **options, leave_one_out=True)),
        (kde(x, **options, offsets=offsets, backend=backend), truth(x, **options, offsets=offsets)),
    ):
        # Squared distances lose (|x| / h)^2 roundings.
        torch.testing.assert_close(got, exact, rtol=1e-13, atol=1e-13 * (1 + columns / bandwidth**2))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_blocks_a_side(device, backend, dtype):
    # Over 384 rows make more than one block; 1,300 is no multiple of anything.
    x = rows(0, 1300, 7, dtype, device)
    weights = rows(1, 1300, 1, device=device)[:, 0].abs()
    offsets = torch.tensor([0, 500, 501, 501, 1300], device=device)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    for options in (
        {},
        {"weights": weights},
        {"weights": weights, "leave_one_out": True},
        {"offsets": offsets, "leave_one_out": True},
        {"queries": rows(2, 900, 7, dtype, device), "weights": weights},
    ):
        got = kde(x, bandwidth=0.8, backend=backend, **options)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), truth(x, bandwidth=0.8, **options), **tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_thousands_of_small_segments(device):
    x = rows(19, 6000, 2, torch.float32, device)
    got = kde(x, bandwidth=1.0, offsets=torch.arange(0, 6001, 3, device=device), leave_one_out=True)
    parts = x.view(2000, 3, 2)
    pairs = (parts[:, :, None] - parts[:, None]).square().sum(3) / -2 - 1e9 * torch.eye(3, device=device)
    expected = pairs.logsumexp(2).flatten() - math.log(2) - math.log(2 * math.pi)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [8, 128, 700])
@pytest.mark.parametrize("bandwidth", [0.1, 0.3])
def test_error_is_at_most_twice_plain_torchs(device, columns, bandwidth):
    x = F.normalize(rows(3, 1000, columns), dim=1).to(device, torch.float32)
    q = F.normalize(rows(4, 200, columns), dim=1).to(device, torch.float32)

    def error(got, exact):
        return (got.double() - exact).abs().max()

    exact = truth(x, q, bandwidth=bandwidth)
    volume = columns * math.log(bandwidth * math.sqrt(2 * math.pi)) + math.log(len(x))
    plain = torch.logsumexp(torch.cdist(q, x).square() / (-2 * bandwidth**2), 1) - volume
    assert error(kde(x, q, bandwidth=bandwidth), exact) <= 2 * error(plain, exact)
    # Far from the origin plain torch cancels; rows are centred here.
    x, q = x + 10, q + 10
    exact = truth(x, q, bandwidth=bandwidth)
    plain = torch.logsumexp(torch.cdist(q, x).square() / (-2 * bandwidth**2), 1) - volume
    assert error(kde(x, q, bandwidth=bandwidth), exact) <= error(plain, exact) / 10


def test_agrees_with_scikit_learn():
    x, q = rows(5, 2000, 16, torch.float32), rows(6, 300, 16, torch.float32)
    for weights in (None, torch.rand(2000)):
        model = KernelDensity(bandwidth=0.9, rtol=0, atol=0).fit(x, sample_weight=weights)
        expected = torch.from_numpy(model.score_samples(q))
        got = kde(x, q, bandwidth=0.9, weights=weights)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_density_integrates_to_one(backend):
    x, step = rows(7, 5, 2), 0.2
    axis = torch.arange(-6, 6, step, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    weights = torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0])
    mass = kde(x, grid, bandwidth=0.5, weights=weights, backend=backend).exp().sum() * step**2
    assert abs(mass - 1) < 1e-9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_are_left_out_by_place_and_not_by_value(device, backend):
    x = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]], device=device)
    at_zero_distance = -2 * math.log(0.5 * math.sqrt(2 * math.pi))
    got = kde(x, bandwidth=0.5, leave_one_out=True, backend=backend)
    torch.testing.assert_close(got, torch.full((3,), at_zero_distance, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_underflows(device, backend):
    """Points 1 apart at a bandwidth of 1/20: the nearest term is exp(-200), far below float32."""
    x = torch.arange(6.0, device=device)[:, None]
    got = kde(x, bandwidth=0.05, leave_one_out=True, backend=backend)
    neighbours = torch.tensor([1.0, 2.0, 2.0, 2.0, 2.0, 1.0], device=device)
    expected = -200 + (neighbours / 5).log() - math.log(0.05 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    # One row has all but 1e-12 of the weight: the rest is not total minus its own.
    weights = torch.tensor([1.0, 1e12, 2.0, 0.0, 0.0, 0.0], device=device, dtype=torch.float64)
    got = kde(x, bandwidth=3.0, weights=weights, leave_one_out=True, backend=backend)
    expected = truth(x, bandwidth=3.0, weights=weights, leave_one_out=True)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_sum_is_minus_infinity(device, backend):
    x = torch.zeros(4, 2, device=device)
    infinite = [-math.inf] * 4
    options = {"bandwidth": 1.0, "backend": backend}
    assert kde(x[:0], x, **options).tolist() == infinite
    assert kde(x, weights=torch.zeros(4, device=device), **options).tolist() == infinite
    alone = torch.tensor([0, 1, 1, 2, 3, 4], device=device)
    assert kde(x, offsets=alone, leave_one_out=True, **options).tolist() == infinite
    weights = torch.tensor([0.0, 0.0, 3.0, 0.0], device=device)
    got = kde(x, weights=weights, leave_one_out=True, **options)
    expected = [-math.log(2 * math.pi)] * 4
    expected[2] = -math.inf
    torch.testing.assert_close(got.tolist(), expected)
    for empty in (kde(x[:0], **options), kde(x, x[:0], **options)):
        assert empty.shape == (0,)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device):
    x = rows(8, 50, 6, torch.float32, device)
    weights = rows(9, 50, 2, torch.float32, device).abs()
    expected = kde(x, x[:7], bandwidth=1.0, weights=weights[:, 0].contiguous())
    columns_first = x.t().contiguous().t()
    assert torch.equal(kde(columns_first, columns_first[:7], bandwidth=1.0, weights=weights[:, 0]), expected)
    one = x[:1].expand(5, 6)
    assert torch.equal(kde(one, bandwidth=1.0), kde(one.contiguous(), bandwidth=1.0))


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_are_bitwise_equal(device):
    x, weights = rows(10, 2500, 40, torch.float32, device), rows(11, 2500, 1, device=device)[:, 0].abs()
    for options in ({"leave_one_out": True}, {"queries": x[:700]}):
        first = kde(x, bandwidth=2.0, weights=weights, **options)
        assert torch.equal(first, kde(x, bandwidth=2.0, weights=weights, **options))


def test_results_do_not_depend_on_the_number_of_threads():
    x, offsets = rows(12, 2500, 40, torch.float32), torch.tensor([0, 1500, 1500, 2500])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append((kde(x, bandwidth=2.0, offsets=offsets), kde(x, x[:700], bandwidth=2.0)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    x, weights = rows(13, 20, 3, torch.float32, device), torch.rand(20, device=device)
    offsets = torch.tensor([0, 5, 5, 20], device=device)
    for arguments in (
        (x, None, None, None, 1.0, False, "fp32"),
        (x, x[:4], weights, None, 1.0, False, "tf32"),
        (x.double(), None, weights, offsets, 1.0, True, "ieee"),
    ):
        torch.library.opcheck(torch.ops.fastdd.kde, arguments)


def test_compiles_without_graph_breaks():
    x, offsets = rows(14, 30, 3), torch.tensor([0, 12, 30])

    def weights(t):
        return torch.softmax(-kde(t, bandwidth=1.0, offsets=offsets), 0)

    assert torch.equal(torch.compile(weights, backend="aot_eager", fullgraph=True)(x), weights(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_taken_as_float32(dtype):
    x = rows(15, 60, 5, dtype)
    assert torch.equal(kde(x, bandwidth=1.0), kde(x.float(), bandwidth=1.0))


def test_the_cpu_multiplies_in_full_at_any_precision():
    x = rows(16, 60, 5, torch.float32)
    first, *others = (kde(x, bandwidth=1.0, precision=precision) for precision in PRECISIONS)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.gpu
@pytest.mark.parametrize("columns", [64, 300])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_gpu_precisions(precision, columns):
    # Two tight groups far apart: norms cancel in every distance that counts.
    x = F.normalize(rows(17, 3000, columns), dim=1)
    x = (torch.where(torch.arange(3000)[:, None] < 1500, x[:1], x[1:2]) + 0.03 * x).to("cuda", torch.float32)
    got = kde(x, bandwidth=0.05, leave_one_out=True, precision=precision)
    error = (got.double() - truth(x, bandwidth=0.05, leave_one_out=True)).abs().max()
    assert error < (0.1 if precision == "tf32" else 1e-3)


MEMORY = """
    import torch
    from fastdd.ops import kde

    def status(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024

    x = torch.randn(20_000, 16)
    kde(x[:1000], bandwidth=1.0)
    before = status("VmRSS")
    kde(x, bandwidth=1.0)
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_rows():
    """All pairs would be 1,526 MB; the packed rows and the partial sums are 6."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(MEMORY)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60


def test_log_density_is_exact_unless_asked_otherwise():
    x, offsets = rows(18, 50, 4), torch.tensor([0, 20, 50])
    expected = kde(x, bandwidth=0.5, offsets=offsets, leave_one_out=True)
    for method in ("auto", "exact"):
        got = log_density(x, bandwidth=0.5, method=method, offsets=offsets, leave_one_out=True)
        assert torch.equal(got, expected)
    with pytest.raises(ValueError, match="method='kd_tree' is not one of auto, exact, knn"):
        log_density(x, bandwidth=0.5, method="kd_tree")


def test_what_does_not_fit_is_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(TypeError, match=r"x must be float32, .*, not torch\.int64"):
        kde(x.long(), bandwidth=1.0)
    with pytest.raises(ValueError, match=r"x must be \[N, D\], not \[3, 2, 1\].*x\.flatten\(1\)"):
        kde(x[..., None], bandwidth=1.0)
    with pytest.raises(ValueError, match=r"not differentiable here: pass x\.detach\(\)"):
        kde(x.clone().requires_grad_(), bandwidth=1.0)
    with pytest.raises(ValueError, match=r"not differentiable here: pass queries\.detach\(\)"):
        kde(x, x.clone().requires_grad_(), bandwidth=1.0)
    with pytest.raises(ValueError, match="queries has values that are not finite, in 1 of its rows"):
        kde(x, torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), bandwidth=1.0)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"bandwidth must be finite and above 0, not {wrong}"):
            kde(x, bandwidth=wrong)
    with pytest.raises(ValueError, match="queries have 3 columns and x has 2"):
        kde(x, torch.zeros(3, 3), bandwidth=1.0)
    with pytest.raises(ValueError, match=r"queries are torch\.float64 on cpu and x is torch\.float32"):
        kde(x, x.double(), bandwidth=1.0)
    with pytest.raises(ValueError, match="it goes with queries=None"):
        kde(x, x, bandwidth=1.0, leave_one_out=True)
    offsets = torch.tensor([0, 1, 3])
    with pytest.raises(ValueError, match="they go with queries=None"):
        kde(x, x, bandwidth=1.0, offsets=offsets)
    with pytest.raises(ValueError, match=r"int64 \[S\+1\], not torch\.int32"):
        kde(x, bandwidth=1.0, offsets=offsets.int())
    for wrong in ([0, 2], [1, 3], [0, 2, 1, 3]):
        with pytest.raises(ValueError, match="rise from 0 to the number of rows, 3"):
            kde(x, bandwidth=1.0, offsets=torch.tensor(wrong))
    with pytest.raises(ValueError, match=r"floating point \[3\]"):
        kde(x, bandwidth=1.0, weights=torch.ones(2))
    with pytest.raises(ValueError, match=r"weights\.detach"):
        kde(x, bandwidth=1.0, weights=torch.ones(3, requires_grad=True))
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="weights must be finite and at least 0"):
            kde(x, bandwidth=1.0, weights=torch.tensor([1.0, 2.0, wrong]))
    with pytest.raises(ValueError, match="precision='fp16' is not one of fp32, ieee, tf32"):
        kde(x, bandwidth=1.0, precision="fp16")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bandwidth", [0.1, 1e-2, 1e-3, 3e-4, 1e-4, 1e-10, 1e-20, 1e-30])
def test_small_bandwidths_are_right(bandwidth, backend):
    x = F.normalize(rows(0, 200, 128), dim=1).float()
    x[1] = x[0]
    expected = truth(x, bandwidth=bandwidth)
    torch.testing.assert_close(kde(x, bandwidth=bandwidth, backend=backend).double(), expected, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e30])
def test_data_of_any_scale_are_right(scale, backend):
    x = (F.normalize(rows(0, 60, 16), dim=1) * scale).float()
    found = kde(x, x[:7], bandwidth=0.3 * scale, backend=backend).double()
    torch.testing.assert_close(found, truth(x, x[:7], bandwidth=0.3 * scale), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bandwidth_at_the_ends_of_floats(backend, dtype):
    x = torch.tensor([[0.0], [1.0]], dtype=dtype)
    wide = kde(x, bandwidth=1e200, backend=backend)
    expected = -(math.log(1e200) + math.log(2 * math.pi) / 2)
    torch.testing.assert_close(wide, torch.full((2,), expected, dtype=dtype))
    least = 5e-20 if dtype == torch.float32 else 7e-155
    narrow = kde(x, bandwidth=least, backend=backend)
    own = math.log(0.5) - math.log(least) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(narrow, torch.full((2,), own, dtype=dtype))
    for bandwidth in (1e-200, 5e-324):
        with pytest.raises(ValueError, match=f"bandwidth must be at least .*, not {bandwidth:g}: scale x"):
            kde(x, bandwidth=bandwidth, backend=backend)
    with pytest.raises(ValueError, match="bandwidth must be finite and above 0, not inf"):
        kde(x, bandwidth=10**400, backend=backend)
