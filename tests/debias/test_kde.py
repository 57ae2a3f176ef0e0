"""KDE weights: the paper's formula by hand, invariants, diagnostics, the artefact, and every bad input."""

import importlib.util
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdd
from fastdd.core import ranks
from fastdd.data import load
from fastdd.debias.density import embedding
from fastdd.debias.density.kde import (
    SCOPES,
    SCORES,
    KdeSettings,
    KdeWeights,
    check_weights,
    diagnose,
    estimate,
    kde_weights,
    load_weights,
)


def quiet(*arguments, **options):
    """Weights of few points amount to few points: no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return kde_weights(*arguments, **options)


def test_scores_over_their_sum_are_in_proportion_to_rarity():
    z = np.array([0.0] * 18 + [5.0] * 2)[:, None]
    labels = np.zeros(20, np.int64)
    weights = kde_weights(z, labels, score="none", clip=None, normalise="sum").weights
    assert weights[-1] / weights[0] == pytest.approx(9)  # densities 18/20 and 2/20 of the kernel's height
    assert weights.sum() == pytest.approx(1)
    alike = kde_weights(np.zeros((4, 1)), labels[:4], score="minmax", normalise="sum").weights
    assert alike.tolist() == [0.25] * 4
    with pytest.raises(ValueError, match="unknown normalise 'l1'; one of: softmax, sum"):
        KdeSettings(normalise="l1")


def test_the_paper_by_hand():
    """sigma^2 0.1, temperature 0.1, softmax(1 / f / temperature), f by equation 3; four points, in plain floats."""
    points = [(1.0, 0.0), (0.98, 0.199), (0.9, 0.4359), (0.0, 1.0)]
    sigma = math.sqrt(0.1)
    density = []
    for a in points:
        kernels = [math.exp(-0.5 * (math.dist(a, b) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi)) for b in points]
        density.append(sum(kernels) / 4)
    exponents = [1 / f / 0.1 for f in density]
    total = sum(math.exp(e - max(exponents)) for e in exponents)
    expected = [math.exp(e - max(exponents)) / total for e in exponents]
    made = quiet(np.array(points), np.zeros(4, np.int64), variance=0.1, temperature=0.1, score="none", clip=None)
    np.testing.assert_allclose(made.log_density, np.log(density), atol=2e-6)
    np.testing.assert_allclose(made.weights, expected, rtol=2e-4)
    assert np.argsort(made.weights)[-1] == 3


@pytest.mark.parametrize("score", SCORES)
def test_scores_by_hand(score):
    """Eight points in one place and two in another far away: densities 0.8 K(0) and 0.2 K(0)."""
    z = np.repeat([[0.0], [50.0]], [8, 2], axis=0)
    peak = 1 / math.sqrt(0.2 * math.pi)
    common, rare = 1 / (0.8 * peak), 1 / (0.2 * peak)
    unit = {"none": 1, "median": common, "mean": (8 * common + 2 * rare) / 10}
    scores = (0, 1) if score == "minmax" else (common / unit[score], rare / unit[score])
    for clip in (None, 0.9, 2.0, 100.0):
        limit = math.inf if clip is None else clip
        made = quiet(z, np.zeros(10, np.int64), score=score, clip=clip, temperature=0.7).weights
        ratio = math.exp((min(scores[1], limit) - min(scores[0], limit)) / 0.7)
        assert made[9] / made[0] == pytest.approx(ratio, rel=1e-5)


points = st.integers(0, 2**31).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(
    points,
    st.integers(2, 30),
    st.integers(1, 4),
    st.sampled_from(SCORES),
    st.sampled_from(SCOPES),
    st.sampled_from([None, 0.5, 3.0]),
    st.sampled_from([0.01, 0.1, 1.0]),
    st.sampled_from([1e-300, 0.1, 0.5, 1e3]),
)
def test_invariants(generator, n, classes, score, scope, clip, variance, temperature):
    labels = generator.permutation(np.arange(n * classes) % classes)
    z = generator.normal(size=(len(labels), 3))
    made = quiet(
        z, labels, score=score, scope=scope, clip=clip, variance=variance, temperature=temperature, batch=7, seed=1
    )
    assert made.weights.dtype == np.float32
    assert (made.weights >= 0).all()
    assert np.isfinite(made.weights).all()
    np.testing.assert_allclose(np.bincount(labels, made.weights), 1, atol=1e-5)
    found = made.diagnostics(labels)
    assert found.counts == [n] * classes
    assert all(1 - 1e-5 <= ess <= n * (1 + 1e-5) for ess in found.ess)
    assert [sum(row) for row in found.histogram] == [n] * classes
    if scope != "batch":  # there, an image is rare among those of its batch
        for label in range(classes):
            own = labels == label
            # Densities that differ by less than float32 tells are ties there; the weights come from the float64 ones.
            order = np.lexsort((-made.weights[own], made.log_density[own]))
            assert (np.diff(made.weights[own][order]) <= 1e-6).all()


@settings(max_examples=30, deadline=None)
@given(points, st.sampled_from(SCORES))
def test_order_of_images_does_not_matter(generator, score):
    labels = generator.integers(0, 2, 40)
    assume(min(np.bincount(labels, minlength=2)) > 1)
    z = generator.normal(size=(40, 3))
    order = generator.permutation(40)
    first, second = (quiet(z[rows], labels[rows], score=score).weights for rows in (np.arange(40), order))
    np.testing.assert_allclose(second, first[order], rtol=1e-4, atol=1e-7)


def test_limits():
    """A high temperature, a wide kernel or a limit below all scores make all alike; a low one leaves the rarest."""
    generator = np.random.default_rng(0)
    z, labels = generator.normal(size=(50, 2)), np.zeros(50, np.int64)
    for even in ({"temperature": 1e6}, {"variance": 1e6}, {"clip": 1e-6}):
        np.testing.assert_allclose(quiet(z, labels, **even).weights, 1 / 50, rtol=1e-3)
    alone = quiet(z, labels, temperature=1e-4, clip=None)
    assert alone.weights.argmax() == alone.log_density.argmin()
    assert alone.weights.max() > 0.999


def test_a_class_is_by_itself():
    """Of scope class and batch; over the whole data set, points of another class make a place common."""
    z = np.concatenate([np.zeros((10, 1)), np.full((2, 1), 5.0), np.full((30, 1), 5.0)])
    labels = np.repeat([0, 1], [12, 30])
    alone = quiet(z[:12], labels[:12]).weights
    np.testing.assert_allclose(quiet(z, labels).weights[:12], alone, rtol=1e-5)
    np.testing.assert_allclose(quiet(z, labels, scope="batch", batch=50).weights[:12], alone, rtol=1e-5)
    whole = quiet(z, labels, scope="dataset").weights
    assert alone[11] > alone[0]
    assert whole[11] < whole[0]


def test_identical_images_count_alike():
    made = quiet(np.ones((6, 3)), np.zeros(6, np.int64), score="minmax").weights
    np.testing.assert_allclose(made, 1 / 6, rtol=1e-6)


def test_few_effective_images_are_told():
    z = np.repeat([[0.0], [50.0]], [99, 1], axis=0)
    z = np.concatenate([np.zeros((20, 1)), z])
    labels = np.repeat([0, 1], [20, 100])
    with pytest.warns(RuntimeWarning, match=r"class cat amount to 1\.0 of its 100 images: raise the temperature"):
        kde_weights(z, labels, temperature=0.1, class_names=("dog", "cat"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kde_weights(z, labels, temperature=5.0)


def test_diagnostics_by_hand():
    weights = np.array([1.0, 1.0, 2.0, 3.0, 3.0])
    labels, groups = np.array([0, 0, 0, 1, 1]), np.array([7, 7, 1, 0, 0])
    found = diagnose(weights, labels, groups)
    assert found.counts == [3, 2]
    assert found.ess == pytest.approx([16 / 6, 2])
    assert found.largest == pytest.approx([1.5, 1])
    assert found.conflict_share == pytest.approx([1 / 3, 0])
    assert found.conflict_mass == pytest.approx([0.5, 0])
    edges = np.array(found.edges)
    assert len(edges) == len(found.histogram[0]) + 1
    place = np.flatnonzero(np.array(found.conflict_histogram[0]))
    assert len(place) == 1
    assert edges[place[0]] <= 1.5 < edges[place[0] + 1]
    assert found.gap is None
    assert diagnose(weights, labels).conflict_mass is None


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2))])
def test_c_digits(digits, weighed, seed):
    """Labels of colours are not looked at, and yet 5 % of the images, the conflicting ones, get most of the weight."""
    made = fastdd.kde_weights(digits, seed=seed) if seed else weighed
    found = made.diagnostics(digits.train.labels, digits.train.groups)
    assert np.mean(found.conflict_share) < 0.06
    assert np.mean(found.conflict_mass) > 0.73
    assert min(found.conflict_mass) > 0.6
    assert np.mean(found.ess) > 12
    assert made.metadata["dataset_digest"] == digits.digest()
    assert made.metadata["diagnostics"]["ess"] == found.ess


def test_distill_on_the_weights(digits):
    made = fastdd.kde_weights(digits, steps=2)
    synthetic = fastdd.distill(digits, debias="kde", weights=made.weights, ipc=1, iterations=2, width=8)
    assert synthetic.images.isfinite().all()


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs FAISS")
def test_knn(digits, weighed):
    exact = weighed
    labels = digits.train.labels
    all_of_them = kde_weights(exact.embeddings, labels, density="knn", k=200)
    np.testing.assert_allclose(all_of_them.weights, exact.weights, rtol=2e-3, atol=1e-6)
    few = kde_weights(exact.embeddings, labels, density="knn", k=20)
    assert few.diagnostics(labels).gap > all_of_them.diagnostics(labels).gap >= 0
    assert exact.diagnostics(labels).gap is None


@pytest.mark.parametrize(
    ("sizes", "world", "cut"), [([40, 7, 60], 2, False), ([30, 31], 3, False), ([50], 2, False), ([50, 9], 5, True)]
)
def test_ranks_share_rows_and_together_have_all(monkeypatch, sizes, world, cut):
    n = sum(sizes)
    rows = torch.nn.functional.normalize(torch.randn(n, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    alone, _ = estimate._log_density(rows, offsets, KdeSettings())
    monkeypatch.setattr(ranks, "world", lambda: world)
    monkeypatch.setattr(ranks, "exchange", lambda own: [own])
    parts = []
    for rank in range(world):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        parts.append(estimate._log_density(rows, offsets, KdeSettings())[0])
    assert max(map(len, parts)) < n or len(sizes) == 1
    if cut:
        assert max(map(len, parts)) <= n / world + 20
        assert torch.allclose(torch.cat(parts), alone, rtol=0, atol=1e-6)
    else:
        assert torch.equal(torch.cat(parts), alone)


def test_knn_without_faiss(digits, monkeypatch):
    """Told before the encoder is trained."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "faiss" else find_spec(name))
    monkeypatch.setattr(embedding, "train_embedding", None)
    with pytest.raises(RuntimeError, match=r"density knn: faiss is not installed: pip install 'fastdd\[cpu\]'"):
        fastdd.kde_weights(digits, density="knn")


