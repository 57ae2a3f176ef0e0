"""Coloured MNIST and Corrupted CIFAR-10 of LfF (Nam et al., NeurIPS 2020), and CMNIST-DD and CCIFAR10-DD of Biased-DD.

Colours, jitter, corruptions and the rule of groups are those of LfF's ``make_dataset.py`` (github.com/alinlab/LfF),
which Biased-DD (Lu et al., 2024; github.com/yaolu-zjut/Biased-DD) uses with other ratios and another test set.

The KDE paper's Colored MNIST (1 %: 54,509 bias-aligned and 491 bias-conflicting images; 2 %: 54,014 and 986; 5 %:
52,551 and 2,449) and Corrupted CIFAR-10 (44,527 and 442; 44,145 and 887; 42,820 and 2,242) are files that DFA (Lee et
al., NeurIPS 2021) offers, with neither code nor seed. No rule tried gives these counts. What they fit, to within 1.4
standard deviations, is chance: of MNIST 5,000 images held out, and a conflicting image's colour drawn from all ten, its
own among them, so that a tenth is aligned after all (expected 495, 990 and 2,475; closest of the rules without chance:
0.9 times the ratio of each class of the first 55,000, rounded down: 490, 985, 2,469); of CIFAR-10, whose totals differ
from ratio to ratio, every image held out with probability 0.1 (expected 450, 900 and 2,250 conflicting). The sets here
have all 60,000 and 50,000 images and the stated ratio, as LfF's own (5 %: 3,000 and 2,500 conflicting).
"""

import difflib
import hashlib
import os

import numpy as np

from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.readers import CIFAR10_CLASSES, CIFAR10_NORMALISATION, Source
from fastdd.data.sets.builders import DIGITS
from fastdd.data.sets.variants import check_share

# LfF's colors.th: the mean colour of group k, and the bias-aligned one of class k; red, green, blue.
COLOURS = np.array(
    [
        (0.983682334, 0.312519014, 0.168575346),
        (0.990529656, 0.915605247, 0.351512194),
        (0.672963977, 0.461070478, 0.579808176),
        (0.783251941, 0.831555903, 0.601329386),
        (0.088015795, 0.777963340, 0.981807768),
        (0.321393371, 0.961054564, 0.446449876),
        (0.024615884, 0.235650480, 0.758666277),
        (0.555246949, 0.101580143, 0.761763155),
        (0.207723200, 0.392948508, 0.018702388),
        (0.833657622, 0.202409267, 0.266943097),
    ],
    dtype=np.float32,
)
COLOUR_NAMES = (
    *("orange", "yellow", "mauve", "pale green", "sky blue"),
    *("green", "blue", "purple", "dark green", "crimson"),
)
# Standard deviation of the colours by severity: the higher the severity, the purer the colour, the easier the bias.
JITTER = (0.05, 0.02, 0.01, 0.005)
SEVERITIES = len(JITTER)
PUBLISHED_RATIOS = (0.95, 0.98, 0.99, 0.995)
LFF_TEST_RATIO = 0.1
# LfF sets no seed.
LFF_SEED = 0
DD_RATIOS = (0.0, 0.1, 0.5, 0.8, 0.95, 1.0)
DD_SEED = 42


def _check(bias_ratio: float, test_bias: float, severity: int) -> None:
    check_share("bias_ratio", bias_ratio)
    check_share("test_bias", test_bias)
    if severity not in range(1, SEVERITIES + 1):
        raise ValueError(f"severity must be 1, 2, 3 or 4, not {severity!r}")


def milestone_groups(labels: np.ndarray, ratio: float) -> np.ndarray:
    """The group of every image by LfF's rule, which draws nothing: groups follow each other in the order of the images.

    Class c has n images and the shares p_g = ``ratio`` for g = c, (1 - ratio) / (C - 1) otherwise. Its k-th image, in
    the data set's order, from 0, gets the first group g with round(n (p_0 + ... + p_g)) > k (half to even).

    Args:
        labels: int64 [N], 0..C-1.
        ratio: share of a class in its own group, 0..1.

    Returns:
        int64 [N], 0..C-1.

    >>> milestone_groups(np.zeros(10, np.int64).repeat(2), 0.5).tolist()  # one class: all its own
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    >>> milestone_groups(np.array([0, 1, 1, 0, 0, 1, 1, 0]), 0.75).tolist()
    [0, 0, 1, 0, 0, 1, 1, 1]
    """
    classes = int(labels.max()) + 1
    aligned = np.eye(classes)
    shares = ratio * aligned + (1 - ratio) / max(classes - 1, 1) * (1 - aligned)
    if classes == 1:
        shares[:] = 1
    groups = np.empty(len(labels), np.int64)
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        milestones = np.round(len(rows) * np.cumsum(shares[label]))
        groups[rows] = np.searchsorted(milestones, np.arange(len(rows)), side="right")
    return groups


