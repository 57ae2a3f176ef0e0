"""What papers do to any biased set: balance it, spoil labels or groups, test on fewer groups, hold images out."""

import dataclasses
import inspect
from collections.abc import Callable, Collection

import numpy as np

from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.sets.balance import drop_to_ratio, even_cells

_BALANCE, _LABELS, _GROUPS, _TEST, _VALIDATION, _DROP, _SPLIT = range(7)
_SHARES = {"val_split", "label_noise", "group_noise"}


def check_share(name: str, value: float) -> None:
    """Raises a ValueError unless ``value`` is a number within 0..1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in 0..1, not {value!r}")


def balanced_rows(
    labels: np.ndarray, groups: np.ndarray, num_classes: int, num_groups: int, seed: int = 0
) -> np.ndarray:
    """Rows that leave every cell (class, group) as many images as the smallest has, drawn without replacement.

    FairDD's CelebA_fair (appendix N).

    Args:
        labels, groups: int64 [N].

    Returns:
        int64, ascending.

    Raises:
        ValueError: a cell is empty, naming it.
    """
    counts = np.bincount(labels * num_groups + groups, minlength=num_classes * num_groups)
    if not counts.all():
        label, group = divmod(int(counts.argmin()), num_groups)
        raise ValueError(
            f"balanced needs images of every class in every group: class {label} has none in group {group}"
        )
    return even_cells(labels, groups, np.random.RandomState((seed, _BALANCE)))


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


def rows_for_test(labels: np.ndarray, groups: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Rows to be tested on: round(n share) of every cell (class, group) with n images, drawn without replacement.

    Returns:
        bool [N].
    """
    return _held_out(labels, groups, lambda n: round(n * share), np.random.RandomState((seed, _TEST)))


