"""Images in a folder a class: CLASS/IMAGE.png, as ImageFolder (torchvision) and DD-Ranking read them; 8 bits."""

import os
import re
from pathlib import Path

import numpy as np

from fastdd.core.files import partial_folder
from fastdd.data.files.tree import IMAGE_SUFFIXES
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange.dc import learned_rate
from fastdd.exchange.found import RECORD, Content, Export, Found, read_record, write_record

DESCRIPTION = "a folder with a folder of images for every class"


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _classes(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _images(path))


def matches(content: Content) -> bool:
    return content.value is None and bool(_classes(content.path))


def read(content: Content) -> Found:
    """All images, classes sorted by name; gray images have one channel if all are gray."""
    classes = _classes(content.path)
    by_class = [_images(folder) for folder in classes]
    paths = [path for images in by_class for path in images]
    pixels = [_decoded(path) for path in paths]
    if any(image.ndim == 3 for image in pixels):
        pixels = [image if image.ndim == 3 else image[:, :, None].repeat(3, axis=2) for image in pixels]
    for path, image in zip(paths, pixels, strict=True):
        if image.shape != pixels[0].shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, pixels[0].shape)]
            raise ValueError(f"{path} is {sizes[0]}, {paths[0]} {sizes[1]}: images must have one size")
    stack = np.stack(pixels)
    stack = stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in by_class])
    record = read_record(content.path, paths)
    names = [folder.name for folder in classes]
    if record and (folders := record.pop("folders", None)):
        labels = np.array([folders.index(name) for name in names])[labels]
        names = record["class_names"]
    return Found(stack, labels, "pixels", paths, record, class_names=tuple(names))


def _decoded(path: Path) -> np.ndarray:
    """uint8 [H, W] of a gray image, [H, W, 3] of another."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except Exception as error:  # Pillow raises whatever a decoder meets
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
    with partial_folder(path) as partial:
        building = partial / "images"
        building.mkdir()
        seen = [0] * len(folders)
        images = []
        for image, label in zip(made.to_uint8().numpy(), made.labels.tolist(), strict=True):
            file = building / folders[label] / f"{seen[label]:05d}.png"
            file.parent.mkdir(exist_ok=True)
            try:
                Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file)
            except OSError as error:
                raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
            images.append(file)
            seen[label] += 1
        write_record(building, sorted(images), made, folders=folders)
        if path.exists():
            path.rmdir()
        os.rename(building, path)
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
