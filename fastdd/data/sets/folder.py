"""One's own images: a folder a class, or a table that says which image is what; of any size and many formats."""

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastdd.core.text import is_unicode, printable
from fastdd.data.files.decode import Recipe
from fastdd.data.files.plan import Plan, Rows
from fastdd.data.files.table import Images, Table, read_table
from fastdd.data.files.tree import IMAGE_SUFFIXES, Tree, is_image, lines
from fastdd.data.sets.table_rows import RowOf, alike, check_found, find_all, groups_of, in_order
from fastdd.data.sets.variants import check_share, split_rows

# Where images are held out to be tested on, and nothing says how many.
TEST_SHARE = 0.2
# What a column of splits may say.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}


@dataclass(frozen=True)
class _Listed:
    """Images with their classes, and the split of each where something says it."""

    names: list[str]
    labels: list[str]
    splits: list[str] | None
    class_names: tuple[str, ...]
    remarks: list[str]


def folder(
    root,
    *,
    size: int = 32,
    groups_csv: str | os.PathLike | None = None,
    protected: str = "group",
    skip_corrupt: bool = False,
    table: str | os.PathLike | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    unknown_group: str | None = None,
    test_split: float | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> Plan:
    """Images by class folder, as RGB at ``size`` x ``size``: shorter side resized (bilinear, antialiased), centre crop.

    Classes are the folders under ``train``, or under the root where it has no ``train``, sorted by name; images of a
    class are sorted by file name, so the order does not depend on the file system. With ``label_column`` they are what
    the table says, and the images lie anywhere below the root. Images are tested on as ``test`` (or ``val``) or the
    table has them; where nothing does, a share of every class and group is held out, drawn by ``seed``. Pixels are as a
    viewer shows them (:func:`fastdd.data.files.decode.shown`): turned by their EXIF orientation, laid on white where
    they are transparent, gray of 16 bits by its upper eight; of several frames the first. What is left out, held out or
    guessed is told in the provenance's ``remarks``. Mean and std are those of the training pixels.

    A table has a line of column names and a row an image: CSV, TSV or any other delimiter, in UTF-8, UTF-16 or a
    Western encoding. A row names its image by its path below the root, an absolute path, or the last parts of it, such
    as the bare name of the file. Groups are a column, ``group``, or those that ``protected`` names (any words, without
    blanks around them; numbers sort as numbers); without one all are in the group "all".

    Args:
        root: the folder, or a zip or uncompressed tar archive of one.
        size: height and width in pixels, at least 1.
        groups_csv: a table of groups; ``groups.csv`` under the root by default, if it is there.
        protected: the column that is the group; several, joined by ``+``, for their intersections (FairDD, appendix O).
        skip_corrupt: leave out images that can't be decoded, and list them in the provenance.
        table: a table, as ``groups_csv``, that need not have groups; with ``label_column`` of the classes, too.
        path_column: the column that names the image; ``path`` by default.
        label_column: the column that is the class, in place of folders; images that the table lacks are left out.
        split_column: the column that says train, test or validation.
        unknown_group: the group of images without one; by default they are refused.
        test_split: the share that is held out to be tested on where there is nothing else; 0.2 by default.
        seed: of the images that are held out; 0 by default.
        name: what runs and tables call the data set; ``folder`` by default.

    Raises:
        FileNotFoundError: no root, no images, or no table of the given name.
        ValueError: no class, a class without images, a test class that training lacks, or a table that doesn't fit.
    """
    if root is None:
        raise FileNotFoundError("folder needs the images' folder: give it with --data-root (root= in Python)")
    name, seed = "folder" if name is None else str(name), seed or 0
    _check_name(name)
    path_column = "path" if path_column is None else str(path_column)
    # A number on the command line is a name as well.
    label_column, split_column, unknown_group = (
        None if word is None else str(word) for word in (label_column, split_column, unknown_group)
    )
    if test_split is not None:
        check_share("test_split", test_split)
    tree = Tree(root)
    told, files, wanted = _table(tree, groups_csv, table, protected, path_column, label_column, split_column)
    if label_column is None:
        listed = _by_folder(tree)
        rows, lost = ({}, []) if told is None else find_all(told, path_column, Images(tree, listed.names))
    else:
        rows, lost = find_all(told, path_column, Images(tree, tree.all_images()))
        listed = _by_table(tree, told, rows, lost, label_column, split_column)
    remarks = [*(told.remarks if told else ()), *listed.remarks, *alike("classes", listed.class_names)]
    groups, group_names = np.zeros(len(listed.names), np.int64), ("all",)
    if wanted:
        groups, group_names = groups_of(told, wanted, listed.names, rows, unknown_group)
        remarks += alike("groups", group_names)
    elif unknown_group is not None:
        raise ValueError(f"unknown_group {unknown_group!r} is of a table with groups, and there is none")
    check_found(told, lost, tree)
    number = {label: place for place, label in enumerate(listed.class_names)}
    labels = np.array([number[label] for label in listed.labels], np.int64)
    everything = Rows(listed.names, labels, groups)
    parts, held_out = _parted(tree, name, listed, everything, test_split, seed)
    return Plan(
        name,
        tree,
        **parts,
        class_names=listed.class_names,
        group_names=group_names,
        recipe=Recipe(size),
        provenance={"builder": "folder", "folder": Path(root).resolve().name, "files": files},
        remarks=tuple(printable(remark) for remark in (*remarks, *held_out)),
        skip_corrupt=skip_corrupt,
    )


def _check_name(name: str) -> None:
    from fastdd.data.sets import DATASETS

    if not name.strip() or "/" in name or "\\" in name or printable(name) != name or not is_unicode(name):
        raise ValueError(f"name must be a word that a folder can have, not {name!r}")
    if name in DATASETS and name != "folder":
        raise ValueError(f"name {name!r} is that of a data set of its own: choose another")


def _table(
    tree: Tree,
    groups_csv: str | os.PathLike | None,
    table: str | os.PathLike | None,
    protected: str,
    path_column: str,
    label_column: str | None,
    split_column: str | None,
) -> tuple[Table | None, list[dict], list[str]]:
    """The table, if there is one, what provenance says of its file, and the columns that are the group."""
    if split_column is not None and label_column is None:
        raise ValueError(f"split_column {split_column!r} is of a table with the classes too: give label_column")
    if groups_csv is not None and table is not None:
        raise ValueError("groups_csv and table: give one of them, a table can have groups too")
    groups = [column.strip() for column in protected.split("+")]
    if len(set(groups)) < len(groups):
        raise ValueError(f"protected {protected!r} names a column twice")
    file = _content(tree, table, "table") or _content(tree, groups_csv, "groups file")
    if file is None and tree.has("groups.csv"):
        file = tree.read("groups.csv"), Path(tree.shown("groups.csv"))
    if file is None:
        for what, column in (("label_column", label_column), ("split_column", split_column)):
            if column is not None:
                raise ValueError(f"{what} {column!r} names a column of a table: give the table too")
        if protected != "group":
            raise ValueError(f"protected {protected!r} names columns of a groups.csv, and {tree.path} has none")
        return None, [], []
    content, path = file
    others = [column for column in (label_column, split_column) if column is not None]
    # Of a table that may have no groups, only those that are asked for must be there.
    needed = table is None or protected != "group"
    cure = " (another column is named by the option protected)" if groups == ["group"] and not others else ""
    cure = cure if path_column != "path" or groups == ["group"] else " (that of the images by path_column)"
    if table is not None and path_column == "path" and label_column is None:
        cure = " (path_column and label_column name a table's columns)"
    told = read_table(
        content, path, [path_column, *others, *(groups if needed else ())], () if needed else groups, cure
    )
    described = {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    there = needed or any(column.casefold() == "group" for column in told.columns)
    return told, [described], groups if there else []


def _content(tree: Tree, given: str | os.PathLike | None, what: str) -> tuple[bytes, Path] | None:
    """What a table's file holds, and its path: as it is given, or below the root; None where none is given."""
    if given is None:
        return None
    path = Path(given)
    if path.is_file():
        return path.read_bytes(), path
    if not path.is_absolute() and tree.has(path.as_posix()):
        return tree.read(path.as_posix()), Path(tree.shown(path.as_posix()))
    raise FileNotFoundError(f"there is no {what} {path}, here or in {tree.path}")


def _by_folder(tree: Tree) -> _Listed:
    """Images whose folders are their classes."""
    top = tree.folders()
    test_folder = next((name for name in ("test", "val") if name in top), None)
    if "train" not in top:
        return _without_splits(tree, "", test_folder)
    if test_folder is None:
        return _without_splits(tree, "train/", None)
    class_names = tuple(tree.folders("train"))
    if not class_names:
        raise ValueError(f"{tree.shown('train')} has no class folders")
    extra = sorted(set(tree.folders(test_folder)) - set(class_names))
    if extra:
        raise ValueError(f"{tree.shown(f'{test_folder}/{extra[0]}')} is a class that {tree.shown('train')} lacks")
    train, train_labels = _list(tree, "train/", class_names)
    test, test_labels = _list(tree, f"{test_folder}/", class_names)
    if not test:
        raise ValueError(f"{tree.shown(test_folder)} has no images")
    _check_all_have(tree, "train/", class_names, train_labels)
    left_out = tree.left_out(f"{split}/{name}" for split in ("train", test_folder) for name in class_names)
    beside = [f"{split}/{name}" for split in ("train", test_folder) for name in tree.files(split)]
    if beside:
        left_out["files beside the class folders"] = beside
    if test_folder == "test" and tree.folders("val"):
        left_out["classes in val, as there is test"] = [f"val/{name}" for name in tree.folders("val")]
    splits = ["train"] * len(train) + ["test"] * len(test)
    return _Listed(train + test, train_labels + test_labels, splits, class_names, lines(left_out))


def _without_splits(tree: Tree, below: str, test_folder: str | None) -> _Listed:
    """Images of class folders that nothing parts into training and test."""
    needs = (
        f"{tree.path} needs the folders train and test (or val), with one folder a class in each, or a folder a class"
    )
    if test_folder is not None and not below:
        raise FileNotFoundError(f"{needs}: it has {test_folder} and no train")
    class_names = tuple(tree.folders(below.rstrip("/")))
    if not below:  # what else lies there is no class
        class_names = tuple(name for name in class_names if not name.startswith(".") and tree.images(name))
        if not class_names:
            loose = len(tree.images(""))
            more = f"; its {loose} images by themselves need a table (table and label_column)" if loose else ""
            raise FileNotFoundError(f"{needs}{more}")
    elif not class_names:
        raise ValueError(f"{tree.shown('train')} has no class folders")
    names, labels = _list(tree, below, class_names)
    _check_all_have(tree, below, class_names, labels)
    left_out = tree.left_out(f"{below}{name}" for name in class_names)
    beside = [f"{below}{name}" for name in tree.files(below.rstrip("/")) if below or is_image(name)]
    if beside:
        left_out["files beside the class folders"] = beside
    if not below and (empty := [name for name in tree.folders() if name not in class_names]):
        left_out["folders without images"] = empty
    return _Listed(names, labels, None, class_names, lines(left_out))


def _check_all_have(tree: Tree, below: str, class_names: Sequence[str], labels: Collection[str]) -> None:
    with_images = set(labels)
    empty = next((name for name in class_names if name not in with_images), None)
    if empty is not None:
        raise ValueError(f"{tree.shown(f'{below}{empty}')} has no images ({', '.join(IMAGE_SUFFIXES)})")


def _list(tree: Tree, below: str, class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    by_class = {class_name: tree.images(f"{below}{class_name}") for class_name in class_names}
    labels = [class_name for class_name, images in by_class.items() for _ in images]
    return [image for images in by_class.values() for image in images], labels


def _by_table(
    tree: Tree, told: Table, rows: RowOf, lost: list[str], label_column: str, split_column: str | None
) -> _Listed:
    """Images whose classes a table says."""
    check_found(told, lost, tree)
    for image, (line, row) in rows.items():
        if not row[label_column]:
            raise ValueError(f"{told.path}, line {line}: {image} has no {label_column}")
    class_names = tuple(in_order({row[label_column] for _, row in rows.values()}))
    if not class_names:
        raise ValueError(f"{told.path} has no rows")
    # In the order of folders that are classes: by class, then by name.
    place = {label: number for number, label in enumerate(class_names)}
    names = sorted(rows, key=lambda image: (place[rows[image][1][label_column]], image))
    labels = [rows[image][1][label_column] for image in names]
    missing = sorted(set(tree.all_images()) - set(names))
    remarks = lines({f"not in {told.path.name}": missing} if missing else {})
    splits = _splits_of(told, names, rows, split_column)
    return _Listed(names, labels, splits, class_names, remarks)


def _splits_of(told: Table, names: Sequence[str], rows: RowOf, column: str | None) -> list[str] | None:
    """The split of every image: by the column, else by the folders train and test (or val) that all lie in."""
    if column is None:
        tops = [image.partition("/")[0] for image in names]
        alike = set(tops) <= {"train", "test", "val"} and "train" in tops and len(set(tops)) > 1
        if not alike:
            return None
        both = {"test", "val"} <= set(tops)
        of_top = {"train": "train", "test": "test", "val": "validation" if both else "test"}
        return [of_top[top] for top in tops]
    splits = []
    for image in names:
        line, row = rows[image]
        split = _SPLITS.get(row[column].casefold())
        if split is None:
            raise ValueError(
                f"{told.path}, line {line}: {column} of {image} must be train, test or validation, not {row[column]!r}"
            )
        splits.append(split)
    if "train" not in splits:
        raise ValueError(f"{told.path}: no row has {column} train")
    return splits


def _parted(
    tree: Tree, name: str, listed: _Listed, rows: Rows, test_split: float | None, seed: int
) -> tuple[dict[str, Rows], list[str]]:
    """The splits by name, and what is said of images that are held out."""
    splits = np.array(listed.splits if listed.splits is not None else ["train"] * len(rows))
    parts = {split: rows.take(np.flatnonzero(splits == split)) for split in ("train", "test", "validation")}
    parts = {split: part for split, part in parts.items() if len(part)}
    if "test" in parts:
        if test_split is not None:
            raise ValueError(f"test_split {test_split:g} is for images without a test set, and {name} has one")
        return parts, []
    share, train = TEST_SHARE if test_split is None else test_split, parts["train"]
    held = split_rows(train.labels, train.groups, share, seed)
    if not 0 < share < 1 or not held.any():
        raise ValueError(
            f"{tree.path}: test_split {share:g} of {len(train)} images leaves none on one side: "
            "give another share, or a folder test"
        )
    parts |= {"train": train.take(np.flatnonzero(~held)), "test": train.take(np.flatnonzero(held))}
    remarks = [
        f"no test images are named: {share:.0%} of every class and group, drawn by seed {seed}, are held out: "
        f"{len(parts['train'])} + {len(parts['test'])} images (test_split)"
    ]
    alone = len(listed.class_names) - len(np.unique(parts["test"].labels))
    if alone:
        remarks.append(f"{alone} of {len(listed.class_names)} classes have too few images to be tested on")
    return parts, remarks
