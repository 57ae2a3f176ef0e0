"""What the ablations of the papers do to any biased set's training images: balance them, spoil labels or groups."""

import dataclasses
import inspect
from collections.abc import Callable

import numpy as np

from fastdd.data.dataset import Dataset, Split

_BALANCE, _LABELS, _GROUPS = range(3)


def check_share(name: str, value: float) -> None:
    """Raises a ValueError unless ``value`` is a number within 0..1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in 0..1, not {value!r}")


def balanced_rows(split: Split, num_classes: int, num_groups: int, seed: int = 0) -> np.ndarray:
    """Rows of a part of ``split`` with as many images in each cell (class, group) as the smallest has, in their order.

    FairDD's CelebA_fair (appendix N): every cell is sampled down, without replacement.

    Returns:
        int64, ascending.

    Raises:
        ValueError: a cell is empty, naming it.
    """
    counts = split.counts(num_classes, num_groups)
    empty = np.argwhere(counts == 0)
    if len(empty):
        label, group = empty[0]
        raise ValueError(
            f"balanced needs an image of every class in every group: class {label} has none in group {group}"
        )
    random = np.random.RandomState((seed, _BALANCE))
    cell = split.labels * num_groups + split.groups
    chosen = [random.permutation(np.flatnonzero(cell == number))[: counts.min()] for number in range(counts.size)]
    return np.sort(np.concatenate(chosen))


def _share_of(n: int, share: float, random: np.random.RandomState) -> np.ndarray:
    return random.permutation(n)[: round(n * share)]


def noisy_labels(labels: np.ndarray, share: float, num_classes: int, seed: int = 0) -> np.ndarray:
    """Labels with symmetric noise: round(N share) of them, drawn without replacement, change to any other class.

    Args:
        labels: int64 [N], 0..num_classes-1.
        share: 0..1.

    Returns:
        int64 [N]; exactly round(N share) differ.

    >>> int((noisy_labels(np.arange(10).repeat(10), 0.25, 10) != np.arange(10).repeat(10)).sum())
    25
    """
    random = np.random.RandomState((seed, _LABELS))
    rows = _share_of(len(labels), share, random)
    out = labels.copy()
    out[rows] = (labels[rows] + random.randint(1, max(num_classes, 2), len(rows))) % num_classes
    return out


def noisy_groups(groups: np.ndarray, share: float, num_groups: int, seed: int = 0) -> np.ndarray:
    """Groups of which round(N share), drawn without replacement, are drawn anew from all groups, uniformly.

    FairDD's group label noise (appendix M): a drawn group can be the true one, so that 1 / num_groups of them stay.
    """
    random = np.random.RandomState((seed, _GROUPS))
    rows = _share_of(len(groups), share, random)
    out = groups.copy()
    out[rows] = random.randint(0, num_groups, len(rows))
    return out


def with_variants(load: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """``load(root, *, ...)`` with three more options, on the training images; the test images stay as they are.

    ``balanced``: True samples every cell down to the smallest (:func:`balanced_rows`). ``label_noise``: share of wrong
    labels (:func:`noisy_labels`). ``group_noise``: share of groups drawn anew (:func:`noisy_groups`). Applied in this
    order; the pixels and the true bias stay, only what is told of them changes. Draws are seeded by the data set's
    ``seed`` (0 where it has none), each with a stream of its own.
    """

    def varied(
        root, *, balanced: bool = False, label_noise: float = 0.0, group_noise: float = 0.0, **options
    ) -> Dataset:
        check_share("label_noise", label_noise)
        check_share("group_noise", group_noise)
        dataset = load(root, **options)
        train, seed = dataset.train, options.get("seed") or 0
        if balanced:
            rows = balanced_rows(train, dataset.num_classes, dataset.num_groups, seed)
            train = Split(train.images[rows], train.labels[rows], train.groups[rows])
        labels, groups = train.labels, train.groups
        if label_noise:
            if dataset.num_classes < 2:
                raise ValueError(f"label_noise needs two classes or more; {dataset.name} has one")
            labels = noisy_labels(labels, label_noise, dataset.num_classes, seed)
        if group_noise:
            groups = noisy_groups(groups, group_noise, dataset.num_groups, seed)
        return dataclasses.replace(dataset, train=Split(train.images, labels, groups))

    own = inspect.signature(load)
    parameters = [p for p in own.parameters.values() if p.kind != p.VAR_KEYWORD]
    added = [p for p in inspect.signature(varied).parameters.values() if p.kind == p.KEYWORD_ONLY]
    varied.__signature__ = own.replace(parameters=[*parameters, *added])
    return varied