def test_embeddings_of_every_kind(digits, tmp_path):
    few = {"steps": 2}
    first = fastdd.kde_weights(digits, **few)
    np.save(tmp_path / "z.npy", first.embeddings)
    first.save(tmp_path / "w.safetensors")
    for given_ in (
        first.embeddings,
        torch.from_numpy(first.embeddings),
        tmp_path / "z.npy",
        str(tmp_path / "w.safetensors"),
    ):
        assert np.array_equal(fastdd.kde_weights(digits, embedding=given_).weights, first.weights)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5))
    by_module = fastdd.kde_weights(digits, embedding=net)
    by_function = fastdd.kde_weights(digits, embedding=lambda images: images.flatten(1))
    assert np.array_equal(by_module.weights, by_function.weights)
    assert net.training
    with pytest.raises(TypeError, match="an array, a path, a module or a function, not int"):
        fastdd.kde_weights(digits, embedding=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variance": 0.0}, "variance must be finite and above 0, not 0.0"),
        ({"temperature": -1.0}, "temperature must be finite and above 0, not -1.0"),
        ({"clip": 0.0}, "clip must be finite and above 0, not 0.0"),
        ({"clip": math.nan}, "clip must be finite and above 0, not nan"),
        ({"score": "max"}, "unknown score 'max'; one of: none, median, mean, minmax"),
        ({"scope": "all"}, "unknown scope 'all'; one of: class, batch, dataset"),
        ({"density": "tree"}, "unknown density 'tree'; one of: exact, knn"),
        ({"k": 0}, "k must be at least 1 neighbour, not 0"),
        ({"batch": 1}, "batch must be at least 2 images, not 1"),
    ],
)
def test_bad_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        KdeSettings(**wrong)


