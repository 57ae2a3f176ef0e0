"""Data sets with a known bias: deterministic functions of (source, parameters, seed), equal to the published builders'.

Colours, ratios, padding, draws and order are those of FairDD's code (https://github.com/zqhang/FairDD), whose coloured
sets follow ReBias' Biased-MNIST (Bahng et al., ICML 2020). Random draws are numpy's frozen ``RandomState``, local.
"""

import numpy as np

from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.readers import CIFAR10_CLASSES, Source

# Group k is colour k, and the bias-aligned colour of class k.
COLOURS = np.array(
    [
        *([255, 0, 0], [255, 128, 0], [255, 255, 0], [255, 255, 128], [0, 255, 0]),
        *([0, 255, 255], [0, 0, 255], [128, 0, 255], [255, 0, 255], [255, 255, 255]),
    ],
    dtype=np.uint8,
)
COLOUR_NAMES = ("red", "orange", "yellow", "light yellow", "green", "cyan", "blue", "violet", "magenta", "white")
DIGITS = tuple(str(digit) for digit in range(10))
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
PUBLISHED_BIAS_RATIO = 0.9
# The published coloured sets are drawn with seed 30, CIFAR10-S with seed 0.
COLOUR_SEED = 30
CIFAR10_S_SEED = 0
C_DIGITS_SEED = 0
# A tenth of each class in its own colour: the test set is as balanced as whole images allow.
_TEST_RATIO = 0.1
_BINARISE_AT = 128
_PADDING = 4
_C_DIGITS_TRAIN = 1297


def _gray_levels() -> np.ndarray:
    return np.arange(256)[None, None, :]


def binary_foreground() -> np.ndarray:
    """uint8 [10, 3, 256]: gray level to colour; 128 and above become the colour, the rest black (C-MNIST FG)."""
    return np.where(_gray_levels() >= _BINARISE_AT, COLOURS[:, :, None], 0).astype(np.uint8)


def binary_background() -> np.ndarray:
    """uint8 [10, 3, 256]: gray level to colour; below 128 becomes the colour, the rest black (C-MNIST BG)."""
    return np.where(_gray_levels() < _BINARISE_AT, COLOURS[:, :, None], 0).astype(np.uint8)


def graded_foreground() -> np.ndarray:
    """uint8 [10, 3, 256]: black at gray 0 to the colour at 255, truncated, in float32 as published (C-FMNIST FG)."""
    gray = _gray_levels().astype(np.float32) / np.float32(255)
    end = COLOURS[:, :, None].astype(np.float32) / np.float32(255)
    return (gray * end * np.float32(255)).astype(np.uint8)


def graded_background() -> np.ndarray:
    """uint8 [10, 3, 256]: the published C-FMNIST (BG) colours, with their overflow.

    A gradient from the colour (gray 0) to white was meant. The start colour is left at 255 where 1 was meant, so with
    d = (255 - gray) / 255 and e = colour / 255 the value is 255 * (255 + d * (e - 255)), up to 65,025, truncated and
    taken modulo 256. Published results were measured on these pixels.

    >>> graded_background()[0][:, [0, 64, 127, 128, 200, 255]].T.tolist()
    [[255, 0, 0], [127, 192, 192], [0, 129, 129], [255, 128, 128], [111, 56, 56], [1, 1, 1]]
    """
    d = (np.float32(255) - _gray_levels().astype(np.float32)) / np.float32(255)
    end = COLOURS[:, :, None].astype(np.float32) / np.float32(255)
    value = (np.float32(255) + d * (end - np.float32(255))) * np.float32(255)
    return (value.astype(np.int64) % 256).astype(np.uint8)


