"""LfF's and Biased-DD's sets against plain loops of their scripts, hand-derived groups and the papers' counts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastdd
from fastdd.data import built_with, load
from fastdd.data.files import readers
from fastdd.data.sets import corruptions, lff
from fastdd.models import registry
from tests.data.sets.test_builders import MNIST_TEST, MNIST_TRAIN


def script_groups(labels, ratio):
    """The published rule, an image at a time."""
    classes = max(labels) + 1
    groups = [None] * len(labels)
    for label in range(classes):
        rows = [row for row, value in enumerate(labels) if value == label]
        total, milestones = 0.0, []
        for group in range(classes):
            total += ratio if group == label else (1 - ratio) / (classes - 1)
            milestones.append(np.round(len(rows) * total))
        for k, row in enumerate(rows):
            groups[row] = next(group for group, milestone in enumerate(milestones) if milestone > k)
    return groups


def script_colour(gray, group, severity, generator):
    std = [0.05, 0.02, 0.01, 0.005, 0.002][severity - 1]
    colour = torch.tensor(lff.COLOURS[group])[:, None, None] + torch.randn((3, 1, 1), generator=generator) * std
    return (colour.clamp(0.0, 1.0) * torch.from_numpy(gray.copy()).float()).to(torch.uint8).numpy()


def test_groups_by_hand():
    # 20 images of class 0, then of class 1; 0.75: milestones 15, 20 and 5, 20.
    labels = np.repeat([0, 1], 20)
    groups = lff.milestone_groups(labels, 0.75)
    assert groups.tolist() == [0] * 15 + [1] * 5 + [0] * 5 + [1] * 15
    # Ten classes of ten: each group once at 0.1, and at 0 the nine others in ninths: 1.11, 2.22, ..., 10.
    labels = np.tile(np.arange(10), 10)
    balanced = lff.milestone_groups(labels, 0.1)
    for label in range(10):
        assert balanced[labels == label].tolist() == list(range(10))
    conflicting = lff.milestone_groups(labels, 0.0)
    assert conflicting[labels == 0].tolist() == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9]
    assert conflicting[labels == 9].tolist() == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal(lff.milestone_groups(labels, 1.0), labels)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=150).map(lambda tail: [*range(10), *tail]),
    st.sampled_from([0.0, 0.1, 0.5, 0.8, 0.95, 0.98, 0.99, 0.995, 1.0]) | st.floats(0, 1),
)
def test_groups_are_the_scripts(labels, ratio):
    assert lff.milestone_groups(np.array(labels), ratio).tolist() == script_groups(labels, ratio)


def test_a_ratio_is_the_skews():
    assert [1.0 - skew for skew in (5e-2, 2e-2, 1e-2, 5e-3)] == list(lff.PUBLISHED_RATIOS)


def test_normals_are_torchs():
    generator = torch.Generator().manual_seed(42)
    drawn = torch.cat([torch.randn((3, 1, 1), generator=generator).flatten() for _ in range(2001)]).numpy()
    random = np.random.RandomState(42)
    # An even number at a time can be split.
    found = np.concatenate([lff.torch_normals(random, 3000), lff.torch_normals(random, 3003)])
    # Another library's logarithm may differ in the last bit.
    np.testing.assert_allclose(found, drawn, rtol=0, atol=3e-7)
    assert (found == drawn).mean() > 0.99


@pytest.mark.parametrize(("ratio", "severity"), [(0.0, 1), (0.1, 2), (0.3, 4)])
def test_cmnist_dd_is_the_script(mnist_root, ratio, severity):
    """Test set first, training set next, set after set; a ratio that is not published has the first draws."""
    source = readers.read_mnist_files(mnist_root, readers.MNIST)
    generator = torch.Generator().manual_seed(42)
    built = [(0.0, s) for s in (1, 2, 3, 4)] + [(0.1, 1), (0.1, 2)]
    for pair in built if (ratio, severity) in built else [(ratio, severity)]:
        splits = []
        for images, labels, share in (
            (source.test_images, source.test_labels, 0),
            (source.train_images, source.train_labels, pair[0]),
        ):
            groups = script_groups(labels.tolist(), share)
            pixels = [
                script_colour(image[0], group, pair[1], generator) for image, group in zip(images, groups, strict=True)
            ]
            splits.append((np.stack(pixels), groups))
        if pair == (ratio, severity):
            break
    data = load("cmnist-dd", mnist_root, bias_ratio=ratio, severity=severity)
    for split, (pixels, groups), labels in zip(
        (data.test, data.train), splits, (source.test_labels, source.train_labels), strict=True
    ):
        np.testing.assert_array_equal(split.groups, groups)
        np.testing.assert_array_equal(split.labels, labels)
        # The last bit of a colour can decide where a product is whole.
        assert (split.images != pixels).mean() < 1e-4
        assert np.abs(split.images.astype(int) - pixels).max() <= 1


def test_the_two_test_sets_of_biased_dd(mnist_root, cifar_root):
    for name, root in (("cmnist-dd", mnist_root), ("ccifar10-dd", cifar_root)):
        published, balanced = load(name, root), load(name, root, test_bias=0.1)
        assert not (published.test.groups == published.test.labels).any()
        # Of 11 and of 2 images a class, one and none (round(0.2)) or more are aligned by the rule.
        assert balanced.test.groups.tolist() == script_groups(balanced.test.labels.tolist(), 0.1)
        np.testing.assert_array_equal(published.train.images, balanced.train.images)


@pytest.mark.parametrize("severity", [1, 2, 3, 4])
def test_jitter_of_the_colours(severity):
    n = 4000
    white = np.full((n, 2, 2), 255, np.uint8)
    # Mauve: far enough from 0 and 1 never to be clipped.
    found = lff.colourise(
        white, np.full(n, 2), severity, lff.torch_normals(np.random.RandomState(0), 3 * n).reshape(-1, 3)
    )
    assert (found == found[:, :, :1, :1]).all()
    colours = (found[:, :, 0, 0] + 0.5) / 255
    std = (0.05, 0.02, 0.01, 0.005)[severity - 1]
    np.testing.assert_allclose(colours.mean(0), (0.67296, 0.46107, 0.57981), atol=4 * std / np.sqrt(n) + 2e-4)
    # Levels of 1/255 add a twelfth of their square.
    np.testing.assert_allclose(colours.std(0), np.sqrt(std**2 + 1 / 255**2 / 12), rtol=0.06)
    assert not lff.colourise(np.zeros((1, 2, 2), np.uint8), np.array([2]), severity, np.ones((1, 3), np.float32)).any()


def test_cmnist_lff(mnist_root):
    data = load("cmnist-lff", mnist_root, bias_ratio=0.5, severity=1)
    source = readers.read_mnist_files(mnist_root, readers.MNIST)
    assert data.train.images.shape == (240, 3, 28, 28)
    assert (data.mean, data.std) == ((0.5,) * 3, (0.5,) * 3)
    assert len(set(data.group_names)) == 10
    np.testing.assert_array_equal(data.train.labels, source.train_labels)
    assert data.train.groups.tolist() == script_groups(source.train_labels.tolist(), 0.5)
    assert data.test.groups.tolist() == script_groups(source.test_labels.tolist(), 0.1)
    generator = torch.Generator().manual_seed(0)
    for split, images in ((data.train, source.train_images), (data.test, source.test_images)):
        for row in range(len(split)):
            plain = script_colour(images[row, 0], split.groups[row], 1, generator)
            assert np.abs(split.images[row].astype(int) - plain).max() <= 1


def test_three_channels_of_28_pixels_go_through_the_networks(mnist_root):
    """The published ConvNet's classifier takes 28x28 for 32x32 and fails on them."""
    x = torch.zeros(2, 3, 28, 28)
    for name in ("ConvNet", "ConvNetD4", "ConvNetBN", "ConvNetMP"):
        assert registry.build(name, 3, 10, (28, 28))(x).shape == (2, 10)
    assert registry.build("ConvNet", 3, 10, (28, 28)).embedding_dim == 128 * 3 * 3
    data = load("cmnist-lff", mnist_root)
    assert fastdd.distill(data, ipc=1, debias="fairdd", iterations=1).images.shape == (10, 3, 28, 28)