def test_bad_embeddings():
    labels = np.zeros(4, np.int64)
    for wrong in (np.zeros((3, 2)), np.zeros(4), np.zeros((4, 0)), np.zeros((4, 1, 1))):
        with pytest.raises(ValueError, match=r"embeddings must be \[4, D\], one row a training image, not"):
            kde_weights(wrong, labels)
    for bad in (math.nan, math.inf):
        z = np.zeros((4, 2))
        z[2, 1] = bad
        with pytest.raises(ValueError, match="embeddings must be finite; row 2 is not"):
            kde_weights(z, labels)
    with pytest.raises(ValueError, match="class 1 has 1 training images; a density needs at least 2"):
        kde_weights(np.zeros((3, 2)), np.array([0, 0, 1]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], r"weights must be numbers \[3\]"),
        ([[1.0, 1.0, 1.0]], r"weights must be numbers \[3\]"),
        (["1", "1", "1"], r"weights must be numbers \[3\]"),
        ([1.0, -2.0, 1.0], "that of row 1 is -2"),
        ([1.0, 1.0, math.nan], "that of row 2 is nan"),
        ([1.0, math.inf, 1.0], "that of row 1 is inf"),
        ([0.0, 0.0, 0.0], "weights are all 0"),
        ([0.0, 0.0, 1.0], "all weights of class 0 are 0"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights(np.array(weights), 3, np.array([0, 0, 1]))


def test_saved_and_loaded(digits, tmp_path):
    made = fastdd.kde_weights(digits, steps=2)
    made.save(tmp_path / "a.safetensors")
    made.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = KdeWeights.load(tmp_path / "a.safetensors")
    for name in ("weights", "log_density", "embeddings"):
        assert np.array_equal(getattr(again, name), getattr(made, name))
    assert again.metadata["kde"] == made.metadata["kde"]
    assert again.metadata["embedding"]["steps"] == 2
    assert np.array_equal(load_weights(tmp_path / "a.safetensors", digits), made.weights)
    np.save(tmp_path / "w.npy", made.weights.astype(np.float64))
    loaded = load_weights(tmp_path / "w.npy", digits)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, made.weights)


