"""UTKFace: faces with age, gender and race in their names, as FairDD and From Fake to Real have them.

Pixels are as stored, as published code has them. FairDD's test images are drawn from sets in the order of the file
system, which can't be repeated: here numpy's RandomState draws from sorted rows, as many of every cell.
"""

import os
import re

import numpy as np

from fastdd.core.text import did_you_mean
from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.tree import Tree, find
from fastdd.data.sets import ffr
from fastdd.data.sets.balance import dropped, even_cells
from fastdd.data.sets.faces import SEED

PAGE = "https://susanqq.github.io/UTKFace"
# Of every class and group (FairDD).
_TESTED = 100
_NAME = re.compile(r"(\d+)_([01])_([0-4])_")
_NAMES = {
    "age": ("below 20", "20 to 39", "40 and above"),
    "gender": ("male", "female"),
    "race": ("White", "Black", "Asian", "Indian"),
}
# Groups of From Fake to Real's code, which splits otherwise, too; the stream of the order in which it is cut.
_FFR_AGES, _ORDER = "age_ffr", 2
_NORMALISATION = (
    (0.6135867892520825, 0.4722519020075052, 0.4070309090621279),
    (0.25492949231398077, 0.23054187352850616, 0.22834804939251105),
)


def utkface(
    root,
    *,
    target: str = "age",
    protected: str = "race",
    split_files: str | os.PathLike | None = None,
    bias_ratio: float | None = None,
    size: int = 64,
    seed: int = SEED,
    skip_corrupt: bool = False,
) -> Plan:
    """UTKFace: age, gender and race in the file names (FairDD: three ages by four races, 20,813 + 1,200).

    Layout: ``UTKFace/<age>_<gender>_<race>_<date>.jpg``, 200x200 (aligned and cropped). Race 4 ("others") and names
    that are none of these are left out, and told. Test: of every class and group 100 images, or as many as the smallest
    has; the rest trains. From Fake to Real has gender as the class and age as the group, without saying which ages;
    ``protected="age_ffr"`` is what its code does: old from 20 to 50, young up to 5, all races, others left out, and
    splits of its own, with validation (:func:`fastdd.data.sets.ffr.three_splits`, here of the names in an order that is
    drawn): as published 7,404 images for training at 0.9 and 6,733 at 0.99, 936 and 863 for validation, 1,657 for the
    test.

    Args:
        root: folder that holds it.
        target, protected: of age (below 20, 20 to 39, 40 and above), gender and race; ``age_ffr`` with
            ``target="gender"``.
        split_files, bias_ratio: as of :func:`~fastdd.data.sets.faces.celeba_hq`, ``age_ffr`` being its ``split="ffr"``.
        size: height and width in pixels; published: 64.
        seed: of numpy's RandomState, for the test images, the order and what is dropped.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or no such images.
        ValueError: another word for ``target`` or ``protected``, or the same twice; ``age_ffr`` with another target or
            with a ``bias_ratio`` below 0.9.
    """
    for option, value, words in (("target", target, [*_NAMES]), ("protected", protected, [*_NAMES, _FFR_AGES])):
        if value not in words:
            raise ValueError(
                f"{option} of utkface must be one of {', '.join(words)}, not {value!r}{did_you_mean(value, words)}"
            )
    if target == protected:
        raise ValueError(f"target and protected of utkface are both {target!r}: they must differ")
    places = (".", "UTKFace", "utkface", "UTKface")
    tree = find(root, "UTKFace", "UTKFace/*.jpg", PAGE, places, lambda tree: any(map(_NAME.match, tree.images(""))))
    if protected == _FFR_AGES:
        recipe = Recipe(size, stretch=True, as_stored=True)
        return _as_ffr(tree, target, split_files, bias_ratio, recipe, seed, skip_corrupt)
    if split_files is not None:
        raise ValueError(f"split_files of utkface go with protected={_FFR_AGES}")
    names, annotations, left_out = [], [], 0
    for name in tree.images(""):
        match = _NAME.match(name)
        if match is None or match[3] == "4":
            left_out += 1
            continue
        age = int(match[1])
        names.append(name)
        annotations.append(((age >= 20) + (age >= 40), int(match[2]), int(match[3])))
    columns = dict(zip(_NAMES, np.array(annotations, np.int64).reshape(-1, 3).T, strict=True))
    if not names:
        raise FileNotFoundError(f"{tree.path} has images of race 4 only")
    rows = Rows(names, columns[target], columns[protected])
    tested = even_cells(rows.labels, rows.groups, np.random.RandomState(seed), most=_TESTED)
    train = rows.take(np.delete(np.arange(len(rows)), tested))
    return Plan(
        "utkface",
        tree,
        dropped(train, bias_ratio, seed),
        rows.take(tested),
        _NAMES[target],
        _NAMES[protected],
        Recipe(size, stretch=True, as_stored=True),
        *_NORMALISATION,
        {"builder": "utkface"},
        (f"{left_out} images of race 4 or with another name are left out",) if left_out else (),
        skip_corrupt,
    )


def _as_ffr(
    tree: Tree, target: str, split_files, bias_ratio: float | None, recipe: Recipe, seed: int, skip_corrupt: bool
) -> Plan:
    if target != "gender":
        raise ValueError(f"protected={_FFR_AGES} of utkface goes with target=gender, not {target}")
    ffr.check_level("utkface", bias_ratio, ffr.FIRST_LEVEL)
    names = tree.images("")
    labels, groups = np.full(len(names), -1), np.zeros(len(names), np.int64)
    for row, name in enumerate(names):
        match = _NAME.match(name)
        # Of the published code: four parts, and of the ages two.
        if match is None or name.count("_") != 3 or not (20 <= (age := int(match[1])) <= 50 or age <= 5):
            continue
        labels[row], groups[row] = int(match[2]), int(age <= 5)
    left_out = int((labels < 0).sum())
    rows, files = Rows(names, labels, groups), []
    if split_files is not None:
        splits, files = ffr.from_files(rows, split_files, "utk_face", bias_ratio)
    else:
        # Sorted, names are sorted by age: the last tenth has hardly anyone from 20 to 50.
        order = np.random.RandomState((seed, _ORDER)).permutation(len(names))
        splits = ffr.three_splits(rows.take(order), bias_ratio, seed)
    return Plan(
        "utkface",
        tree,
        **splits,
        class_names=_NAMES["gender"],
        group_names=("old", "young"),
        recipe=recipe,
        mean=_NORMALISATION[0],
        std=_NORMALISATION[1],
        provenance={"builder": "utkface", "files": files},
        remarks=(f"{left_out} images of other ages or with another name are left out",) if left_out else (),
        skip_corrupt=skip_corrupt,
    )
