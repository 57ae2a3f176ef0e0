"""SpuCo Animals: birds on land and water, dogs indoors and outdoors (Joshi et al., 2023).

Pixels are as stored, as published code has them: not turned by EXIF orientation, nothing laid on white.
"""

import os

import numpy as np

from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.tree import Tree, find
from fastdd.data.sets import ffr
from fastdd.data.sets.balance import dropped

PAGE = "https://github.com/BigML-CS-UCLA/SpuCo"
_PARTS = (
    ("spuco_birds", ("landbirds", "waterbirds"), ("land", "water")),
    ("spuco_dogs", ("small_dogs", "big_dogs"), ("indoor", "outdoor")),
)
_CLASSES = ("landbirds", "waterbirds", "small dogs", "big dogs")
_GROUPS = ("land", "water", "indoors", "outdoors")


def spuco_animals(
    root,
    *,
    split: str | None = None,
    split_files: str | os.PathLike | None = None,
    bias_ratio: float | None = None,
    size: int = 128,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Plan:
    """SpuCo Animals: 4 classes, each in two of 4 surroundings, 10,000 + 500 images in training, 500 + 500 in test.

    Layout: ``spuco_birds/{train,val,test}/{landbirds,waterbirds}/{land,water}`` and
    ``spuco_dogs/{train,val,test}/{small_dogs,big_dogs}/{indoor,outdoor}``. ``val``, 500 + 25 images a class, is for
    validation; without it there is none. The majority groups are 95.2 % of their classes; From Fake to Real, which
    gives no size of images, drops images for 95, 97, 99 and 99.9 %.

    Args:
        root: folder that holds both.
        split: ``ffr`` for From Fake to Real's way of dropping images, training and validation alike
            (:func:`fastdd.data.sets.ffr.dropped`; of the 25 of a class in validation it leaves 16 at 0.97 and 10 from
            0.99 on); by default validation stays as it is.
        split_files: with ``ffr``, the folder ``data`` of its repository, whose pickled files (read without running what
            they hold) name the very images of the paper (:func:`fastdd.data.sets.ffr.from_files`).
        bias_ratio: share of each class's aligned group in training, 0..1, reached by dropping images
            (:func:`fastdd.data.sets.balance.drop_to_ratio`); by default nothing is dropped. From 0.95 with ``ffr``.
        size: height and width in pixels.
        seed: of numpy's RandomState, for what is dropped.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or a folder missing or empty, naming it.
        ValueError: another word for ``split``; a ``bias_ratio`` below 0.95 with ``ffr``.
    """
    if split not in (None, "ffr"):
        raise ValueError(f"split of spuco-animals must be ffr, or left out, not {split!r}")
    if split_files is not None and split is None:
        raise ValueError("split_files of spuco-animals go with split=ffr")
    if split == "ffr":
        ffr.check_level("spuco-animals", bias_ratio, 0.95)
    wanted = "spuco_birds/train/landbirds/land (and so on) and spuco_dogs"
    places = (".", "spuco", "spuco_animals")
    tree = find(
        root, "SpuCo Animals", wanted, PAGE, places, lambda tree: {"spuco_birds", "spuco_dogs"} <= {*tree.folders()}
    )
    folders = {"train": "train", "test": "test"}
    if any("val" in tree.folders(part) for part, _, _ in _PARTS):
        folders["validation"] = "val"
    splits = {name: _rows(tree, folder) for name, folder in folders.items()}
    files = []
    if split_files is not None:
        whole = Rows(
            [name for rows in splits.values() for name in rows.names],
            *(np.concatenate([getattr(rows, what) for rows in splits.values()]) for what in ("labels", "groups")),
        )
        splits, files = ffr.from_files(whole, split_files, "spuco_animals", bias_ratio, "val")
    elif split == "ffr":
        splits = {name: ffr.dropped(rows, name, bias_ratio, seed) for name, rows in splits.items()}
    else:
        splits["train"] = dropped(splits["train"], bias_ratio, seed)
    return Plan(
        "spuco-animals",
        tree,
        **splits,
        class_names=_CLASSES,
        group_names=_GROUPS,
        recipe=Recipe(size, as_stored=True),
        provenance={"builder": "spuco-animals"} | ({"files": files} if files else {}),
        skip_corrupt=skip_corrupt,
    )


def _rows(tree: Tree, split: str) -> Rows:
    """The images of a folder of splits, class by class and group by group."""
    names, labels, groups = [], [], []
    for first, (part, classes, surroundings) in zip((0, 2), _PARTS, strict=True):
        for label, class_name in enumerate(classes, first):
            for group, surrounding in enumerate(surroundings, first):
                folder = f"{part}/{split}/{class_name}/{surrounding}"
                images = tree.images(folder)
                if not images:
                    raise FileNotFoundError(f"SpuCo Animals: no images in {tree.shown(folder)}; offered at {PAGE}")
                names += images
                labels += [label] * len(images)
                groups += [group] * len(images)
    return Rows(names, np.array(labels), np.array(groups))
