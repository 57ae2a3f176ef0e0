import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd.ops import implementations, kde, knn_kde, log_density

pytest.importorskip("faiss")

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BANDWIDTH = math.sqrt(0.1)


def biased(seed=0, n=5500, d=128):
    """Unit-norm embeddings: 95 % in one tight cluster, the rest over nine looser ones at a cosine of 0.45 to it."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d, 10, generator=generator))[0].t()
    centres = torch.cat([axes[:1], 0.45 * axes[:1] + math.sqrt(1 - 0.45**2) * axes[1:]])
    conflict = n // 20
    cluster = torch.cat([torch.zeros(n - conflict, dtype=torch.long), 1 + torch.arange(conflict) % 9])
    spread = torch.where(cluster == 0, 0.15, 0.2)[:, None] / math.sqrt(d)
    return F.normalize(centres[cluster] + spread * torch.randn(n, d, generator=generator), dim=1), cluster > 0


def mass(log_density, conflict):
    """Share of the inverse density that is on the conflicting rows."""
    return torch.softmax(-log_density.double(), 0)[conflict].sum().item()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [64, 100, 256])
def test_inverse_density_mass_on_conflicting_rows(k, device):
    x, conflict = biased()
    exact = mass(kde(x.double(), bandwidth=BANDWIDTH), conflict)
    assert 0.84 < exact < 0.86
    x, conflict = x.to(device), conflict.to(device)
    for seed in range(3):
        result = knn_kde(x, bandwidth=BANDWIDTH, k=k, seed=seed)
        assert abs(mass(result.log_density, conflict) / exact - 1) < 0.02
    # The near field alone saturates at k: dense and sparse rows come out alike.
    assert mass(result.lower, conflict) < exact / 2
    if k == 100:
        assert 0.14 < mass(result.lower, conflict) < 0.2


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 30),
    queries=st.integers(0, 5),
    d=st.integers(1, 6),
    k=st.integers(1, 12),
    far_samples=st.integers(1, 4),
    bandwidth=st.floats(0.02, 5),
    duplicates=st.booleans(),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_bounds_hold_on_every_row(seed, n, queries, d, k, far_samples, bandwidth, duplicates, offset):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator) + offset
    if duplicates:
        x = x[torch.randint(0, n, (n,), generator=generator)]
    options = {"bandwidth": bandwidth, "leave_one_out": queries == 0}
    q = torch.randn(queries, d, generator=generator) + offset if queries else None
    exact = kde(x.double(), None if q is None else q.double(), **options, backend="reference")
    result = knn_kde(x, q, **options, k=k, far_samples=far_samples)
    # The truth has roundings of its own, in float64.
    rounding = 1e-11 * (1 + d / bandwidth**2)
    assert (result.lower <= exact + rounding).all()
    assert (exact <= result.upper + rounding).all()
    assert ((result.lower <= result.log_density) & (result.log_density <= result.upper)).all()


@pytest.mark.parametrize("device", DEVICES)
def test_all_neighbours_are_the_exact_density(device):
    x = torch.randn(60, 5, device=device)
    for options in ({}, {"leave_one_out": True}, {"queries": x[:9] + 0.1}):
        exact = kde(x, bandwidth=1.0, **options)
        for few in ({"k": 1000}, {"k": 3, "far_samples": 1000}):
            result = knn_kde(x, bandwidth=1.0, **options, **few)
            torch.testing.assert_close(result.log_density, exact, rtol=0, atol=1e-5)
        assert knn_kde(x, bandwidth=1.0, k=1000, **options).gap < 1e-3
        assert knn_kde(x, bandwidth=1.0, k=3, **options).gap > 0.1


def test_density_is_unbiased_over_seeds():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(3))
    exact = kde(x, bandwidth=0.7).exp()
    draws = torch.stack([knn_kde(x, bandwidth=0.7, k=5, far_samples=20, seed=s).log_density.exp() for s in range(300)])
    error = (draws.mean(0) - exact) / (draws.std(0) / math.sqrt(300))
    # Standard normal, rows correlated through the shared sample: a missing or doubled term would shift it by tens.
    assert error.abs().max() < 5
    assert (draws.std(0) / exact).max() < 0.5 * math.sqrt(395 / (20 * 5))


def test_a_row_is_left_out_whichever_duplicate_is_found_first():
    x = torch.tensor([[0.0], [0.0], [0.0], [0.0], [3.0]])
    exact = kde(x, bandwidth=1.0, leave_one_out=True)
    for k in range(1, 5):
        got = knn_kde(x, bandwidth=1.0, k=k, leave_one_out=True)
        torch.testing.assert_close(got.log_density, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_segments_see_only_themselves(dtype):
    x, offsets = torch.randn(90, 4, dtype=dtype), torch.tensor([0, 0, 50, 51, 90])
    got = knn_kde(x, bandwidth=0.5, k=8, offsets=offsets, leave_one_out=True)
    exact = kde(x.double(), bandwidth=0.5, offsets=offsets, leave_one_out=True)
    assert got.log_density.dtype == got.lower.dtype == got.upper.dtype == dtype
    torch.testing.assert_close(got.log_density.double(), exact, rtol=0, atol=1e-4)
    assert got.log_density[50] == got.lower[50] == got.upper[50] == -math.inf
    assert math.isfinite(got.gap)


def test_seed_decides_and_the_global_generator_is_left_alone():
    x = torch.randn(300, 3)
    state = torch.get_rng_state()
    first = knn_kde(x, bandwidth=1.0, k=4, far_samples=10, seed=1).log_density
    assert torch.equal(first, knn_kde(x, bandwidth=1.0, k=4, far_samples=10, seed=1).log_density)
    assert not torch.equal(first, knn_kde(x, bandwidth=1.0, k=4, far_samples=10, seed=2).log_density)
    assert torch.equal(torch.get_rng_state(), state)


def test_strides_and_batches_of_queries_do_not_matter():
    x = torch.randn(2500, 3)
    expected = knn_kde(x, bandwidth=0.5, k=4)
    got = knn_kde(x.t().contiguous().t(), bandwidth=0.5, k=4)
    assert torch.equal(got.log_density, expected.log_density)
    exact = kde(x, bandwidth=0.5)
    assert ((expected.lower <= exact + 1e-5) & (exact <= expected.upper + 1e-5)).all()


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_rows_of_segments_are_those_of_the_whole(leave_one_out):
    x = torch.randn(70, 5, generator=torch.Generator().manual_seed(4))
    x[20:30] = x[10:20]
    settings = {"bandwidth": 0.5, "k": 6, "far_samples": 5, "leave_one_out": leave_one_out, "seed": 2}
    offsets = torch.tensor([0, 33, 33, 70])
    whole = knn_kde(x, offsets=offsets, **settings)
    parts = [knn_kde(x, offsets=offsets, rows=rows, **settings) for rows in [(0, 12), (12, 12), (12, 41), (41, 70)]]
    for name in ("log_density", "lower", "upper"):
        assert torch.allclose(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name), atol=1e-6)
    assert whole.gap == pytest.approx(max(part.gap for part in parts), abs=1e-6)


def test_no_rows():
    x = torch.zeros(3, 2)
    assert knn_kde(x[:0], bandwidth=1.0).log_density.shape == (0,)
    assert knn_kde(x, x[:0], bandwidth=1.0).gap == 0
    alone = knn_kde(x[:0], x, bandwidth=1.0)
    assert alone.log_density.tolist() == alone.upper.tolist() == [-math.inf] * 3
    assert knn_kde(x[:1], bandwidth=1.0, leave_one_out=True).log_density.tolist() == [-math.inf]


def test_log_density_warns_where_neighbours_do_not_determine_it():
    x, _ = biased(n=1000)
    with pytest.warns(RuntimeWarning, match=r"50 neighbours leave .* by up to \d\.\d nats at bandwidth 0\.316.*exact"):
        log_density(x, bandwidth=BANDWIDTH, method="knn", k=50)
    # At a bandwidth of the distance to a neighbour, neighbours are all there is: a warning would be an error.
    x = torch.arange(100.0)[:, None]
    got = log_density(x, bandwidth=0.5, method="knn", k=20)
    torch.testing.assert_close(got, kde(x, bandwidth=0.5), rtol=0, atol=1e-5)


def test_it_is_listed_with_what_runs_it(monkeypatch):
    def row():
        return next(row for row in implementations("cpu") if row.op == "knn_kde")

    assert (row().active, row().others) == ("faiss", {})
    monkeypatch.setenv("FASTDD_BACKEND", "reference")
    assert row().active == "faiss"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert row().active == "none"
    assert "faiss is not installed" in row().others["faiss"]
    with pytest.raises(RuntimeError, match=r"knn_kde: faiss is not installed: pip install 'fastdd\[cpu\]'"):
        knn_kde(torch.zeros(2, 2), bandwidth=1.0)


def test_what_does_not_fit_is_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="x has values that are not finite, in 1 of its rows"):
        knn_kde(torch.tensor([[0.0], [math.nan]]), bandwidth=1.0)
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        knn_kde(x, bandwidth=1.0, k=0)
    with pytest.raises(ValueError, match="far_samples must be at least 1, not 0"):
        knn_kde(x, bandwidth=1.0, far_samples=0)
    with pytest.raises(ValueError, match=r"pass x\.detach\(\)"):
        knn_kde(x.clone().requires_grad_(), bandwidth=1.0)
    with pytest.raises(ValueError, match=r"rows must be 0 <= first <= last <= 3, with queries=None; they are \(1, 4\)"):
        knn_kde(x, bandwidth=1.0, rows=(1, 4))
    with pytest.raises(ValueError, match="with queries=None"):
        knn_kde(x, x, bandwidth=1.0, rows=(0, 3))
    with pytest.raises(ValueError, match="bandwidth must be finite and above 0"):
        knn_kde(x, bandwidth=0)