@pytest.mark.parametrize("kind", [0, 1])
def test_corrupted_cifar10(cifar_root, kind):
    data = load("corrupted-cifar10", cifar_root, corruption_type=kind, bias_ratio=0.5, severity=3, seed=7)
    source = readers.read_cifar10(cifar_root)
    assert data.group_names == tuple(name.replace("_", " ") for name in corruptions.TYPES[kind])
    for number, (split, images, labels, ratio) in enumerate(
        (
            (data.train, source.train_images, source.train_labels, 0.5),
            (data.test, source.test_images, source.test_labels, 0.1),
        )
    ):
        assert split.groups.tolist() == script_groups(labels.tolist(), ratio)
        for row in range(0, len(labels), 7):
            name = corruptions.TYPES[kind][split.groups[row]]
            # LfF calls level severity + 1.
            alone = corruptions.corrupt(images[row][None], name, 4, np.array([row]), 7, number)[0]
            np.testing.assert_array_equal(split.images[row], alone)


def test_corruptions_of_ones_own_choice(cifar_root):
    """The groups stay those of the rule; class k's corruption is the k-th named, whichever type has it."""
    names = "gaussian_noise, motion_blur,brightness,contrast,jpeg,original,pixelate,saturate,fog,zoom_blur"
    data = load("corrupted-cifar10", cifar_root, corruptions=names, bias_ratio=0.5, severity=2, seed=3)
    source = readers.read_cifar10(cifar_root)
    ten = [name.strip() for name in names.split(",")]
    assert data.group_names == tuple(name.replace("_", " ") for name in ten)
    assert data.train.groups.tolist() == script_groups(source.train_labels.tolist(), 0.5)
    for row in range(0, len(data.train), 7):
        name = ten[data.train.groups[row]]
        alone = corruptions.corrupt(source.train_images[row][None], name, 3, np.array([row]), 3, 0)[0]
        np.testing.assert_array_equal(data.train.images[row], alone)
    again = load(data.name, cifar_root, **built_with({"provenance": data.provenance}, data.name))
    assert again.digest() == data.digest()
    listed = load("corrupted-cifar10", cifar_root, corruptions=list(corruptions.TYPES[0]))
    assert listed.digest() == load("corrupted-cifar10", cifar_root).digest()


