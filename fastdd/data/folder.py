"""A folder of images as a data set: ``train/<class>/*`` and ``test/<class>/*`` (or ``val``), any size, PNG to WebP."""

import csv
import hashlib
import io
import os
from pathlib import Path

import numpy as np

from fastdd.data.dataset import Dataset, Split

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def load_folder(root, *, size: int = 32, groups_csv: str | os.PathLike | None = None) -> Dataset:
    """Images by class folder, as RGB at ``size`` x ``size``: shorter side resized (bilinear, antialiased), centre crop.

    Classes are the folders under ``train``, sorted by name; images of a class are sorted by file name, so the order
    does not depend on the file system. Mean and std are those of the training pixels. Groups come from a CSV file with
    the columns ``path`` (relative to the root, with forward slashes) and ``group`` (any name; numbers sort as numbers);
    without one all images are in the group "all".

    Args:
        root: the folder.
        size: height and width in pixels, at least 1.
        groups_csv: the groups' file; ``groups.csv`` under the root by default, if it is there.

    Raises:
        FileNotFoundError: no root, no ``train`` or no ``test``/``val`` folder, or no groups' file of the given name.
        ValueError: no class, a class without images, a test class that training lacks, or groups that don't fit.
        RuntimeError: an image that can't be decoded, naming it.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    if root is None:
        raise FileNotFoundError("folder needs the images' folder: give it with --data-root (root= in Python)")
    root = Path(root)
    train_folder = root / "train"
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not train_folder.is_dir() or test_folder is None:
        raise FileNotFoundError(f"{root} needs the folders train and test (or val), with one folder a class in each")
    class_names = tuple(sorted(folder.name for folder in train_folder.iterdir() if folder.is_dir()))
    if not class_names:
        raise ValueError(f"{train_folder} has no class folders")
    extra = sorted({folder.name for folder in test_folder.iterdir() if folder.is_dir()} - set(class_names))
    if extra:
        raise ValueError(f"{test_folder / extra[0]} is a class that {train_folder} lacks")
    train_paths, train_labels = _list(train_folder, class_names)
    test_paths, test_labels = _list(test_folder, class_names)
    if not test_paths:
        raise ValueError(f"{test_folder} has no images")
    empty = np.flatnonzero(np.bincount(train_labels, minlength=len(class_names)) == 0)
    if len(empty):
        raise ValueError(f"{train_folder / class_names[empty[0]]} has no images ({', '.join(IMAGE_SUFFIXES)})")

    relative = [path.relative_to(root).as_posix() for path in train_paths + test_paths]
    csv_path = Path(groups_csv) if groups_csv is not None else root / "groups.csv"
    if csv_path.is_file():
        groups, group_names = _read_groups(csv_path, relative)
    elif groups_csv is not None:
        raise FileNotFoundError(f"there is no groups file {csv_path}")
    else:
        groups, group_names = np.zeros(len(relative), np.int64), ("all",)

    sha = hashlib.sha256()
    train_images = _decode(train_paths, size, sha)
    test_images = _decode(test_paths, size, sha)
    sha.update("\n".join(relative).encode())
    mean, std = channel_statistics(train_images)
    files = [{"file": f"{len(relative)} images", "sha256": sha.hexdigest()}]
    if csv_path.is_file():
        content = csv_path.read_bytes()
        files.append({"file": csv_path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    return Dataset(
        name="folder",
        train=Split(train_images, train_labels, groups[: len(train_paths)]),
        test=Split(test_images, test_labels, groups[len(train_paths) :]),
        class_names=class_names,
        group_names=group_names,
        mean=mean,
        std=std,
        provenance={"builder": "folder", "parameters": {"size": size}, "folder": root.resolve().name, "files": files},
    )


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, pixels scaled to [0, 1], from exact counts of the 256 levels.

    A constant channel gets the std 1/255, so that it can be normalised.

    Args:
        images: uint8 [N, C, H, W].

    >>> channel_statistics(np.array([0, 255], np.uint8).reshape(1, 1, 1, 2))
    ((0.5,), (0.5,))
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = sum(np.bincount(part.ravel(), minlength=256) for part in np.array_split(images[:, channel], 64))
        mean = float(counts @ levels / counts.sum())
        means.append(mean)
        stds.append(max(float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum())), 1 / 255))
    return tuple(means), tuple(stds)


def _list(folder: Path, class_names: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    paths, labels = [], []
    for label, class_name in enumerate(class_names):
        class_folder = folder / class_name
        if class_folder.is_dir():
            images = sorted(
                path
                for path in class_folder.iterdir()
                if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
            )
            paths += images
            labels += [label] * len(images)
    return paths, np.array(labels, np.int64)


def _decode(paths: list[Path], size: int, sha) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    out = np.empty((len(paths), 3, size, size), np.uint8)
    for row, path in enumerate(paths):
        content = path.read_bytes()
        try:
            with Image.open(io.BytesIO(content)) as image:
                rgb = image.convert("RGB")
        except Exception as error:  # a damaged image can raise nearly anything
            # Pillow's own line may name the buffer and its address.
            why = "not an image" if isinstance(error, UnidentifiedImageError) else error
            raise RuntimeError(f"cannot decode {path}: {why}") from None
        scale = size / min(rgb.size)
        width, height = (max(size, round(side * scale)) for side in rgb.size)
        left, top = (width - size) // 2, (height - size) // 2
        resized = rgb.resize((width, height), Image.Resampling.BILINEAR)
        out[row] = np.asarray(resized.crop((left, top, left + size, top + size))).transpose(2, 0, 1)
        sha.update(content)
    return out


def _read_groups(path: Path, images: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"path", "group"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} needs the columns path and group, not {reader.fieldnames}")
        group_of = {}
        for row in reader:
            if not row["group"]:
                raise ValueError(f"{path}, line {reader.line_num}: {row['path']} has no group")
            if group_of.setdefault(row["path"], row["group"]) != row["group"]:
                raise ValueError(f"{path}, line {reader.line_num}: {row['path']} is in two groups")
    for kind, names in (("has no group for", set(images) - set(group_of)), ("names", set(group_of) - set(images))):
        if names:
            tail = "" if kind.endswith("for") else ", which is not an image of this data set"
            raise ValueError(f"{path} {kind} {min(names)}{tail}")
    names = set(group_of.values())
    numeric = all(name.isdecimal() for name in names)
    group_names = tuple(sorted(names, key=(lambda name: (int(name), name)) if numeric else None))
    index = {name: number for number, name in enumerate(group_names)}
    return np.array([index[group_of[image]] for image in images], np.int64), group_names
