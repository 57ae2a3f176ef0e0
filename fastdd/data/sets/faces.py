"""Faces with a protected attribute: CelebA, CelebA-HQ, BFFHQ.

Crops, sizes, constants and counts are FairDD's (https://github.com/zqhang/FairDD, Table 8) where it has the set, and
From Fake to Real's otherwise. FairDD's test images are drawn by Python's generator from sets in the order of the file
system, which can't be repeated: here numpy's RandomState draws from sorted rows, as many of every cell.
Pixels are as stored, as published code has them: not turned by EXIF orientation, nothing laid on white.
"""

import os
from pathlib import PurePosixPath

import numpy as np

from fastdd.core.text import did_you_mean
from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.readers import CIFAR10_NORMALISATION, describe
from fastdd.data.files.tree import Tree, find
from fastdd.data.sets import ffr
from fastdd.data.sets.balance import dropped, even_cells

# FairDD builds its data sets with it.
SEED = 30
CELEBA_PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
CELEBA_HQ_PAGE = "https://github.com/switchablenorms/CelebAMask-HQ"
BFFHQ_PAGE = "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled"
_CELEBA_MD5 = {
    "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
    "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
}
_HQ_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
# The first image of CelebA's validation and of its test split, counted from 0.
_CELEBA_VALID, _CELEBA_TEST = 162_770, 182_637


def celeba(
    root,
    *,
    target: str = "Attractive",
    protected: str = "Male",
    size: int = 64,
    seed: int = SEED,
    skip_corrupt: bool = False,
) -> Plan:
    """CelebA: any of its 40 attributes as the class, any as the group (FairDD: Attractive and Male, 162,770 + 7,656).

    Layout: ``celeba/img_align_celeba/*.jpg`` (178x218), ``list_attr_celeba.txt`` and ``list_eval_partition.txt``. Train
    is the official training split; test the official test split, each class and group cut down to the smallest that has
    any (FairDD). The middle 178x178 is resized to ``size``. Labels: 0 without the attribute, 1 with it.

    Args:
        root: folder that holds it.
        target: attribute that is the class; FairDD's appendix also has Young, Big_Nose and Blond_Hair.
        protected: attribute that is the group; several, joined by ``+``, for their intersections (appendix O: Male
            with Wearing_Necktie or Pale_Skin): 2**k groups, the first attribute counting most.
        size: height and width in pixels; published: 64 (32 and 96 for timings).
        seed: of numpy's RandomState, for what is cut down.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or files missing, naming them.
        ValueError: no such attribute; a class or group of which there is nothing.
        RuntimeError: annotations that are damaged.
    """
    wanted = "img_align_celeba/, list_attr_celeba.txt and list_eval_partition.txt"
    places = (".", "celeba", "CelebA")
    tree = find(root, "CelebA", wanted, CELEBA_PAGE, places, lambda tree: tree.has("list_attr_celeba.txt"))
    names, attributes, described = _celeba_attributes(tree, "list_attr_celeba.txt")
    content = tree.read("list_eval_partition.txt")
    partition = {}
    for number, line in enumerate(tree.text("list_eval_partition.txt").splitlines(), 1):
        parts = line.split()
        if len(parts) != 2 or parts[1] not in ("0", "1", "2"):
            raise RuntimeError(f"{tree.shown('list_eval_partition.txt')}, line {number}: not an image and 0, 1 or 2")
        partition[parts[0]] = int(parts[1])
    folder = "img_align_celeba"
    images = set(tree.images(folder))
    where = Tree(tree.path)
    if not images and tree.has("img_align_celeba.zip"):
        where = Tree(tree.path / "img_align_celeba.zip")
        images = set(where.images(folder))
    for name in names:
        if name not in partition:
            raise RuntimeError(f"{tree.shown('list_eval_partition.txt')} has no line for {name}")
        if partition[name] != 1 and f"{folder}/{name}" not in images:
            raise FileNotFoundError(f"CelebA: {where.shown(f'{folder}/{name}')} is missing; offered at {CELEBA_PAGE}")
    split = np.array([partition[name] for name in names])
    file = "list_eval_partition.txt"
    files = [described, describe(file, content, _CELEBA_MD5[file])]
    labels, class_names, groups, group_names = _attributes(
        attributes, target, protected, tree.shown("list_attr_celeba.txt")
    )
    paths = [f"{folder}/{name}" for name in names]
    rows = Rows(paths, labels, groups)
    train, test = (rows.take(np.flatnonzero(split == part)) for part in (0, 2))
    if len(test):
        test = test.take(even_cells(test.labels, test.groups, np.random.RandomState(seed)))
    return Plan(
        "celeba",
        where,
        train,
        test,
        class_names,
        group_names,
        Recipe(size, crop=178, as_stored=True),
        (0.5063, 0.4258, 0.3832),
        (0.2676, 0.2453, 0.2410),
        {"builder": "celeba", "files": files},
        skip_corrupt=skip_corrupt,
    )