def test_ccifar10_dd_is_type_0_with_its_own_seed(cifar_root):
    one = load("ccifar10-dd", cifar_root, bias_ratio=0.95, test_bias=0.1)
    other = load("corrupted-cifar10", cifar_root, bias_ratio=0.95, seed=42)
    np.testing.assert_array_equal(one.train.images, other.train.images)
    np.testing.assert_array_equal(one.test.images, other.test.images)


@pytest.mark.parametrize("name", ["cmnist-lff", "cmnist-dd", "ccifar10-dd", "corrupted-cifar10"])
def test_every_option_decides_the_bytes_and_is_recorded(mnist_root, cifar_root, name):
    root = mnist_root if "mnist" in name else cifar_root

    def digest(**options):
        return load(name, root, **options).digest()

    changes = [{}, {"seed": 5}, {"severity": 3}, {"bias_ratio": 0.5}]
    changes += [{"test_bias": 0.5}] if name.endswith("dd") else []
    changes += [{"corruption_type": 1}] if name == "corrupted-cifar10" else []
    assert len({digest(**options) for options in changes}) == len(changes)
    assert digest(seed=5) == digest(seed=5)
    assert load(name, root, severity=3).provenance["parameters"]["severity"] == 3


def test_bad_options(mnist_root, cifar_root):
    for name, options, why in (
        ("cmnist-lff", {"severity": 5}, "severity must be 1, 2, 3 or 4, not 5"),
        ("cmnist-lff", {"severity": 0}, "severity must be 1, 2, 3 or 4, not 0"),
        ("cmnist-lff", {"bias_ratio": 1.01}, "bias_ratio must lie in 0..1, not 1.01"),
        ("cmnist-dd", {"test_bias": -0.1}, "test_bias must lie in 0..1, not -0.1"),
        ("cmnist-lff", {"test_bias": 0.1}, "cmnist-lff has no test_bias"),
        ("corrupted-cifar10", {"corruption_type": 2}, "corruption_type must be 0 or 1, not 2"),
        ("corrupted-cifar10", {"corruptions": "fog,jpg"}, r"unknown corruption 'jpg': did you mean jpeg\? known"),
        ("corrupted-cifar10", {"corruptions": "fog,fog,snow"}, "needs ten different names, one a class, not 2 of 3"),
        ("corrupted-cifar10", {"corruptions": 7}, "corruptions must be ten names with commas between, not 7"),
        (
            "corrupted-cifar10",
            {"corruptions": "fog,snow", "corruption_type": 1},
            "corruptions stands in place of corruption_type: leave out corruption_type=1",
        ),
    ):
        with pytest.raises(ValueError, match=why):
            load(name, mnist_root if "mnist" in name else cifar_root, **options)
    with pytest.raises(FileNotFoundError, match=r"lacks frost1.png"):
        load("ccifar10-dd", cifar_root, frost_images=cifar_root)


