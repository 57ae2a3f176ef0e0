"""SpuCo Animals: birds on land and water, dogs indoors and outdoors (Joshi et al., 2023).

Pixels are as stored, as published code has them: not turned by EXIF orientation, nothing laid on white.
"""

import numpy as np

from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.tree import find
from fastdd.data.sets.balance import drop_to_ratio

PAGE = "https://github.com/BigML-CS-UCLA/SpuCo"
_PARTS = (
    ("spuco_birds", ("landbirds", "waterbirds"), ("land", "water")),
    ("spuco_dogs", ("small_dogs", "big_dogs"), ("indoor", "outdoor")),
)
_CLASSES = ("landbirds", "waterbirds", "small dogs", "big dogs")
_GROUPS = ("land", "water", "indoors", "outdoors")


def spuco_animals(
    root, *, bias_ratio: float | None = None, size: int = 128, seed: int = 0, skip_corrupt: bool = False
) -> Plan:
    """SpuCo Animals: 4 classes, each in two of 4 surroundings, 10,000 + 500 images in training, 500 + 500 in test.

    Layout: ``spuco_birds/{train,test}/{landbirds,waterbirds}/{land,water}`` and
    ``spuco_dogs/{train,test}/{small_dogs,big_dogs}/{indoor,outdoor}``. Its ``val`` is not used. The majority groups are
    95.2 % of their classes; From Fake to Real, which gives no size of images, drops images for 95, 97, 99 and 99.9 %.

    Args:
        root: folder that holds both.
        bias_ratio: share of each class's aligned group in training, 0..1, reached by dropping images
            (:func:`fastdd.data.sets.balance.drop_to_ratio`); by default nothing is dropped.
        size: height and width in pixels.
        seed: of numpy's RandomState, for what is dropped.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or a folder missing or empty, naming it.
    """
    wanted = "spuco_birds/train/landbirds/land (and so on) and spuco_dogs"
    places = (".", "spuco", "spuco_animals")
    tree = find(
        root, "SpuCo Animals", wanted, PAGE, places, lambda tree: {"spuco_birds", "spuco_dogs"} <= {*tree.folders()}
    )
    splits = {}
    for split in ("train", "test"):
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
        splits[split] = Rows(names, np.array(labels), np.array(groups))
    train = splits["train"]
    if bias_ratio is not None:
        train = train.take(drop_to_ratio(train.labels, train.groups, bias_ratio, np.random.RandomState(seed)))
    return Plan(
        "spuco-animals",
        tree,
        train,
        splits["test"],
        _CLASSES,
        _GROUPS,
        Recipe(size, as_stored=True),
        provenance={"builder": "spuco-animals"},
        skip_corrupt=skip_corrupt,
    )