def validation_rows(labels: np.ndarray, groups: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Rows for validation: round(n share) of every cell (class, group) with n images, drawn without replacement.

    Of a cell of two images or more, at least one is held out and at least one is left; a single image is left.

    Returns:
        bool [N].

    >>> held = validation_rows(np.array([0] * 10 + [1] * 2 + [2]), np.zeros(13, np.int64), 0.2)
    >>> int(held[:10].sum()), int(held[10:12].sum()), int(held[12:].sum())
    (2, 1, 0)
    """

    return _held_out(labels, groups, _of_each(share), np.random.RandomState((seed, _VALIDATION)))


def split_rows(labels: np.ndarray, groups: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Rows for the test of a set that has none, bool [N]; sizes as of :func:`validation_rows`, another draw."""
    return _held_out(labels, groups, _of_each(share), np.random.RandomState((seed, _SPLIT)))


def _of_each(share: float) -> Callable[[int], int]:
    """How many of n: their share, at least one, and one is left."""
    return lambda n: min(max(round(n * share), 1), n - 1)


def _held_out(
    labels: np.ndarray, groups: np.ndarray, size: Callable[[int], int], random: np.random.RandomState
) -> np.ndarray:
    """bool [N]: ``size(n)`` rows of every cell (class, group) with n images."""
    held = np.zeros(len(labels), bool)
    cells = labels * (groups.max(initial=0) + 1) + groups
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        held[rows[random.permutation(len(rows))[: size(len(rows))]]] = True
    return held


def varied(
    dataset: Dataset | Plan,
    seed: int = 0,
    *,
    balanced: bool = False,
    label_noise: float = 0.0,
    group_noise: float = 0.0,
    missing_groups: int = 0,
    val_split: float = 0.0,
    validation: float | None = None,
    drop_to: float | None = None,
) -> Dataset | Plan:
    """A data set, or a plan of one, with its training images changed; the test images stay as they are, unless
    training images take their place or groups are left out; images for validation that it has stay as they are.

    Args:
        dataset: the data set; its pixels and their true bias stay, only what is told of them changes.
        seed: of the draws, of which each change has a stream of its own.
        balanced: sample every cell down to the smallest (:func:`balanced_rows`), before the noise.
        label_noise: share of wrong labels (:func:`noisy_labels`).
        group_noise: share of groups drawn anew (:func:`noisy_groups`).
        missing_groups: groups whose test images are left out, those of the highest numbers (FairDD, appendix K, which
            does not say which).
        val_split: share of every cell's training images that are held out and stand in place of the test images, so
            that methods and settings can be chosen without the test set; before all the others.
        validation: share of every cell's training images that are held out as ``Dataset.validation``
            (:func:`validation_rows`), with the bias that training has; after ``val_split``, before all the others.
        drop_to: training images are dropped until each class's aligned group is that share of it, as From Fake to Real
            makes its levels of bias (:func:`~fastdd.data.sets.balance.drop_to_ratio`); after ``validation``, which
            keeps the bias that training had, and before all the others.

    Raises:
        ValueError: a share outside 0..1, an empty cell to be balanced, noise in the labels of one class, no group left,
            ``validation`` of a set that has one, or ``drop_to`` where no group is aligned with a class or a class has
            one group only.
    """
    for name, share in (("val_split", val_split), ("label_noise", label_noise), ("group_noise", group_noise)):
        check_share(name, share)
    _check_validation(validation)
    train, test, num_classes, num_groups = (
        dataset.train,
        dataset.test,
        len(dataset.class_names),
        len(dataset.group_names),
    )
    if val_split:
        held = rows_for_test(train.labels, train.groups, val_split, seed)
        if held.all() or not held.any():
            raise ValueError(
                f"val_split {val_split:g} leaves no images on one side, of {len(held):,} in {dataset.name}"
            )
        train, test = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    if validation:
        train, dataset = _with_validation(dataset, train, validation, seed)
    if drop_to is not None:
        train = _dropped(dataset.name, train, drop_to, seed)
    if not 0 <= missing_groups < num_groups:
        raise ValueError(f"missing_groups must lie in 0..{num_groups - 1} for {dataset.name}, not {missing_groups}")
    if missing_groups:
        test = test.take(np.flatnonzero(test.groups < num_groups - missing_groups))
    if balanced:
        train = train.take(balanced_rows(train.labels, train.groups, num_classes, num_groups, seed))
    labels, groups = train.labels, train.groups
    if label_noise:
        if num_classes < 2:
            raise ValueError(f"label_noise needs two classes or more; {dataset.name} has one")
        labels = noisy_labels(labels, label_noise, num_classes, seed)
    if group_noise:
        groups = noisy_groups(groups, group_noise, num_groups, seed)
    return dataclasses.replace(dataset, train=dataclasses.replace(train, labels=labels, groups=groups), test=test)


def _check_validation(share: float | None) -> None:
    if share is not None:
        check_share("validation", share)
        if share == 1:
            raise ValueError("validation 1 leaves nothing to train on: give a smaller share of the training images")


def _with_validation(dataset: Dataset | Plan, train: Split | Rows, share: float, seed: int):
    """The training images that are left, and the data set with those that are held out."""
    if dataset.validation is not None:
        raise ValueError(f"{dataset.name} has images for validation of its own: leave out validation={share:g}")
    held = validation_rows(train.labels, train.groups, share, seed)
    if not held.any():
        raise ValueError(f"validation {share:g} holds out nothing: no class and group of {dataset.name} has two images")
    taken = dataclasses.replace(dataset, validation=train.take(np.flatnonzero(held)))
    return train.take(np.flatnonzero(~held)), taken


def _dropped(name: str, train: Split | Rows, share: float, seed: int) -> Split | Rows:
    """The training images that are left where each class's aligned group is ``share`` of it."""
    check_share("drop_to", share)
    counts = np.zeros((train.labels.max() + 1, train.groups.max() + 1))
    np.add.at(counts, (train.labels, train.groups), 1)
    shares = counts[counts.any(1)] / counts[counts.any(1)].sum(1, keepdims=True)
    if np.ptp(shares, 0).max() < 0.01:
        raise ValueError(
            f"drop_to {share:g} raises the bias that {name} has, and its classes have their groups in equal shares: "
            "build it with some, such as bias_ratio=0.6"
        )
    rows = drop_to_ratio(train.labels, train.groups, share, np.random.RandomState((seed, _DROP)))
    return train.take(rows)


def with_variants(
    load: Callable[..., Dataset | Plan], *, only: Collection[str] | None = None
) -> Callable[..., Dataset | Plan]:
    """``load(root, *, ...)`` with the options of :func:`varied` that it does not have itself, drawn by its ``seed``.

    Args:
        load: the loader.
        only: the options that are added; None: all.
    """
    signature = inspect.signature(load)
    added = [
        parameter
        for parameter in inspect.signature(varied).parameters.values()
        if parameter.kind == parameter.KEYWORD_ONLY
        and parameter.name not in signature.parameters
        and (only is None or parameter.name in only)
    ]

    def load_varied(root, **options) -> Dataset | Plan:
        values = {parameter.name: options.pop(parameter.name, parameter.default) for parameter in added}
        for name in _SHARES & values.keys():
            check_share(name, values[name])
        _check_validation(values.get("validation"))
        return varied(load(root, **options), options.get("seed") or 0, **values)

    parameters = [parameter for parameter in signature.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    load_varied.__signature__ = signature.replace(parameters=[*parameters, *added])
    return load_varied
