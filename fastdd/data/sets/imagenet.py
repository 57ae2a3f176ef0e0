"""Tiny-ImageNet and the six ImageNet subsets of trajectory matching, as published and gray or in colour ("-S").

Published code (MTT, DSA) normalises all of them by ImageNet's constants, resizes the shorter side and cuts out the
middle. FairDD (section 6.3) biases them like CIFAR10-S (:func:`gray_or_colour`).
Pixels are as stored, as published code has them: not turned by EXIF orientation, nothing laid on white.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.readers import describe
from fastdd.data.files.tree import Tree, find

TINY_CLASSES = 200
TINY_PAGE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
IMAGENET_PAGE = "https://www.image-net.org/challenges/LSVRC/2012"
# What Tiny-ImageNet and the ImageNet subsets are normalised by in published code.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BIAS_RATIO = 0.9
# That of CIFAR10-S.
SEED = 0
_TINY_PLACES = (".", "tiny-imagenet-200", "tiny-imagenet", "tiny_imagenet", "tiny-imagenet-200.zip")
_IMAGENET_PLACES = (
    *(".", "imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "CLS-LOC"),
    *("imagenette2", "imagenette2-320", "imagenette2-160", "imagewoof2", "imagewoof2-320", "imagewoof2-160"),
)

# By WordNet id, in the order of the published labels (MTT; there they are numbers of ImageNet's 1,000 classes).
SUBSETS = {
    "imagenette": {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
    },
    "imagewoof": {
        "n02096294": "Australian terrier",
        "n02093754": "Border terrier",
        "n02111889": "Samoyed",
        "n02088364": "beagle",
        "n02086240": "Shih-Tzu",
        "n02089973": "English foxhound",
        "n02087394": "Rhodesian ridgeback",
        "n02115641": "dingo",
        "n02099601": "golden retriever",
        "n02105641": "Old English sheepdog",
    },
    "imagefruit": {
        "n07753275": "pineapple",
        "n07753592": "banana",
        "n07745940": "strawberry",
        "n07747607": "orange",
        "n07749582": "lemon",
        "n07768694": "pomegranate",
        "n07753113": "fig",
        "n07720875": "bell pepper",
        "n07718472": "cucumber",
        "n07742313": "Granny Smith",
    },
    "imagemeow": {
        "n02123045": "tabby",
        "n02123159": "tiger cat",
        "n02123394": "Persian cat",
        "n02123597": "Siamese cat",
        "n02124075": "Egyptian cat",
        "n02129165": "lion",
        "n02129604": "tiger",
        "n02128925": "jaguar",
        "n02128757": "snow leopard",
        "n02127052": "lynx",
    },
    "imagesquawk": {
        "n01806143": "peacock",
        "n02007558": "flamingo",
        "n01818515": "macaw",
        "n02051845": "pelican",
        "n02056570": "king penguin",
        "n01614925": "bald eagle",
        "n01843383": "toucan",
        "n01518878": "ostrich",
        "n01860187": "black swan",
        "n01819313": "sulphur-crested cockatoo",
    },
    "imageyellow": {
        "n02206856": "bee",
        "n12057211": "yellow lady's slipper",
        "n07753592": "banana",
        "n07749582": "lemon",
        "n12144580": "corn",
        "n04146614": "school bus",
        "n03530642": "honeycomb",
        "n02129165": "lion",
        "n01773157": "black and gold garden spider",
        "n01531178": "goldfinch",
    },
}


def tiny_imagenet(root, *, size: int = 64, skip_corrupt: bool = False) -> Plan:
    """Tiny-ImageNet: 200 classes, 500 + 50 images of 64x64 each (Stanford, CS231n).

    Layout: ``tiny-imagenet-200/train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` with ``val/val_annotations.txt``
    (name, wnid and box a line) or sorted into ``val/images/<wnid>``, ``words.txt`` (wnid and names a line); unpacked or
    ``tiny-imagenet-200.zip``. The unlabelled test images are not used. Classes are those below ``train``, sorted by
    wnid; fewer than 200 will do, and are told.

    Args:
        root: folder that holds it.
        size: height and width in pixels.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or files missing, naming them.
        ValueError: a class without images.
    """
    wanted = "tiny-imagenet-200 (train/<wnid>/images, val/images, val/val_annotations.txt)"
    tree = find(root, "Tiny-ImageNet", wanted, TINY_PAGE, _TINY_PLACES, lambda tree: len(_wnids(tree)) > 0)
    top, wnids = _top(tree), _wnids(tree)
    files = []
    names = dict.fromkeys(wnids)
    if tree.has(f"{top}words.txt"):
        content = tree.read(f"{top}words.txt")
        files.append(describe("words.txt", content))
        lines = (line.partition("\t") for line in tree.text(f"{top}words.txt").splitlines())
        names |= {wnid: words.split(",")[0].strip() for wnid, _, words in lines if wnid in names}
    train = [tree.images(f"{top}train/{wnid}/images") for wnid in wnids]
    for wnid, images in zip(wnids, train, strict=True):
        if not images:
            raise ValueError(f"{tree.shown(f'{top}train/{wnid}/images')} has no images")
    if tree.has(f"{top}val/val_annotations.txt") and tree.images(f"{top}val/images"):
        content = tree.read(f"{top}val/val_annotations.txt")
        files.append(describe("val_annotations.txt", content))
        test = _annotated(tree, f"{top}val/", tree.text(f"{top}val/val_annotations.txt"), wnids)
    else:
        test = [tree.images(f"{top}val/images/{wnid}") for wnid in wnids]
    for wnid, images in zip(wnids, test, strict=True):
        if not images:
            raise FileNotFoundError(f"{tree.shown(f'{top}val')} has no images of class {wnid}")
    remarks = () if len(wnids) == TINY_CLASSES else (f"{len(wnids)} of the {TINY_CLASSES} classes",)
    return Plan(
        "tiny-imagenet",
        tree,
        _rows(train),
        _rows(test),
        tuple(names[wnid] or wnid for wnid in wnids),
        ("all",),
        Recipe(size, as_stored=True),
        IMAGENET_MEAN,
        IMAGENET_STD,
        {"builder": "tiny-imagenet", "files": files, "wnids": wnids},
        remarks,
        skip_corrupt,
    )


def gray_or_colour(plan: Plan, name: str, bias_ratio: float, seed: int) -> Plan:
    """The plan's images, those of the first half of the classes mostly gray, the others mostly in colour: "-S".

    As CIFAR10-S (:func:`fastdd.data.sets.builders.cifar10_s`), which FairDD's section 6.3 says its Tiny-ImageNet-S and
    ImageNet Subset-S follow; it publishes no code of them. Of a class's n training images round(n * ``bias_ratio``) are
    in the majority group: gray (group 0) in the first half of the classes, colour (group 1) in the others; which, a
    permutation of the class's images says, drawn class by class from numpy's RandomState(``seed``). Test: every image
    in gray, then every image in colour. Images are resized first, then turned gray. The order is that of the classes.
    """
    random = np.random.RandomState(seed)
    groups = np.ones(len(plan.train), np.int64)
    half = len(plan.class_names) // 2
    for label in range(len(plan.class_names)):
        rows = np.flatnonzero(plan.train.labels == label)
        random.shuffle(rows)
        majority = round(len(rows) * bias_ratio)
        groups[rows[: majority if label < half else len(rows) - majority]] = 0
    test = plan.test
    return replace(
        plan,
        name=name,
        train=replace(plan.train, groups=groups, gray=groups == 0),
        test=Rows(
            test.names * 2,
            np.tile(test.labels, 2),
            np.repeat(np.arange(2), len(test)),
            np.repeat([True, False], len(test)),
        ),
        group_names=("gray", "colour"),
        mean=None,
        std=None,
        provenance=plan.provenance | {"builder": name},
    )


def tiny_imagenet_s(
    root, *, bias_ratio: float = BIAS_RATIO, seed: int = SEED, size: int = 64, skip_corrupt: bool = False
) -> Plan:
    """Tiny-ImageNet-S: the first half of the classes mostly gray, the others mostly in colour.

    See :func:`tiny_imagenet`, and :func:`gray_or_colour` for the bias. With fewer than 200
    classes, the halves are those of the classes that are there.
    """
    plan = tiny_imagenet(root, size=size, skip_corrupt=skip_corrupt)
    return gray_or_colour(plan, "tiny-imagenet-s", bias_ratio, seed)


def imagenet_subset(name: str, root, size: int, skip_corrupt: bool) -> Plan:
    """Ten classes of ImageNet (:data:`SUBSETS`): its training images, and its validation images as the test set.

    Layout: ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG`` (the validation images sorted into folders), of ImageNet
    or of a part of it that has the ten classes, such as fastai's Imagenette (whose splits are its own).

    Args:
        name: of the subset.
        root: folder that holds them.
        size: height and width in pixels; published: 128.
        skip_corrupt: leave out images that can't be decoded.

    Raises:
        FileNotFoundError: no root, or a class missing, naming it.
    """
    classes = SUBSETS[name]
    wanted = "train/<wnid> and val/<wnid>, ImageNet's folders,"

    def find_with(enough: Callable[[set[str]], bool]) -> Tree:
        return find(
            *(root, name, wanted, IMAGENET_PAGE, _IMAGENET_PLACES),
            lambda tree: enough(set(classes) & set(tree.folders("train"))),
        )

    try:
        tree = find_with(lambda wnids: len(wnids) == len(classes))
    except FileNotFoundError:
        # One that has some of the classes, to name those that it lacks.
        tree = find_with(lambda wnids: len(wnids) > 0)
    splits = {}
    for split in ("train", "val"):
        splits[split] = [tree.images(f"{split}/{wnid}") for wnid in classes]
        missing = [wnid for wnid, images in zip(classes, splits[split], strict=True) if not images]
        if missing:
            flat = " (its images must be sorted into folders by class)" if tree.images(split) else ""
            raise FileNotFoundError(
                f"{name}: no images of {', '.join(missing)} in {tree.shown(split)}{flat}; offered at {IMAGENET_PAGE}"
            )
    return Plan(
        name,
        tree,
        _rows(splits["train"]),
        _rows(splits["val"]),
        tuple(classes.values()),
        ("all",),
        Recipe(size, as_stored=True),
        IMAGENET_MEAN,
        IMAGENET_STD,
        {"builder": name, "wnids": list(classes)},
        skip_corrupt=skip_corrupt,
    )


def subset(name: str) -> Callable[..., Plan]:
    """The loader of a subset as published (:func:`imagenet_subset`)."""

    def plan(root, *, size: int = 128, skip_corrupt: bool = False) -> Plan:
        return imagenet_subset(name, root, size, skip_corrupt)

    return plan


def subset_s(name: str) -> Callable[..., Plan]:
    """The loader of a subset of ImageNet Subset-S: the first half of the classes mostly gray, the others in colour."""

    def plan(
        root, *, bias_ratio: float = BIAS_RATIO, seed: int = SEED, size: int = 128, skip_corrupt: bool = False
    ) -> Plan:
        return gray_or_colour(imagenet_subset(name, root, size, skip_corrupt), f"{name}-s", bias_ratio, seed)

    return plan


def _top(tree: Tree) -> str:
    """What the names in the publisher's archive begin with."""
    return "" if tree.folders("train") else "tiny-imagenet-200/"


def _wnids(tree: Tree) -> list[str]:
    train = f"{_top(tree)}train"
    return [wnid for wnid in tree.folders(train) if "images" in tree.folders(f"{train}/{wnid}")]


def _annotated(tree: Tree, below: str, text: str, wnids: list[str]) -> list[list[str]]:
    images = set(tree.images(f"{below}images"))
    of_class: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for line in text.splitlines():
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        name = f"{below}images/{file}"
        if wnid in of_class:
            if name not in images:
                raise FileNotFoundError(f"{tree.shown(name)} is missing; val_annotations.txt names it")
            of_class[wnid].append(name)
    return [sorted(of_class[wnid]) for wnid in wnids]


def _rows(by_class: list[list[str]]) -> Rows:
    labels = np.repeat(np.arange(len(by_class)), [len(names) for names in by_class])
    return Rows([name for names in by_class for name in names], labels, np.zeros(len(labels), np.int64))