def torch_normals(random: np.random.RandomState, n: int) -> np.ndarray:
    """Standard normals as ``torch.randn`` draws them for tensors of less than 16 values on the CPU: float32 [n].

    Both libraries' Mersenne twisters are seeded alike. Two 32-bit words make a uniform number u of 53 bits, two of
    those two normals: sqrt(-2 log(1 - u2)) times cos and sin of 2 pi u1.

    >>> [round(float(x), 4) for x in torch_normals(np.random.RandomState(42), 3)]
    [0.3367, 0.1288, 0.2345]
    """
    words = random.randint(0, 2**32, (n + n % 2, 2), np.uint32).astype(np.uint64)
    uniform = ((words[:, 0] << np.uint64(32) | words[:, 1]) & np.uint64(2**53 - 1)) * 2.0**-53
    angle, radius = 2 * np.pi * uniform[::2], np.sqrt(-2 * np.log1p(-uniform[1::2]))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()[:n].astype(np.float32)


def colourise(gray: np.ndarray, groups: np.ndarray, severity: int, noise: np.ndarray) -> np.ndarray:
    """clip(colour + noise * jitter, 0, 1) * gray, in float32, truncated: one colour an image, black stays black.

    Args:
        gray: uint8 [N, H, W].
        groups: int64 [N], 0..9.
        severity: 1..4 (:data:`JITTER`).
        noise: standard normals, float32 [N, 3].

    Returns:
        uint8 [N, 3, H, W].
    """
    colours = np.clip(COLOURS[groups] + noise * np.float32(JITTER[severity - 1]), 0, 1)
    out = np.empty((len(gray), 3, *gray.shape[1:]), np.uint8)
    for start in range(0, len(gray), 4096):
        part = slice(start, start + 4096)
        out[part] = colours[part, :, None, None] * gray[part, None].astype(np.float32)
    return out


def _coloured_digits(
    name: str, source: Source, bias_ratio: float, test_bias: float, severity: int, seed: int, noise
) -> Dataset:
    splits = []
    for images, labels, ratio, values in (
        (source.train_images, source.train_labels, bias_ratio, noise[0]),
        (source.test_images, source.test_labels, test_bias, noise[1]),
    ):
        groups = milestone_groups(labels, ratio)
        splits.append(Split(colourise(images[:, 0], groups, severity, values), labels, groups))
    return Dataset(
        name=name,
        train=splits[0],
        test=splits[1],
        class_names=DIGITS,
        group_names=COLOUR_NAMES,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        provenance={
            "builder": name,
            "parameters": {"bias_ratio": bias_ratio, "severity": severity, "test_bias": test_bias},
            "seed": seed,
            "files": source.files,
        },
    )


def cmnist_lff(
    source: Source, *, bias_ratio: float = PUBLISHED_RATIOS[0], severity: int = 4, seed: int = LFF_SEED
) -> Dataset:
    """Colored MNIST of LfF: digits in ten colours with jitter, on black, 3x28x28, in MNIST's order.

    Groups by :func:`milestone_groups`, pixels by :func:`colourise`. The test set is the official one with a tenth of a
    class in its own colour (LfF's "valid"). 28x28 as published: the networks here compute their true sizes, where the
    published ConvNet takes 28x28 for 32x32 and fails on three channels. No normalisation is published: 0.5 | 0.5.

    Args:
        source: MNIST as read.
        bias_ratio: share of a class's training images in its own colour, 0..1; published, as the skew 1 - bias_ratio:
            0.95, 0.98, 0.99, 0.995.
        severity: 1..4; the jitter's standard deviation is .05, .02, .01, .005.
        seed: of the jitter (:func:`torch_normals`, training images first); LfF sets none. Deterministic in it.

    Cost: about half a second.
    """
    _check(bias_ratio, LFF_TEST_RATIO, severity)
    random = np.random.RandomState(seed)
    noise = [
        torch_normals(random, 3 * len(labels)).reshape(-1, 3) for labels in (source.train_labels, source.test_labels)
    ]
    return _coloured_digits("cmnist-lff", source, bias_ratio, LFF_TEST_RATIO, severity, seed, noise)


