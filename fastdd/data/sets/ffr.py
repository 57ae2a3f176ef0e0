"""From Fake to Real's splits and levels of bias (Qraitem, Saenko and Plummer, ECCV 2024), as its code has them.

The code (github.com/mqraitem/From-Fake-to-Real) cuts the list of files, in the file system's order, at 80 and 90 % into
training, validation and test images, drops images of training and validation to a bias of 0.9 and then to the level
asked for, and draws by numpy without a seed. Which images these are can't be repeated; here the order follows from the
names and draws are seeded, and the numbers follow its arithmetic: of its 7,797 smiling women and the 866 smiling men
that 0.9 leaves, a level of 0.97 keeps 242 men (``int(866 - 7797 * ratio / (1 - ratio))`` are dropped). The images
themselves are named by pickled files in the folder ``data`` of the repository, which :func:`from_files` reads.
"""

import os
from pathlib import Path, PurePosixPath

import numpy as np

from fastdd.data.files.plan import Rows
from fastdd.data.files.readers import describe, read_file
from fastdd.data.files.readers.pickles import unpickled_lists

PAGE = "https://github.com/mqraitem/From-Fake-to-Real"
# What training and validation images are brought to before the level that is asked for.
FIRST_LEVEL = 0.9
# Of the minority of a class, validation keeps so many.
LEAST = 10
_FIRST, _THEN = range(2)


def check_level(name: str, bias_ratio: float | None, lowest: float) -> None:
    """Raises a ValueError for a level that the rule, which only drops the minority, can't reach."""
    if bias_ratio is not None and bias_ratio < lowest:
        raise ValueError(
            f"From Fake to Real's {name} is biased by {lowest:g} and more: give a bias_ratio of at least {lowest:g}, "
            f"not {bias_ratio:g}"
        )


def at_level(
    labels: np.ndarray, groups: np.ndarray, level: float, random: np.random.RandomState, least: int = 0
) -> np.ndarray:
    """Rows (sorted) that are left when each class's smallest group is dropped to 1 - ``level`` of it and the largest.

    With m images in the largest group and n in the smallest, int(n - m r / (1 - r)) of the n are dropped, r = 1 -
    ``level``; none where n is smaller than that share already, or of a class of one group.

    Args:
        labels, groups: int64 [N], of two groups a class.
        level: share of the majority, above 0.
        random: drawn from, class by class; advanced.
        least: so many of the smallest group stay, if it has them.

    >>> labels, groups = np.zeros(120, np.int64), np.repeat([0, 1], [100, 20])
    >>> [len(at_level(labels, groups, 0.95, np.random.RandomState(0), least)) - 100 for least in (0, 10)]
    [6, 10]
    """
    out = [np.zeros(0, np.int64)]
    ratio = 1 - level
    for label in np.unique(labels):
        counts = np.bincount(groups[labels == label])
        present = np.flatnonzero(counts)
        smallest = present[counts[present].argmin()]
        kept = counts.max() * ratio / (1 - ratio)
        if len(present) < 2 or kept > counts[smallest]:
            continue
        rows = np.flatnonzero((labels == label) & (groups == smallest))
        out.append(random.permutation(rows)[: max(int(len(rows) - max(kept, least)), 0)])
    return np.delete(np.arange(len(labels)), np.concatenate(out))


def three_splits(rows: Rows, bias_ratio: float | None, seed: int) -> dict[str, Rows]:
    """Training, validation and test images of a set of two classes and two groups.

    Training and validation images are dropped to :data:`FIRST_LEVEL`, where the minority is the smaller group of class
    1 and, of class 0, the other group; then to ``bias_ratio`` (:func:`dropped`).

    Args:
        rows: of all files, in the order in which they are cut; those with a label below 0 are left out after it. In
            a split, images are sorted by name.
        bias_ratio: share of the majority, from 0.9; None for 0.9.
        seed: of numpy's RandomState, training and validation images apart.
    """
    count = len(rows)
    ends = (0, int(count * 0.8), int(count * 0.9), count)
    splits = {}
    for number, name in enumerate(("train", "validation", "test")):
        part = rows.take(np.arange(ends[number], ends[number + 1]))
        kept = np.flatnonzero(part.labels >= 0).tolist()
        part = part.take(np.array(sorted(kept, key=part.names.__getitem__), np.int64))
        if name != "test":
            part = part.take(_at_first_level(part, np.random.RandomState((seed, number, _FIRST))))
        splits[name] = dropped(part, name, bias_ratio, seed)
    return splits


