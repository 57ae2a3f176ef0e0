"""Which row of a table is of which image, and the groups that its columns say."""

import unicodedata
from collections.abc import Collection
from pathlib import PurePosixPath

import numpy as np

from fastdd.core.text import did_you_mean
from fastdd.data.files.table import Images, Table
from fastdd.data.files.tree import IMAGE_SUFFIXES, Tree, is_image

# Of images: the line and the values of their row.
RowOf = dict[str, tuple[int, dict[str, str]]]


def find_all(told: Table, path_column: str, images: Images) -> tuple[RowOf, list[str]]:
    """The row of every image that the table names, and the names that no image has.

    Raises:
        ValueError: a row without an image, or two that differ of one image.
    """
    rows: RowOf = {}
    lost = []
    for line, row in told.rows:
        called = row[path_column]
        if not called:
            raise ValueError(f"{told.path}, line {line}: no image is named in {path_column}")
        try:
            image = images.find(called)
        except ValueError as error:
            raise ValueError(f"{told.path}, line {line}: {error}") from None
        if image is None:
            lost.append(called)
            continue
        known = rows.setdefault(image, (line, row))[1]
        differs = [column for column in row if column != path_column and row[column] != known[column]]
        if differs:
            what = "in two groups" if differs == ["group"] else f"of two {differs[0]}s"
            raise ValueError(
                f"{told.path}, line {line}: {called} is {what}, {known[differs[0]]!r} and {row[differs[0]]!r}"
            )
    return rows, lost


def check_found(told: Table | None, lost: list[str], tree: Tree) -> None:
    if not lost:
        return
    first = min(lost)
    other = "" if is_image(PurePosixPath(first).name) else f"; images end in {', '.join(IMAGE_SUFFIXES)}"
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    close = did_you_mean(first, tree.all_images()[:10_000]) if is_image(PurePosixPath(first).name) else ""
    raise ValueError(
        f"{told.path} names {first}{more}, which is not an image of this data set, {tree.path}{other}{close}"
    )


def groups_of(
    told: Table,
    columns: list[str],
    images: list[str],
    rows: RowOf,
    unknown: str | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Group of every image, int64 [N], and the groups' names: the values of the columns, joined by commas."""
    group_of: dict[str, tuple[str, ...]] = {}
    for image in images:
        line, row = rows.get(image, (0, {}))
        group = tuple(row.get(column, "") or unknown or "" for column in columns)
        if row and not all(group):
            raise ValueError(
                f"{told.path}, line {line}: {image} has no {columns[group.index('')]}; for a group of such images give "
                "unknown_group=NAME"
            )
        group_of[image] = group
    without = [image for image in images if not all(group_of[image])]
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        raise ValueError(
            f"{told.path} has no group for {min(without)}{more}; for a group of such images give unknown_group=NAME"
        )
    places = [in_order({group[place] for group in group_of.values()}) for place in range(len(columns))]
    names = sorted(
        set(group_of.values()), key=lambda group: [of.index(value) for of, value in zip(places, group, strict=True)]
    )
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[group_of[image]] for image in images], np.int64), tuple(map(", ".join, names))


def alike(what: str, names: tuple[str, ...]) -> list[str]:
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


def in_order(values: Collection[str]) -> list[str]:
    """By their numbers where all are numbers."""
    numeric = all(value.isdecimal() for value in values)
    return sorted(values, key=(lambda value: (int(value), value)) if numeric else None)