def cmnist_dd(
    source: Source, *, bias_ratio: float = 0.95, severity: int = 4, test_bias: float = 0.0, seed: int = DD_SEED
) -> Dataset:
    """CMNIST-DD of Biased-DD: Colored MNIST as in :func:`cmnist_lff`, but for the ratios, the test set and the draws.

    The published script seeds torch with 42 once and then builds all 24 sets, ratio by ratio and severity by severity,
    of each the test set first. With a published ratio the jitter is taken from where that script is by then, so that
    MNIST's own files give the published pixels; with another ratio, from the start.

    The published "unbiased" test set has no bias-aligned image at all (``test_bias`` 0): every digit has one of the
    nine other colours, and a model that sees only colours scores about 0, not 10 %. ``test_bias`` 0.1 is the balanced
    one, of the same digits.

    Args:
        source: MNIST as read.
        bias_ratio: share of a class's training images in its own colour, 0..1; published 0, .1, .5, .8, .95, 1.
        severity: 1..4; published tables use 4.
        test_bias: the same share of the test images; published 0.
        seed: published 42. Deterministic in it.

    Cost: about half a second.
    """
    _check(bias_ratio, test_bias, severity)
    random = np.random.RandomState(seed)
    train, test = 3 * len(source.train_labels), 3 * len(source.test_labels)
    before = DD_RATIOS.index(bias_ratio) * SEVERITIES + severity - 1 if bias_ratio in DD_RATIOS else 0
    for _ in range(before):
        # Two words a normal; a normal left over from an odd number goes to the next image.
        random.randint(0, 2**32, 2 * (train + test), np.uint32)
    noise = torch_normals(random, test + train).reshape(-1, 3)
    noise = noise[test // 3 :], noise[: test // 3]
    return _coloured_digits("cmnist-dd", source, bias_ratio, test_bias, severity, seed, noise)


def corruption_names(kind: int) -> tuple[str, ...]:
    """How the groups of a type of corruptions are called, in the order of the classes."""
    return tuple(name.replace("_", " ") for name in _ten_corruptions(None, kind))


def _ten_corruptions(asked: str | list[str] | tuple[str, ...] | None, kind: int) -> tuple[str, ...]:
    """The corruptions that are aligned with the classes, in their order."""
    # SciPy and Pillow are for those who corrupt; importing fastdd needs neither.
    from fastdd.data.sets import corruptions

    if asked is None:
        return corruptions.TYPES[kind]
    if not isinstance(asked, str | list | tuple):
        raise ValueError(f"corruptions must be ten names with commas between, not {asked!r}")
    names = [str(name).strip().lower() for name in (asked.split(",") if isinstance(asked, str) else asked)]
    known = [name for names_of_type in corruptions.TYPES for name in names_of_type]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"unknown corruption {name!r}: {hint}known are {', '.join(known)}")
    if len(names) != 10 or len(set(names)) != 10:
        raise ValueError(f"corruptions needs ten different names, one a class, not {len(set(names))} of {len(names)}")
    return tuple(names)


def _corrupted(
    name: str,
    source: Source,
    names: tuple[str, ...],
    ratios: tuple[float, float],
    severity: int,
    seed: int,
    frost_images,
    parameters: dict,
) -> Dataset:
    from fastdd.data.sets import corruptions

    textures = corruptions.frost_textures(frost_images)
    splits = []
    for number, (images, labels, ratio) in enumerate(
        (
            (source.train_images, source.train_labels, ratios[0]),
            (source.test_images, source.test_labels, ratios[1]),
        )
    ):
        groups = milestone_groups(labels, ratio)
        out = np.empty_like(images)
        for group, corruption in enumerate(names):
            rows = np.flatnonzero(groups == group)
            # LfF's severities 1 to 4 are levels 2 to 5.
            out[rows] = corruptions.corrupt(images[rows], corruption, severity + 1, rows, seed, number, textures)
        splits.append(Split(out, labels, groups))
    parameters = {"bias_ratio": ratios[0], "severity": severity, "test_bias": ratios[1], **parameters}
    files = list(source.files)
    if frost_images is not None:
        parameters["frost_images"] = os.fspath(frost_images)
        sha = hashlib.sha256(b"".join(texture.tobytes() for texture in textures))
        files.append({"file": "photographs of frost, a fifth of their size", "sha256": sha.hexdigest()})
    return Dataset(
        name=name,
        train=splits[0],
        test=splits[1],
        class_names=CIFAR10_CLASSES,
        group_names=tuple(corruption.replace("_", " ") for corruption in names),
        mean=CIFAR10_NORMALISATION[0],
        std=CIFAR10_NORMALISATION[1],
        provenance={
            "builder": name,
            "parameters": parameters,
            "seed": seed,
            "files": files,
        },
    )


