"""Images in a folder a class: CLASS/IMAGE.png, as ImageFolder (torchvision) and DD-Ranking read them; 8 bits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastdd.core import files
from fastdd.core.files import partial_folder
from fastdd.core.reading import damage_of
from fastdd.data.files.decode import opened, read_item, shown
from fastdd.data.files.tree import Tree, lines
from fastdd.data.pictures import folder_names, save_by_class
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange.dc import learned_rate
from fastdd.exchange.found import RECORD, Content, Export, Found, read_record, write_record

DESCRIPTION = "a folder with a folder of images for every class"


def _by_class(tree: Tree) -> dict[str, list[str]]:
    """The images of each folder that has any, sorted by name."""
    by_class = {name: tree.images(name) for name in tree.folders()}
    return {name: images for name, images in by_class.items() if images}


def matches(content: Content) -> bool:
    return content.value is None and bool(_by_class(Tree(content.path)))


def read(content: Content) -> Found:
    """All images as a viewer shows them, classes sorted by name; gray images have one channel if all are gray."""
    tree = Tree(content.path)
    by_class = _by_class(tree)
    paths = [tree.path / name for images in by_class.values() for name in images]
    pixels = [_decoded(path) for path in paths]
    stack = stacked(pixels, paths)
    labels = np.repeat(np.arange(len(by_class)), [len(images) for images in by_class.values()])
    record = read_record(content.path, paths)
    names = list(by_class)
    if record and (folders := record.pop("folders", None)):
        with damage_of(content.path / RECORD, "names other folders than there are", ValueError):
            labels = np.array([folders.index(name) for name in names])[labels]
            names = [record["class_names"][number] for number in range(len(folders))]
    notes = lines(_left_out(tree, by_class))
    return Found(stack, labels, "pixels", paths, record, class_names=tuple(names), notes=notes)


def stacked(pixels: list[np.ndarray], names: Sequence[object]) -> np.ndarray:
    """uint8 [M, C, H, W] of images [H, W] and [H, W, 3]; of one channel if all are gray.

    Raises:
        ValueError: images of several sizes.
    """
    if any(image.ndim == 3 for image in pixels):
        pixels = [image if image.ndim == 3 else image[:, :, None].repeat(3, axis=2) for image in pixels]
    for name, image in zip(names, pixels, strict=True):
        if image.shape != pixels[0].shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, pixels[0].shape)]
            raise ValueError(f"{name} is {sizes[0]}, {names[0]} {sizes[1]}: images must have one size")
    stack = np.stack(pixels)
    return stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)


def _left_out(tree: Tree, by_class: dict[str, list[str]]) -> dict[str, list[str]]:
    beside = {
        "files beside the class folders": [name for name in tree.files() if name != RECORD],
        "folders without images": [name for name in tree.folders() if name not in by_class],
    }
    return tree.left_out(by_class) | {reason: names for reason, names in beside.items() if names}


def _decoded(path: Path) -> np.ndarray:
    try:
        return pixels_of(read_item(str(path), None, 0, -1))
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{path} can't be read as an image: {error}") from None


def pixels_of(content: bytes) -> np.ndarray:
    """uint8 [H, W] of a gray image's content, [H, W, 3] of another; ValueError where it can't be decoded."""
    with opened(content) as image:
        # Of one bit, or with a mask, it is colour, as it always was.
        gray = image.mode in ("L", "F") or image.mode.startswith("I")
        return np.asarray(shown(image) if gray else shown(image).convert("RGB"))


def rounded(made: SyntheticSet) -> list[str]:
    """What images of 8 bits lose of a set; ValueError where they are neither gray nor colour."""
    if made.images.shape[1] not in (1, 3):
        raise ValueError(f"images of {made.images.shape[1]} channels are neither gray nor colour")
    whitened = [] if made.zca is None else ["the whitening is taken back"]
    return ["pixels are rounded to 8 bits and clamped to 0..255", *learned_rate(made), *whitened]


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """PNG files, de-normalised, and ``fastdd.json``; the folder is made as a whole, and must be new or empty."""
    del force  # what else lies in a folder is not ours to remove
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is not an empty folder; give another")
    if made.soft_labels is not None:
        raise ValueError("folder has no soft labels: export to mtt or npz, or classes only (--hard-labels)")
    notes = rounded(made)
    folders = folder_names(made.metadata["class_names"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(path) as building:
        pixels, labels = made.to_uint8().cpu().numpy(), made.labels.tolist()
        images = save_by_class(building, pixels, labels, folders, place=path)
        write_record(building, sorted(images), made, folders=folders)
        files.take_place(building, path)
    if folders != sorted(folders):
        notes.append(f"sorted by name, as ImageFolder numbers them, classes have other labels; {RECORD} has ours")
    return Export([path], notes)