def paint(gray: np.ndarray, groups: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Colour gray images by a table a group.

    Args:
        gray: uint8 [N, H, W].
        groups: int64 [N].
        table: uint8 [G, C, 256]: gray level to each channel's value.

    Returns:
        uint8 [N, C, H, W].
    """
    out = np.empty((len(gray), table.shape[1], *gray.shape[1:]), np.uint8)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        pixels = gray[rows]
        for channel in range(table.shape[1]):
            out[rows, channel] = table[group, channel][pixels]
    return out


def biased_groups(
    labels: np.ndarray, ratio: float, random: np.random.RandomState, *, even: bool = False, unbalanced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Which image gets which of ten colours, and the order of the built set, by the published rule.

    Class by class: the class's n rows are shuffled; the first int(n * ratio) get the class's own colour; the rest, in
    chunks of ceil(rest / 9) (the last one shorter), get the other nine colours, in random order. Rows are then listed
    colour by colour and shuffled as a whole.

    Args:
        labels: int64 [N], 0..9.
        ratio: share of a class in its own colour, 0..1.
        random: drawn from; advanced.
        even: share the rest out as evenly as can be instead, so that small classes lack no colour either.
        unbalanced: share the rest out 1:2:...:9 instead, over the other colours in random order: the first k get
            round(rest k (k + 1) / 90) (FairDD's CMNIST_unbalance, its appendix P; a class of 5,421 images at 0.9 has
            groups of 12 to 108).

    Returns:
        rows and groups, int64 [N] each: row of the source, and its colour.
    """
    by_colour = [[] for _ in range(10)]
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        random.shuffle(rows)
        aligned = int(len(rows) * ratio)
        others = [(label + step) % 10 for step in range(1, 10)]
        random.shuffle(others)
        by_colour[label].append(rows[:aligned])
        rest = rows[aligned:]
        if unbalanced:
            parts = np.split(rest, [round(len(rest) * k * (k + 1) / 90) for k in range(1, 9)])
        elif even:
            parts = np.array_split(rest, 9)
        else:
            chunk = -(-len(rest) // 9)
            parts = [rest[i * chunk : (i + 1) * chunk] for i in range(9)]
        for colour, part in zip(others, parts, strict=True):
            by_colour[colour].append(part)
    rows = np.concatenate([part for parts in by_colour for part in parts])
    groups = np.repeat(np.arange(10), [sum(map(len, parts)) for parts in by_colour])
    order = np.arange(len(rows))
    random.shuffle(order)
    return rows[order], groups[order]


def _coloured_split(
    images: np.ndarray, labels: np.ndarray, ratio: float, random, table: np.ndarray, unbalanced: bool = False
) -> Split:
    # Top and left only, as published: the 28x28 image is at rows and columns 4..31, off the centre.
    padded = np.pad(images[:, 0], ((0, 0), (_PADDING, 0), (_PADDING, 0)))
    rows, groups = biased_groups(labels, ratio, random, unbalanced=unbalanced)
    return Split(paint(padded[rows], groups, table), labels[rows], groups)


def _coloured(
    name: str, source: Source, bias_ratio: float, unbalanced: bool, seed: int, table: np.ndarray, class_names
) -> Dataset:
    random = np.random.RandomState(seed)
    train = _coloured_split(source.train_images, source.train_labels, bias_ratio, random, table, unbalanced)
    test = _coloured_split(source.test_images, source.test_labels, _TEST_RATIO, random, table)
    return Dataset(
        name=name,
        train=train,
        test=test,
        class_names=class_names,
        group_names=COLOUR_NAMES,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        provenance={
            "builder": name,
            "parameters": {"bias_ratio": bias_ratio, "test_bias_ratio": _TEST_RATIO, "unbalanced": unbalanced},
            "seed": seed,
            "files": source.files,
        },
    )


def c_mnist_fg(
    source: Source,
    *,
    bias_ratio: float = PUBLISHED_BIAS_RATIO,
    unbalanced: bool = False,
    seed: int = COLOUR_SEED,
) -> Dataset:
    """C-MNIST (FG): MNIST's digits coloured, on black; ten colours, one bias-aligned with each class.

    Published quirks, kept: padded 28 to 32 on top and left only; binarised at 128 (hard edges). Training images:
    ``bias_ratio`` of a class in its own colour; test images: a tenth (:func:`biased_groups`). Normalised by 0.5 | 0.5.

    Args:
        source: MNIST as read.
        bias_ratio: share of a class's training images in its own colour, 0..1; published 0.9.
        unbalanced: the other nine colours of a class get 1:2:...:9 of its rest, in random order, not equal parts
            (:func:`biased_groups`); the test set stays balanced.
        seed: of numpy's RandomState; published 30. Deterministic in it.
    """
    return _coloured("c-mnist-fg", source, bias_ratio, unbalanced, seed, binary_foreground(), DIGITS)


def c_mnist_bg(
    source: Source,
    *,
    bias_ratio: float = PUBLISHED_BIAS_RATIO,
    unbalanced: bool = False,
    seed: int = COLOUR_SEED,
) -> Dataset:
    """C-MNIST (BG): MNIST's digits in black on a coloured background; otherwise :func:`c_mnist_fg`."""
    return _coloured("c-mnist-bg", source, bias_ratio, unbalanced, seed, binary_background(), DIGITS)


def c_fmnist_fg(
    source: Source,
    *,
    bias_ratio: float = PUBLISHED_BIAS_RATIO,
    unbalanced: bool = False,
    seed: int = COLOUR_SEED,
) -> Dataset:
    """C-FMNIST (FG): Fashion-MNIST's objects coloured with their shading; otherwise :func:`c_mnist_fg`."""
    return _coloured("c-fmnist-fg", source, bias_ratio, unbalanced, seed, graded_foreground(), FASHION_CLASSES)


def c_fmnist_bg(
    source: Source,
    *,
    bias_ratio: float = PUBLISHED_BIAS_RATIO,
    unbalanced: bool = False,
    seed: int = COLOUR_SEED,
) -> Dataset:
    """C-FMNIST (BG): Fashion-MNIST's objects on a coloured background; object pixels overflow as published.

    See :func:`graded_background` for the overflow, :func:`c_mnist_fg` for the rest.
    """
    return _coloured("c-fmnist-bg", source, bias_ratio, unbalanced, seed, graded_background(), FASHION_CLASSES)


def luma(images: np.ndarray) -> np.ndarray:
    """ITU-R 601-2 luma as Pillow's ``convert("L")`` rounds it: (19595 R + 38470 G + 7471 B + 32768) >> 16.

    Args:
        images: uint8 [N, 3, H, W].

    Returns:
        uint8 [N, H, W].
    """
    out = np.empty((len(images), *images.shape[2:]), np.uint8)
    for start in range(0, len(images), 4096):
        red, green, blue = images[start : start + 4096].astype(np.uint32).transpose(1, 0, 2, 3)
        out[start : start + 4096] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return out


def cifar10_s(source: Source, *, bias_ratio: float = PUBLISHED_BIAS_RATIO, seed: int = CIFAR10_S_SEED) -> Dataset:
    """CIFAR10-S: five classes mostly gray, five mostly colour (Wang et al., CVPR 2020; FairDD's version).

    Each published split is shuffled with numpy seed 0. Training: of classes 0 to 4 the first ``bias_ratio`` are gray
    (group 0) and the rest colour (group 1); of classes 5 to 9 the first 1 - ``bias_ratio`` are gray, the rest colour.
    Test: every image in gray, then every image in colour: 20,000. Mean and std are the published constants, whatever
    the ratio: they are those of the test split's pixels (to 1e-6), not of the training pixels.

    Args:
        source: CIFAR-10 as read.
        bias_ratio: share of a class's training images in its majority group, 0..1; published 0.9.
        seed: of numpy's RandomState; published 0. Deterministic in it.
    """
    rows = np.arange(len(source.train_labels))
    np.random.RandomState(seed).shuffle(rows)
    images, labels = source.train_images[rows], source.train_labels[rows]
    # As published: the class size is a tenth of the split.
    majority = int(len(labels) * bias_ratio // 10)
    gray_per_class = np.where(np.arange(10) < 5, majority, len(labels) // 10 - majority)
    groups = np.ones(len(labels), np.int64)
    for label in range(10):
        groups[np.flatnonzero(labels == label)[: gray_per_class[label]]] = 0
    gray = groups == 0
    images[gray] = luma(images[gray])[:, None]

    # Both splits are shuffled by a generator seeded anew.
    rows = np.arange(len(source.test_labels))
    np.random.RandomState(seed).shuffle(rows)
    colour = source.test_images[rows]
    both = np.concatenate([np.broadcast_to(luma(colour)[:, None], colour.shape), colour])
    test = Split(both, np.tile(source.test_labels[rows], 2), np.repeat(np.arange(2), len(rows)))
    return Dataset(
        name="cifar10-s",
        train=Split(images, labels, groups),
        test=test,
        class_names=CIFAR10_CLASSES,
        group_names=("gray", "colour"),
        mean=(0.4890520609319886, 0.48451061542917323, 0.46714946730198426),
        std=(0.24278049202200438, 0.24082296066838135, 0.25098309397306334),
        provenance={
            "builder": "cifar10-s",
            "parameters": {"bias_ratio": bias_ratio},
            "seed": seed,
            "files": source.files,
        },
    )


def upsample_digits(images: np.ndarray) -> np.ndarray:
    """Twice the size by bilinear interpolation (pixel centres aligned, edges repeated), 0..16 to 0..255.

    Equal to ``F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False) / 16 * 255``, rounded half
    up, in exact integers: along an axis an output pixel is 3/4 of its own input pixel and 1/4 of the nearer neighbour.

    Args:
        images: integers 0..16, [N, H, W].

    Returns:
        uint8 [N, 2H, 2W].

    >>> upsample_digits(np.array([[[0, 16]]]))[0, 0].tolist()
    [0, 64, 191, 255]
    """
    out = images.astype(np.int64)
    for axis in (1, 2):
        size = out.shape[axis]
        before = out.take(np.maximum(np.arange(size) - 1, 0), axis)
        after = out.take(np.minimum(np.arange(size) + 1, size - 1), axis)
        pairs = np.stack([3 * out + before, 3 * out + after], axis + 1)
        shape = list(out.shape)
        shape[axis] *= 2
        out = pairs.reshape(shape)
    return ((out * 255 + 128) // 256).astype(np.uint8)


def c_digits(*, bias_ratio: float = PUBLISHED_BIAS_RATIO, seed: int = C_DIGITS_SEED) -> Dataset:
    """Coloured digits that need no download: scikit-learn's 1,797 handwritten 8x8 digits at 16x16, in ten colours.

    The digits (UCI, "Optical Recognition of Handwritten Digits") are upsampled (:func:`upsample_digits`) and coloured
    on black with their shading: round(gray * colour / 255). The whole set is shuffled; the first 1,297 images train,
    coloured as in C-MNIST (:func:`biased_groups`), the bias-conflicting tenth of a class evenly over the other nine
    colours: in the published chunks, its 13 images or so would leave out two or three of them, and what a class lacks
    no method can match (DEO_A of DM+FairDD at IPC 10: 18 to 29 over three seeds, against 12 to 15). Each of the other
    500 images is in the test set in all ten colours.

    Args:
        bias_ratio: share of a class's training images in its own colour, 0..1.
        seed: of numpy's RandomState. Deterministic in it.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray, labels = upsample_digits(digits.images), digits.target.astype(np.int64)
    random = np.random.RandomState(seed)
    order = random.permutation(len(labels))
    gray, labels = gray[order], labels[order]
    table = ((_gray_levels() * COLOURS[:, :, None].astype(np.int64) + 127) // 255).astype(np.uint8)

    rows, groups = biased_groups(labels[:_C_DIGITS_TRAIN], bias_ratio, random, even=True)
    train = Split(paint(gray[rows], groups, table), labels[rows], groups)
    test_labels = np.repeat(labels[_C_DIGITS_TRAIN:], 10)
    test_groups = np.tile(np.arange(10), len(labels) - _C_DIGITS_TRAIN)
    test = Split(paint(np.repeat(gray[_C_DIGITS_TRAIN:], 10, axis=0), test_groups, table), test_labels, test_groups)
    return Dataset(
        name="c-digits",
        train=train,
        test=test,
        class_names=DIGITS,
        group_names=COLOUR_NAMES,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        provenance={
            "builder": "c-digits",
            "parameters": {"bias_ratio": bias_ratio},
            "seed": seed,
            "files": [{"file": "sklearn.datasets.load_digits"}],
        },
    )
