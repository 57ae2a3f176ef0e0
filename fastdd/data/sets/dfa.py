"""The files that DFA offers: Colored MNIST, Corrupted CIFAR-10 and BFFHQ (Lee et al., NeurIPS 2021).

They are what DFA (github.com/kakaoenterprise/Learning-Debiased-Disentangled) and SelecMix train on and, by the counts
that it states, the KDE paper. Pixels are as stored.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from fastdd.core.text import did_you_mean
from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.readers import CIFAR10_CLASSES, CIFAR10_NORMALISATION
from fastdd.data.files.tree import Tree, find
from fastdd.data.sets.builders import DIGITS

PAGE = "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled"
_TESTS = ("all", "conflict")


@dataclass(frozen=True)
class _Kind:
    """One of the three.

    Args:
        class_names, group_names: of the numbers in the files' names.
        size: of the images, in pixels; of BFFHQ's, which are larger, FairDD's.
        normalisation: mean and std of the published code; of Colored MNIST, which it does not normalise, 0.5.
        test: what the published code tests on.
        published: by the folder of training images, how many are in ``align`` and in ``conflict``, where that is known.
    """

    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    size: int
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    test: str
    published: dict[str, tuple[int, int]]


KINDS = {
    "cmnist": _Kind(
        DIGITS,
        tuple(f"colour {number}" for number in range(10)),
        28,
        ((0.5,) * 3, (0.5,) * 3),
        "all",
        {"1pct": (54_509, 491), "2pct": (54_014, 986), "5pct": (52_551, 2_449)},
    ),
    "cifar10c": _Kind(
        CIFAR10_CLASSES,
        tuple(f"corruption {number}" for number in range(10)),
        32,
        CIFAR10_NORMALISATION,
        "all",
        {"1pct": (44_527, 442), "2pct": (44_145, 887), "5pct": (42_820, 2_242)},
    ),
    "bffhq": _Kind(("young", "old"), ("female", "male"), 64, CIFAR10_NORMALISATION, "conflict", {}),
}


def dfa_folder(
    root,
    *,
    kind: str = "cmnist",
    conflict: str = "0.5pct",
    test: str | None = None,
    size: int | None = None,
    skip_corrupt: bool = False,
) -> Plan:
    """Colored MNIST, Corrupted CIFAR-10 or BFFHQ, as DFA offers them: images whose names say class and group.

    Layout: ``cmnist/0.5pct/{align,conflict}/<class>/<id>_<class>_<group>.png``, and ``valid`` and ``test`` of such
    names, flat or by class, within ``cmnist/0.5pct`` or beside it; without ``valid`` there is no validation. The counts
    of ``align`` and ``conflict`` that the KDE paper has are compared: Colored MNIST 54,509 + 491 (1 %), 54,014 + 986,
    52,551 + 2,449 (5 %), Corrupted CIFAR-10 44,527 + 442, 44,145 + 887, 42,820 + 2,242; a remark says where others
    are there.

    Args:
        root: folder (or archive) that holds it.
        kind: ``cmnist``, ``cifar10c`` or ``bffhq``.
        conflict: the folder of the training images: 0.5pct, 1pct, 2pct or 5pct.
        test: ``all`` images of ``test``, or those in ``conflict``, whose group is not their class's; by default what
            the published code of DFA and SelecMix tests on: conflicting ones of BFFHQ, all of the others.
        size: height and width in pixels; by default the images' own, and 64 of BFFHQ's.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or a folder missing or empty, naming it.
        ValueError: another word for ``kind`` or ``test``.
        RuntimeError: an image whose name does not say class and group, or that lies in another class's folder.
    """
    if kind not in KINDS:
        raise ValueError(
            f"kind of dfa-folder must be one of {', '.join(KINDS)}, not {kind!r}{did_you_mean(kind, KINDS)}"
        )
    if test not in (None, *_TESTS):
        raise ValueError(f"test of dfa-folder must be {' or '.join(_TESTS)}, or left out, not {test!r}")
    if size is not None and type(size) is not int:
        raise ValueError(f"size of dfa-folder must be a whole number, not {size!r}")
    about = KINDS[kind]
    title, wanted = f"DFA's {kind}", f"{conflict}/align and {conflict}/conflict"
    places = (".", kind, f"{kind}.zip", f"{kind}.tar")

    def is_there(tree: Tree) -> bool:
        others = KINDS.keys() - {kind}
        return tree.path.stem not in others and {"align", "conflict"} <= {*tree.folders(conflict)}

    tree = find(root, title, wanted, PAGE, places, is_there)
    parts = [_images(tree, f"{conflict}/{part}") for part in ("align", "conflict")]
    rows = {
        "train": _rows(tree, [*parts[0], *parts[1]], about),
        "test": _rows(tree, _held_out(tree, conflict, "test"), about),
    }
    validation = _held_out(tree, conflict, "valid")
    if validation:
        rows["validation"] = _rows(tree, validation, about)
    for name, images in (("align", parts[0]), ("conflict", parts[1]), ("test", rows["test"])):
        if not len(images):
            raise FileNotFoundError(f"{title}: no images in {name} of {tree.shown(conflict)}; offered at {PAGE}")
    if (test or about.test) == "conflict":
        rows["test"] = rows["test"].take(np.flatnonzero(rows["test"].labels != rows["test"].groups))
    return Plan(
        "dfa-folder",
        tree,
        **rows,
        class_names=about.class_names,
        group_names=about.group_names,
        recipe=Recipe(about.size if size is None else size, as_stored=True),
        mean=about.normalisation[0],
        std=about.normalisation[1],
        provenance={"builder": "dfa-folder"},
        remarks=_remarks(about.published.get(conflict), [len(part) for part in parts], rows["train"]),
        skip_corrupt=skip_corrupt,
    )


def _images(tree: Tree, folder: str) -> list[str]:
    """Images that lie in a folder, and those in its folders, one a class."""
    return tree.images(folder) + [name for below in tree.folders(folder) for name in tree.images(f"{folder}/{below}")]


def _held_out(tree: Tree, conflict: str, name: str) -> list[str]:
    return _images(tree, f"{conflict}/{name}") or _images(tree, name)


def _rows(tree: Tree, names: list[str], about: _Kind) -> Rows:
    numbers = np.empty((2, len(names)), np.int64)
    known = {"class": len(about.class_names), "group": len(about.group_names)}
    for row, name in enumerate(names):
        path = PurePosixPath(name)
        parts = path.stem.split("_")
        if len(parts) < 3 or not all(part.isdecimal() for part in parts[-2:]):
            raise RuntimeError(f"{tree.shown(name)} is not named <id>_<class>_<group>.png")
        label, group = int(parts[-2]), int(parts[-1])
        for (what, count), number in zip(known.items(), (label, group), strict=True):
            if number >= count:
                raise RuntimeError(f"{tree.shown(name)} is of {what} {number}, and there are 0 to {count - 1}")
        if path.parent.name.isdecimal() and int(path.parent.name) != label:
            raise RuntimeError(f"{tree.shown(name)} is of class {label} by its name, not by its folder")
        numbers[:, row] = label, group
    return Rows(names, *numbers)


def _remarks(published: tuple[int, int] | None, found: list[int], train: Rows) -> tuple[str, ...]:
    remarks = []
    if published not in (None, tuple(found)):
        there, offered = (f"{align:,} + {conflict:,}" for align, conflict in (found, published))
        remarks.append(f"{there} images in align and conflict; published are {offered}")
    aligned = train.labels == train.groups
    for folder, stray in (("align", ~aligned[: found[0]]), ("conflict", aligned[found[0] :])):
        if stray.any():
            remarks.append(f"{stray.sum():,} images in {folder} are not so by their names, which count")
    return tuple(remarks)