def cells(sizes, ratio):
    """The rule's table: differences of the rounded milestones."""
    shares = np.full((10, 10), (1 - ratio) / 9)
    np.fill_diagonal(shares, ratio)
    ends = np.round(np.array(sizes)[:, None] * np.cumsum(shares, 1))
    return np.diff(ends, axis=1, prepend=0).astype(int)


@pytest.mark.realdata
def test_the_counts_of_mnist_and_cifar10(data_root):
    """The stated ratios of all 60,000 and 50,000 images; the KDE paper's files hold about nine tenths of CIFAR-10's."""
    mnist = readers.read_mnist_files(data_root, readers.MNIST)
    cifar = readers.read_cifar10(data_root)
    for ratio, conflicting in ((0.95, 3000), (0.98, 1199), (0.99, 598), (0.995, 300), (0.5, 30000), (0.0, 60000)):
        groups = lff.milestone_groups(mnist.train_labels, ratio)
        table = np.bincount(10 * mnist.train_labels + groups, minlength=100).reshape(10, 10)
        np.testing.assert_array_equal(table, cells(MNIST_TRAIN, ratio))
        assert table.sum() - np.trace(table) == conflicting
    for ratio, published in ((0.99, 442), (0.98, 887), (0.95, 2242)):
        conflicting = int((lff.milestone_groups(cifar.train_labels, ratio) != cifar.train_labels).sum())
        assert conflicting == round(50000 * (1 - ratio))
        # Held out with probability a tenth: 2 standard deviations.
        assert abs(published - 0.9 * conflicting) < 2 * np.sqrt(0.09 * conflicting)


@pytest.mark.realdata
def test_cmnist_of_real_digits(data_root):
    data = load("cmnist-dd", data_root)
    assert data.train.images.shape == (60000, 3, 28, 28)
    np.testing.assert_array_equal(data.train.counts(10, 10), cells(MNIST_TRAIN, 0.95))
    np.testing.assert_array_equal(data.test.counts(10, 10), cells(MNIST_TEST, 0.0))
    # By hand: of 5,923 zeros 0.95 is 5,626.85, and 0.05 / 9 is 32.906: 5,659.76, 5,692.67, 5,725.57, 5,758.48, ...
    assert data.train.counts(10, 10)[0].tolist() == [5627, 33, 33, 33, 32, 33, 33, 33, 33, 33]
    lightest = data.train.images.max((2, 3))[data.train.groups == 4].mean(0) / 255
    np.testing.assert_allclose(lightest, lff.COLOURS[4], atol=0.01)