def from_files(
    rows: Rows, folder: str | os.PathLike, stem: str, bias_ratio: float | None, validation: str = "valid"
) -> tuple[dict[str, Rows], list[dict]]:
    """The splits that the published files name, and the files' provenance.

    Args:
        rows: of all images; those with a label below 0 are of no class.
        folder: where the files are: ``celeba_Smiling_train_0.95.pkl``, ``..._valid_...``, ``..._test_...``.
        stem: of the files' names, such as ``utk_face``.
        bias_ratio: in their names; None for 0.9.
        validation: how their names call it.

    Raises:
        FileNotFoundError: a file that is missing, or an image that one names.
        RuntimeError: a file that is damaged or holds anything else, or that has another class or group of an image.
    """
    level = f"{FIRST_LEVEL if bias_ratio is None else bias_ratio:g}"
    # The end of a path as the repository has it, whatever the folder was there.
    depth = len(PurePosixPath(rows.names[0]).parts) if len(rows) else 1
    place = {tuple(PurePosixPath(name).parts): row for row, name in enumerate(rows.names)}
    splits, files = {}, []
    for split, word in (("train", "train"), ("validation", validation), ("test", "test")):
        path = Path(folder) / f"{stem}_{word}_{level}.pkl"
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; From Fake to Real's splits are in the folder data of {PAGE}")
        content = read_file(path)
        fields = unpickled_lists(content, str(path), "file of From Fake to Real's splits")
        names, labels, groups = (fields.get(field, []) for field in ("filenames", "targets", "biases"))
        if not names or not len(names) == len(labels) == len(groups):
            raise RuntimeError(f"{path} needs filenames, targets and biases, as many of each")
        chosen = np.empty(len(names), np.int64)
        for number, (name, label, group) in enumerate(zip(names, labels, groups, strict=True)):
            row = place.get(PurePosixPath(str(name)).parts[-depth:])
            if row is None:
                raise FileNotFoundError(f"{path} names {name}, which is not among the images")
            if (label, group) != (rows.labels[row], rows.groups[row]):
                raise RuntimeError(f"{path} has {name} in class {label} and group {group}, which it is not in")
            chosen[number] = row
        splits[split] = rows.take(chosen)
        files.append(describe(path.name, content))
    return splits, files


def dropped(rows: Rows, split: str, bias_ratio: float | None, seed: int) -> Rows:
    """Training or validation images at a level (:func:`at_level`), of which validation keeps :data:`LEAST` a class.

    Args:
        rows: the images.
        split: of ``train``, ``validation`` and ``test``; test images stay.
        bias_ratio: share of the majority; None for all images.
        seed: of numpy's RandomState, the splits apart.
    """
    if bias_ratio is None or split == "test":
        return rows
    number = ("train", "validation").index(split)
    random = np.random.RandomState((seed, number, _THEN))
    return rows.take(at_level(rows.labels, rows.groups, bias_ratio, random, LEAST * number))


def _at_first_level(rows: Rows, random: np.random.RandomState) -> np.ndarray:
    counts = np.bincount(rows.labels * 2 + rows.groups, minlength=4).reshape(2, 2)
    smaller = int(counts[1].argmin())
    ratio = 1 - FIRST_LEVEL
    out = []
    for label, group in ((0, 1 - smaller), (1, smaller)):
        kept = int(ratio * counts[label, 1 - group] / (1 - ratio))
        minority = np.flatnonzero((rows.labels == label) & (rows.groups == group))
        out.append(random.permutation(minority)[: max(len(minority) - kept, 0)])
    return np.delete(np.arange(len(rows)), np.concatenate(out))
