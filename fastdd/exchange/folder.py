"""Images in a folder a class: CLASS/IMAGE.png, as ImageFolder (torchvision) and DD-Ranking read them; 8 bits."""

import re
from pathlib import Path

import numpy as np

from fastdd.core import files
from fastdd.core.files import partial_folder
from fastdd.core.reading import damage_of
from fastdd.data.files.decode import opened, read_item, shown
from fastdd.data.files.tree import Tree, lines
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
    if any(image.ndim == 3 for image in pixels):
        pixels = [image if image.ndim == 3 else image[:, :, None].repeat(3, axis=2) for image in pixels]
    for path, image in zip(paths, pixels, strict=True):
        if image.shape != pixels[0].shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, pixels[0].shape)]
            raise ValueError(f"{path} is {sizes[0]}, {paths[0]} {sizes[1]}: images must have one size")
    stack = np.stack(pixels)
    stack = stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)
    labels = np.repeat(np.arange(len(by_class)), [len(images) for images in by_class.values()])
    record = read_record(content.path, paths)
    names = list(by_class)
    if record and (folders := record.pop("folders", None)):
        with damage_of(content.path / RECORD, "names other folders than there are", ValueError):
            labels = np.array([folders.index(name) for name in names])[labels]
            names = [record["class_names"][number] for number in range(len(folders))]
    notes = lines(_left_out(tree, by_class))
    return Found(stack, labels, "pixels", paths, record, class_names=tuple(names), notes=notes)


def _left_out(tree: Tree, by_class: dict[str, list[str]]) -> dict[str, list[str]]:
    beside = {
        "files beside the class folders": [name for name in tree.files() if name != RECORD],
        "folders without images": [name for name in tree.folders() if name not in by_class],
    }
    return tree.left_out(by_class) | {reason: names for reason, names in beside.items() if names}


def _decoded(path: Path) -> np.ndarray:
    """uint8 [H, W] of a gray image, [H, W, 3] of another."""
    try:
        with opened(read_item(str(path), None, 0, -1)) as image:
            # Of one bit, or with a mask, it is colour, as it always was.
            gray = image.mode in ("L", "F") or image.mode.startswith("I")
            return np.asarray(shown(image) if gray else shown(image).convert("RGB"))
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{path} can't be read as an image: {error}") from None


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """PNG files, de-normalised, and ``fastdd.json``; the folder is made as a whole, and must be new or empty."""
    from PIL import Image

    del force  # what else lies in a folder is not ours to remove
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is not an empty folder; give another")
    if made.soft_labels is not None:
        raise ValueError("folder has no soft labels: export to mtt or npz, or classes only (--hard-labels)")
    if made.images.shape[1] not in (1, 3):
        raise ValueError(f"images of {made.images.shape[1]} channels are neither gray nor colour")
    folders = _folder_names(made.metadata["class_names"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(path) as building:
        seen = [0] * len(folders)
        images = []
        for image, label in zip(made.to_uint8().numpy(), made.labels.tolist(), strict=True):
            file = building / folders[label] / f"{seen[label]:05d}.png"
            file.parent.mkdir(exist_ok=True)
            try:
                Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file)
            except OSError as error:
                raise files.write_error(path, error) from error
            images.append(file)
            seen[label] += 1
        write_record(building, sorted(images), made, folders=folders)
        files.take_place(building, path)
    notes = ["pixels are rounded to 8 bits and clamped to 0..255", *learned_rate(made)]
    if made.zca is not None:
        notes.append("the whitening is taken back")
    if folders != sorted(folders):
        notes.append(f"sorted by name, as ImageFolder numbers them, classes have other labels; {RECORD} has ours")
    return Export([path], notes)


def _folder_names(class_names: list[str]) -> list[str]:
    """The classes' names, without what a file system would take for something else."""
    names = [re.sub(r"[^\w .()-]", "_", name).strip(" .") or "_" for name in class_names]
    if len({name.lower() for name in names}) < len(names):
        names = [f"{number:04d} {name}" for number, name in enumerate(names)]
    return names
