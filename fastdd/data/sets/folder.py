"""A folder of images as a data set: ``train/<class>/*`` and ``test/<class>/*`` (or ``val``), of any size."""

import csv
import hashlib
import io
import os
import unicodedata
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import numpy as np

from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.tree import IMAGE_SUFFIXES, Tree, is_image, lines


def folder(
    root,
    *,
    size: int = 32,
    groups_csv: str | os.PathLike | None = None,
    protected: str = "group",
    skip_corrupt: bool = False,
) -> Plan:
    """Images by class folder, as RGB at ``size`` x ``size``: shorter side resized (bilinear, antialiased), centre crop.

    Classes are the folders under ``train``, sorted by name; images of a class are sorted by file name, so the order
    does not depend on the file system. They are as a viewer shows them (:func:`fastdd.data.files.decode.shown`): turned
    by their EXIF orientation, laid on white where they are transparent, gray of 16 bits by its upper eight; of several
    frames the first. What is left out is told in the provenance's ``remarks``. Mean and std are those of the training
    pixels. Groups come from a CSV file with the columns ``path`` (relative to the root, with forward slashes) and
    ``group``, or those that ``protected`` names (any words, without blanks around them; numbers sort as numbers);
    without one all are in the group "all".

    Args:
        root: the folder, or a zip or uncompressed tar archive of one.
        size: height and width in pixels, at least 1.
        groups_csv: the groups' file; ``groups.csv`` under the root by default, if it is there.
        protected: the column that is the group; several, joined by ``+``, for their intersections (FairDD, appendix O).
        skip_corrupt: leave out images that can't be decoded, and list them in the provenance.

    Raises:
        FileNotFoundError: no root, no ``train`` or no ``test``/``val`` folder, or no groups' file of the given name.
        ValueError: no class, a class without images, a test class that training lacks, or groups that don't fit.
    """
    if root is None:
        raise FileNotFoundError("folder needs the images' folder: give it with --data-root (root= in Python)")
    tree = Tree(root)
    test_folder = next((name for name in ("test", "val") if name in tree.folders()), None)
    if "train" not in tree.folders() or test_folder is None:
        raise FileNotFoundError(f"{root} needs the folders train and test (or val), with one folder a class in each")
    class_names = tuple(tree.folders("train"))
    if not class_names:
        raise ValueError(f"{tree.shown('train')} has no class folders")
    extra = sorted(set(tree.folders(test_folder)) - set(class_names))
    if extra:
        raise ValueError(f"{tree.shown(f'{test_folder}/{extra[0]}')} is a class that {tree.shown('train')} lacks")
    train, train_labels = _list(tree, "train", class_names)
    test, test_labels = _list(tree, test_folder, class_names)
    if not test:
        raise ValueError(f"{tree.shown(test_folder)} has no images")
    empty = np.flatnonzero(np.bincount(train_labels, minlength=len(class_names)) == 0)
    if len(empty):
        shown = tree.shown(f"train/{class_names[empty[0]]}")
        raise ValueError(f"{shown} has no images ({', '.join(IMAGE_SUFFIXES)})")

    files, remarks = [], _left_out(tree, test_folder, class_names) + _alike("classes", class_names)
    groups, group_names = np.zeros(len(train) + len(test), np.int64), ("all",)
    content, shown = None, None
    if groups_csv is not None:
        shown = Path(groups_csv)
        if not shown.is_file():
            raise FileNotFoundError(f"there is no groups file {shown}")
        content = shown.read_bytes()
    elif tree.has("groups.csv"):
        content, shown = tree.read("groups.csv"), Path(tree.shown("groups.csv"))
    if content is None and protected != "group":
        raise ValueError(f"protected {protected!r} names columns of a groups.csv, and {root} has none")
    if content is not None:
        groups, group_names = _read_groups(content, shown, train + test, protected)
        remarks += _alike("groups", group_names)
        files.append({"file": shown.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    return Plan(
        "folder",
        tree,
        Rows(train, train_labels, groups[: len(train)]),
        Rows(test, test_labels, groups[len(train) :]),
        class_names,
        group_names,
        Recipe(size),
        provenance={"builder": "folder", "folder": Path(root).resolve().name, "files": files},
        remarks=tuple(remarks),
        skip_corrupt=skip_corrupt,
    )


def _left_out(tree: Tree, test_folder: str, class_names: tuple[str, ...]) -> list[str]:
    by_reason = tree.left_out(f"{split}/{name}" for split in ("train", test_folder) for name in class_names)
    beside = [f"{split}/{name}" for split in ("train", test_folder) for name in tree.files(split)]
    if beside:
        by_reason["files beside the class folders"] = beside
    if test_folder == "test" and tree.folders("val"):
        by_reason["classes in val, as there is test"] = [f"val/{name}" for name in tree.folders("val")]
    return lines(by_reason)


def _alike(what: str, names: tuple[str, ...]) -> list[str]:
    """A line for all names that differ by what is hardly seen: blanks, case, accents' encoding, zeros in front."""
    by_look: dict[str, list[str]] = {}
    for name in names:
        look = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        by_look.setdefault(look.lstrip("0") if look.isdecimal() else look, []).append(name)
    return [
        f"{what} {' and '.join(map(repr, same))} are kept apart: rename them if they are one"
        for same in by_look.values()
        if len(same) > 1
    ]


def _list(tree: Tree, below: str, class_names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    by_class = [tree.images(f"{below}/{class_name}") for class_name in class_names]
    labels = np.repeat(np.arange(len(class_names)), [len(images) for images in by_class])
    return [image for images in by_class for image in images], labels


def _read_groups(content: bytes, path: Path, images: list[str], protected: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Group of every image, int64 [N], and the groups' names: the values of the columns, joined by commas."""
    columns = [name.strip() for name in protected.split("+")]
    if len(set(columns)) < len(columns):
        raise ValueError(f"protected {protected!r} names a column twice")
    group_of: dict[str, tuple[str, ...]] = {}
    for line, row in _rows_of(content, path, columns):
        group = tuple((row[name] or "").strip() for name in columns)
        if not all(group):
            raise ValueError(f"{path}, line {line}: {row['path']} has no {columns[group.index('')]}")
        if group_of.setdefault(row["path"], group) != group:
            raise ValueError(f"{path}, line {line}: {row['path']} is in two groups")
    _check_images(path, group_of, images)
    places = [_sorted({group[place] for group in group_of.values()}) for place in range(len(columns))]
    names = sorted(
        set(group_of.values()), key=lambda group: [of.index(value) for of, value in zip(places, group, strict=True)]
    )
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[group_of[image]] for image in images], np.int64), tuple(map(", ".join, names))


def _rows_of(content: bytes, path: Path, columns: list[str]) -> list[tuple[int, dict[str, str | None]]]:
    """(line, row) of a CSV file that has these columns."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num + 1}: no row of path and group ({error})") from None
    if not {"path", *columns} <= set(reader.fieldnames or ()):
        cure = " (another column is named by the option protected)" if columns == ["group"] else ""
        raise ValueError(f"{path} needs the columns path and {' and '.join(columns)}, not {reader.fieldnames}{cure}")
    return rows


def _check_images(path: Path, named: Collection[str], images: list[str]) -> None:
    """ValueError unless exactly the images are named."""
    for kind, names in (("has no group for", set(images) - set(named)), ("names", set(named) - set(images))):
        if names:
            first, tail = min(names), ""
            if kind == "names":
                other = "" if is_image(PurePosixPath(first).name) else f"; images end in {', '.join(IMAGE_SUFFIXES)}"
                tail = f", which is not an image of this data set{other}"
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(f"{path} {kind} {first}{more}{tail}")


def _sorted(values: Collection[str]) -> list[str]:
    """By their numbers where all are numbers."""
    numeric = all(value.isdecimal() for value in values)
    return sorted(values, key=(lambda value: (int(value), value)) if numeric else None)