def celeba_hq(
    root,
    *,
    target: str = "Smiling",
    protected: str = "Male",
    split: str | None = None,
    split_files: str | os.PathLike | None = None,
    bias_ratio: float | None = None,
    size: int = 64,
    seed: int = SEED,
    skip_corrupt: bool = False,
) -> Plan:
    """CelebA-HQ: 30,000 faces of CelebA at 1024x1024 with its attributes (From Fake to Real: Smiling and Male).

    Layout, CelebAMask-HQ's: ``CelebA-HQ-img/<n>.jpg``, ``CelebAMask-HQ-attribute-anno.txt`` and
    ``CelebA-HQ-to-CelebA-mapping.txt``; splits are CelebA's, by the image that each was made of (24,183 and 2,824; the
    2,993 for validation are not used). The paper gives no size of images, no way of dropping images and no test set:
    here they are resized to ``size``, dropped by :func:`fastdd.data.sets.balance.drop_to_ratio`, and the test set is
    whole. ``split="ffr"`` has the splits of its code instead, with validation
    (:func:`fastdd.data.sets.ffr.three_splits`): as published 14,590 images for training at 0.9 and 13,265 at 0.99,
    1,837 and 1,675 for validation, 3,000 for the test, in numbers that depend on the order of its files.

    Args:
        root: folder that holds it.
        target, protected: as of :func:`celeba`.
        split: ``ffr``, or None for CelebA's.
        split_files: with ``ffr``, the folder ``data`` of its repository, whose pickled files (read without running what
            they hold) name the very images of the paper (:func:`fastdd.data.sets.ffr.from_files`).
        bias_ratio: share of each class's aligned group in training, 0..1, reached by dropping images; the paper has
            0.95, 0.97, 0.99 and 0.999; by default nothing is dropped. With ``split="ffr"`` from 0.9, which is its
            default, and of validation likewise.
        size: height and width in pixels.
        seed: of numpy's RandomState, for what is dropped.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError, RuntimeError: as :func:`celeba`.
        ValueError: as it; another word for ``split``, and with ``ffr`` several attributes in ``protected`` or a
            ``bias_ratio`` below 0.9.
    """
    if split not in (None, "ffr"):
        raise ValueError(f"split of celeba-hq must be ffr, or left out for CelebA's splits, not {split!r}")
    if split_files is not None and split is None:
        raise ValueError("split_files of celeba-hq go with split=ffr")
    if split == "ffr":
        ffr.check_level("celeba-hq", bias_ratio, ffr.FIRST_LEVEL)
        if "+" in protected:
            raise ValueError(f"split=ffr of celeba-hq needs one attribute in protected, not {protected!r}")
    annotations = "CelebAMask-HQ-attribute-anno.txt"
    wanted = f"CelebA-HQ-img/, {annotations} and {_HQ_MAPPING}"
    places = (".", "CelebAMask-HQ", "celeba-hq", "celeba_hq")
    tree = find(root, "CelebA-HQ", wanted, CELEBA_HQ_PAGE, places, lambda tree: tree.has(annotations))
    names, attributes, described = _celeba_attributes(tree, annotations)
    files = [described]
    if split is None:
        number, described = _numbers_in_celeba(tree, names)
        files.append(described)
    images = set(tree.images("CelebA-HQ-img"))
    for name in names:
        if f"CelebA-HQ-img/{name}" not in images:
            shown = tree.shown(f"CelebA-HQ-img/{name}")
            raise FileNotFoundError(f"CelebA-HQ: {shown} is missing; offered at {CELEBA_HQ_PAGE}")
    labels, class_names, groups, group_names = _attributes(attributes, target, protected, tree.shown(annotations))
    rows = Rows([f"CelebA-HQ-img/{name}" for name in names], labels, groups)
    if split is None:
        train = rows.take(np.flatnonzero(number < _CELEBA_VALID))
        splits = {"train": dropped(train, bias_ratio, seed), "test": rows.take(np.flatnonzero(number >= _CELEBA_TEST))}
    elif split_files is not None:
        splits, described_files = ffr.from_files(rows, split_files, f"celeba_{class_names[1]}", bias_ratio)
        files += described_files
    else:
        by_name = np.array(sorted(range(len(names)), key=names.__getitem__))
        splits = ffr.three_splits(rows.take(by_name), bias_ratio, seed)
    return Plan(
        "celeba-hq",
        tree,
        **splits,
        class_names=class_names,
        group_names=group_names,
        recipe=Recipe(size, as_stored=True),
        provenance={"builder": "celeba-hq", "files": files},
        skip_corrupt=skip_corrupt,
    )