def test_files_that_are_not_what_is_asked_for(digits, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="there are no weights"):
        load_weights(path, digits)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_weights(tmp_path / "w.npy", digits)
    fastdd.kde_weights(digits, steps=1).save(path)
    with pytest.raises(ValueError, match=r"is of c-digits with digest \w{12}, not of this c-digits with digest"):
        load_weights(path, load("c-digits", bias_ratio=0.9))
    content = path.read_bytes()
    for damaged in (content[:-1], content[:100], content[:3], b"", b"PK\x03\x04" * 9):
        path.write_bytes(damaged)
        with pytest.raises(RuntimeError, match=r"w\.safetensors is damaged, or no safetensors file"):
            load_weights(path, digits)
    fastdd.distill(digits, ipc=1, iterations=1, width=8).save(path)
    with pytest.raises(RuntimeError, match="has no weights of fastdd"):
        load_weights(path, digits)
    (tmp_path / "w.npy").write_bytes(b"hello")
    with pytest.raises(RuntimeError, match=r"w\.npy is not a \.npy file of numbers"):
        load_weights(tmp_path / "w.npy", digits)
    np.save(tmp_path / "w.npy", np.ones(5))
    with pytest.raises(ValueError, match=r"w\.npy, for c-digits: weights must be numbers \[1297\]"):
        load_weights(tmp_path / "w.npy", digits)


@pytest.mark.gpu
def test_on_the_gpu(digits):
    on_cpu = fastdd.kde_weights(digits, device="cpu", steps=20)
    on_gpu = fastdd.kde_weights(digits, device="cuda", embedding=on_cpu.embeddings)
    np.testing.assert_allclose(on_gpu.weights, on_cpu.weights, rtol=1e-3, atol=1e-7)
    first, second = (fastdd.kde_weights(digits, device="cuda", steps=5) for _ in range(2))
    assert np.array_equal(first.weights, second.weights)


@pytest.mark.full
@pytest.mark.realdata
def test_c_mnist(data_root):
    """The same defaults as on the digits, on 60,000 images."""
    data = load("c-mnist-fg", data_root, bias_ratio=0.95)
    found = fastdd.kde_weights(data).diagnostics(data.train.labels, data.train.groups)
    assert np.mean(found.conflict_mass) > 0.68
    assert min(found.conflict_mass) > 0.6
    assert min(found.ess) > 400