def corrupted_cifar10(
    source: Source,
    *,
    corruption_type: int = 0,
    corruptions: str | list[str] | tuple[str, ...] | None = None,
    bias_ratio: float = PUBLISHED_RATIOS[0],
    severity: int = 4,
    frost_images: str | os.PathLike | None = None,
    seed: int = LFF_SEED,
) -> Dataset:
    """Corrupted CIFAR-10 of LfF: ten corruptions (:mod:`~fastdd.data.sets.corruptions`), one bias-aligned with a class.

    Groups by :func:`milestone_groups`, in CIFAR-10's order; the test set has a tenth of a class in its own corruption.
    Normalised by CIFAR-10's published constants.

    Args:
        source: CIFAR-10 as read.
        corruption_type: 0: snow, frost, fog, brightness, contrast, spatter, elastic, jpeg, pixelate, saturate; 1:
            gaussian noise, shot noise, impulse noise, speckle noise, gaussian blur, defocus blur, glass blur, motion
            blur, zoom blur, original; in the order of the classes from airplane to truck.
        corruptions: ten of both types' names in the order of the classes, as a list or with commas between
            (``gaussian_noise,motion_blur,...``), in place of a type: papers that take a list of their own name some of
            either type.
        bias_ratio: share of a class's training images in its own corruption, 0..1; published .95, .98, .99, .995.
        severity: 1..4, which are CIFAR-10-C's levels 2..5. Type 0 at 1 and 2 needs ``fastdd[corruptions]``.
        frost_images: folder of the published photographs of frost
            (:func:`~fastdd.data.sets.corruptions.frost_textures`); drawn textures by default.
        seed: of the corruptions' draws; LfF sets none. Deterministic in it.

    Cost: about 15 s of one core for all 60,000 images; less on more cores.
    """
    _check(bias_ratio, LFF_TEST_RATIO, severity)
    if corruption_type not in (0, 1):
        raise ValueError(f"corruption_type must be 0 or 1, not {corruption_type!r}")
    if corruptions is not None and corruption_type:
        raise ValueError(f"corruptions stands in place of corruption_type: leave out corruption_type={corruption_type}")
    names = _ten_corruptions(corruptions, corruption_type)
    parameters = {"corruption_type": corruption_type} if corruptions is None else {"corruptions": ",".join(names)}
    ratios = bias_ratio, LFF_TEST_RATIO
    return _corrupted("corrupted-cifar10", source, names, ratios, severity, seed, frost_images, parameters)


def ccifar10_dd(
    source: Source,
    *,
    bias_ratio: float = 0.95,
    severity: int = 4,
    test_bias: float = 0.0,
    frost_images: str | os.PathLike | None = None,
    seed: int = DD_SEED,
) -> Dataset:
    """CCIFAR10-DD of Biased-DD: Corrupted CIFAR-10 of type 0 (:func:`corrupted_cifar10`) with its ratios and test set.

    Args:
        source: CIFAR-10 as read.
        bias_ratio: share of a class's training images in its own corruption, 0..1; published 0, .1, .5, .8, .95, 1.
        severity: 1..4; published tables use 4.
        test_bias: the same share of the test images; published 0, which is all conflicting; 0.1 is balanced
            (:func:`cmnist_dd`).
        frost_images, seed: as in :func:`corrupted_cifar10`; the seed is the published 42, its stream is not.

    Cost: as :func:`corrupted_cifar10`.
    """
    _check(bias_ratio, test_bias, severity)
    ratios, parameters = (bias_ratio, test_bias), {"corruption_type": 0}
    return _corrupted(
        "ccifar10-dd", source, _ten_corruptions(None, 0), ratios, severity, seed, frost_images, parameters
    )