def _numbers_in_celeba(tree: Tree, names: list[str]) -> tuple[np.ndarray, dict]:
    """Of CelebA-HQ's images, the number of the one that each was made of, and the mapping's provenance."""
    original = {}
    for number, line in enumerate(tree.text(_HQ_MAPPING).splitlines()[1:], 2):
        parts = line.split()
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            raise RuntimeError(
                f"{tree.shown(_HQ_MAPPING)}, line {number}: not an index, CelebA's index and CelebA's file"
            )
        original[parts[0]] = int(parts[1])
    for name in names:
        if _stem(name) not in original:
            raise RuntimeError(f"{tree.shown(_HQ_MAPPING)} has no line for {name}")
    return np.array([original[_stem(name)] for name in names]), describe(_HQ_MAPPING, tree.read(_HQ_MAPPING))


def bffhq(root, *, conflict: str = "0.5pct", size: int = 64, skip_corrupt: bool = False) -> Plan:
    """BFFHQ: age (young, old) by gender, 99.5 % of the young women and of the old men (19,200 + 1,000).

    Layout: ``bffhq/0.5pct/{align,conflict}/<class>/*_<age>_<gender>.png`` and ``bffhq/test/*_<age>_<gender>.png``, of
    which FairDD tests on all; it normalises by CIFAR-10's constants. Ages and genders are 0 and 1; their names here
    follow the paper (aligned: young women, old men), as the files do not say.

    Args:
        root: folder that holds it.
        conflict: the folder of the training images: 0.5pct, 1pct, 2pct or 5pct.
        size: height and width in pixels; published: 64.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or no such folders.
        RuntimeError: an image whose name does not say age and gender.
    """
    wanted = f"{conflict}/align, {conflict}/conflict and test"
    places = (".", "bffhq", "BFFHQ")
    tree = find(root, "BFFHQ", wanted, BFFHQ_PAGE, places, lambda tree: {conflict, "test"} <= set(tree.folders()))
    train = [
        name
        for part in ("align", "conflict")
        for folder in tree.folders(f"{conflict}/{part}")
        for name in tree.images(f"{conflict}/{part}/{folder}")
    ]
    splits = []
    for names in (train, tree.images("test")):
        annotations = []
        for name in names:
            parts = _stem(name).split("_")
            if len(parts) < 3 or not {*parts[-2:]} <= {"0", "1"}:
                raise RuntimeError(f"{tree.shown(name)} is not named *_<age>_<gender>.png, each 0 or 1")
            annotations.append((int(parts[-2]), int(parts[-1])))
        splits.append(Rows(names, *np.array(annotations, np.int64).reshape(-1, 2).T.copy()))
    return Plan(
        "bffhq",
        tree,
        *splits,
        ("young", "old"),
        ("female", "male"),
        Recipe(size, as_stored=True),
        *CIFAR10_NORMALISATION,
        {"builder": "bffhq"},
        skip_corrupt=skip_corrupt,
    )


def _celeba_attributes(tree: Tree, file: str) -> tuple[list[str], dict[str, np.ndarray], dict]:
    """Names of the images, 0 or 1 of each attribute, and the file's provenance."""
    content = tree.read(file)
    lines = tree.text(file).splitlines()
    header = lines[1].split() if len(lines) > 1 else []
    names, values = [], []
    for number, line in enumerate(lines[2:], 3):
        name, *row = line.split() or [""]
        if len(row) != len(header) or not {*row} <= {"-1", "1"}:
            raise RuntimeError(f"{tree.shown(file)}, line {number}: not an image and {len(header)} times -1 or 1")
        names.append(name)
        values.append(row)
    if not lines or not lines[0].strip().isdecimal() or int(lines[0]) != len(names):
        raise RuntimeError(f"{tree.shown(file)} is damaged: it has {len(names)} images, its first line says otherwise")
    table = np.array(values) == "1"
    return (
        names,
        {name: table[:, column].astype(np.int64) for column, name in enumerate(header)},
        describe(file, content, _CELEBA_MD5.get(file)),
    )


def _attributes(attributes: dict[str, np.ndarray], target: str, protected: str, file: str):
    """Labels, class names, groups and group names of attributes by name."""
    by_lower = {name.lower(): name for name in attributes}
    asked = []
    for name in (target, *protected.split("+")):
        if name.strip().lower() not in by_lower:
            hint = did_you_mean(name.strip(), attributes)
            raise ValueError(f"no attribute {name.strip()!r}{hint} (one of: {', '.join(attributes)}, in {file})")
        asked.append(by_lower[name.strip().lower()])
    if len(set(asked)) < len(asked):
        raise ValueError(f"target {target!r} and protected {protected!r} name an attribute twice")
    groups, group_names = 0, ("",)
    for name in asked[1:]:
        groups = groups * 2 + attributes[name]
        group_names = tuple(
            f"{so_far}{', ' if so_far else ''}{word}" for so_far in group_names for word in _words(name)
        )
    return attributes[asked[0]], _words(asked[0]), groups, group_names


def _words(attribute: str) -> tuple[str, str]:
    return f"not {attribute}", attribute


def _stem(name: str) -> str:
    """The last part of a name, without its suffix."""
    return PurePosixPath(name).stem
