"""A data set of image files: a plan of what is to be decoded, made into a :class:`Dataset` or streamed into a store."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fastdd.core.text import is_unicode
from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.decode import Batch, Decoded, Recipe, cores, decode_all
from fastdd.data.files.statistics import level_statistics
from fastdd.data.files.tree import Tree

_BATCH_IMAGES, _BATCH_BYTES = 64, 4 << 20
# Below it, starting worker processes takes longer than they save.
_SERIAL = 1500


@dataclass(frozen=True, eq=False)
class Rows:
    """A split to be decoded: of each image its file, class and group, and whether it is to be gray.

    Args:
        names: below the top of the plan's tree.
        labels, groups: int64 [N].
        gray: bool [N]; none by default.
    """

    names: list[str]
    labels: np.ndarray
    groups: np.ndarray
    gray: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> "Rows":
        """Some rows, in the order given."""
        names = [self.names[row] for row in rows.tolist()]
        return Rows(names, self.labels[rows], self.groups[rows], None if self.gray is None else self.gray[rows])


@dataclass(frozen=True, eq=False)
class Plan:
    """A data set of image files that are not decoded yet.

    Args:
        name: of the data set.
        tree: where the files are.
        train, test, validation: the splits; no validation where it is None.
        class_names, group_names: as of :class:`Dataset`.
        recipe: how pixels are made.
        mean, std: as of :class:`Dataset`; those of the training pixels if None.
        provenance: what else the data set's provenance has; ``files`` lists annotations.
        remarks: lines on how what is there differs from what the publisher offers.
        skip_corrupt: leave out images that can't be decoded, and list them in the provenance.

    Raises:
        ValueError: a split without an image, a class without training images, or a name that is not UTF-8.
    """

    name: str
    tree: Tree
    train: Rows
    test: Rows
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    recipe: Recipe
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    provenance: dict = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    skip_corrupt: bool = False
    validation: Rows | None = None

    def __post_init__(self):
        if self.recipe.size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {self.recipe.size}")
        for names in (self.class_names, self.group_names, *(rows.names for rows in self.splits.values())):
            odd = next((name for name in names if not is_unicode(name)), None)
            if odd is not None:
                raise ValueError(f"{self.tree.path}: the name {odd!r} is not UTF-8: rename it")
        for name, rows in self.splits.items():
            if len(rows) == 0:
                raise ValueError(f"{self.tree.path}: {self.name} has no {name} image")
        empty = np.flatnonzero(np.bincount(self.train.labels, minlength=len(self.class_names)) == 0)
        if len(empty):
            raise ValueError(f"{self.tree.path}: class {self.class_names[empty[0]]} has no training image")

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    @property
    def splits(self) -> dict[str, Rows]:
        """The splits that there are, by name: ``train``, ``test`` and, last, ``validation``."""
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: rows for name, rows in splits.items() if rows is not None}

    def shape(self, split: str) -> tuple[int, int, int, int]:
        return len(getattr(self, split)), 3, self.recipe.size, self.recipe.size

    def fingerprint(self) -> str:
        """SHA-256 over all that decides the result but the files' content and whether corrupt ones are left out."""
        sha = hashlib.sha256(repr((self.name, self.recipe, self.mean, self.std)).encode())
        sha.update(repr((self.class_names, self.group_names, self.provenance.get("files"), self.remarks)).encode())
        for rows in self.splits.values():
            sha.update("\n".join(rows.names).encode())
            for array in (rows.labels, rows.groups, _gray(rows)):
                sha.update(np.ascontiguousarray(array))
        return sha.hexdigest()

    def decoded(self, split: str, first: int = 0, workers: int | None = None) -> Iterator["Part"]:
        """The images of a split from row ``first`` on, in order, some at a time.

        Args:
            split: of :attr:`splits`.
            first: of the split's rows.
            workers: processes that decode; by default all cores if there are enough images, else this process.

        Raises:
            RuntimeError: an image that can't be decoded, naming it, unless they are skipped.
        """
        return decoded(self.tree, getattr(self, split), self.recipe, first, workers, self.skip_corrupt)

    def dataset(self, workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> Dataset:
        """Decode it all into memory.

        Args:
            workers: as of :meth:`decoded`; pixels do not depend on it.
            progress: ``progress(done, total)``, in images.

        Raises:
            RuntimeError: an image that can't be decoded, naming it, unless they are skipped; or too few are left.
        """
        tally = Tally(self)
        splits = {}
        for split in self.splits:
            images = np.empty(self.shape(split), np.uint8)
            filled = 0
            for part in self.decoded(split, workers=workers):
                images[filled : filled + len(part.done.images)] = part.done.images
                filled += len(part.done.images)
                tally.add(split, part)
                if progress:
                    progress(tally.done, len(self))
            splits[split] = images if filled == len(images) else images[:filled].copy()
        return tally.dataset(splits)


@dataclass(frozen=True)
class Part:
    """Decoded images of a split.

    Attributes:
        stop: row after the last of them.
        done: their pixels.
        failed: (row, "name: why") of those left out.
    """

    stop: int
    done: Decoded
    failed: list[tuple[int, str]]


def decoded(
    tree: Tree, rows: Rows, recipe: Recipe, first: int = 0, workers: int | None = None, skip_corrupt: bool = False
) -> Iterator[Part]:
    """Images of a tree from row ``first`` on, in order, some at a time: :meth:`Plan.decoded`, of any rows."""
    gray = _gray(rows)
    count = max(1, min(_BATCH_IMAGES, _BATCH_BYTES // (3 * recipe.size**2)))
    starts = range(first, len(rows), count)
    if not starts:
        return
    if workers is None:
        workers = 1 if len(rows) - first < _SERIAL else cores()

    def batches() -> Iterable[Batch]:
        for start in starts:
            stop = min(start + count, len(rows))
            yield Batch([tree.item(name) for name in rows.names[start:stop]], gray[start:stop], recipe)

    for start, done in zip(starts, decode_all(batches(), max(1, min(workers, len(starts)))), strict=True):
        failed = [(start + position, why) for position, why in done.failed]
        if failed and not skip_corrupt:
            row, why = failed[0]
            hint = "leave out such images with --skip-corrupt (skip_corrupt=True in Python)"
            raise RuntimeError(f"cannot decode {tree.shown(rows.names[row])}: {why}; {hint}")
        stop = min(start + count, len(rows))
        yield Part(stop, done, [(row, f"{rows.names[row]}: {why}") for row, why in failed])


def _gray(rows: Rows) -> np.ndarray:
    return np.zeros(len(rows), bool) if rows.gray is None else rows.gray


class Tally:
    """What is counted while a plan is decoded; makes the :class:`Dataset` at the end."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.stops = dict.fromkeys(plan.splits, 0)
        self.levels = np.zeros((3, 256), np.int64)
        self.failed: dict[str, list[tuple[int, str]]] = {split: [] for split in plan.splits}
        self.sha256 = {split: bytearray() for split in plan.splits}

    @property
    def done(self) -> int:
        """Images seen so far."""
        return sum(self.stops.values())

    def add(self, split: str, part: Part) -> None:
        self.stops[split] = part.stop
        self.failed[split] += part.failed
        self.sha256[split] += part.done.sha256
        if split == "train":
            self.levels += part.done.levels

    def kept(self, split: str) -> Rows:
        """The rows that were decoded."""
        rows: Rows = getattr(self.plan, split)
        return rows.take(np.delete(np.arange(len(rows)), [row for row, _ in self.failed[split]]))

    def dataset(self, images: dict[str, np.ndarray]) -> Dataset:
        """The data set of the decoded images, by split."""
        plan = self.plan
        rows = {split: self.kept(split) for split in plan.splits}
        skipped = [line for split in plan.splits for _, line in self.failed[split]]
        left = np.bincount(rows["train"].labels, minlength=len(plan.class_names))
        empty = next((split for split, kept in rows.items() if not len(kept)), None)
        if empty or left.min() == 0:
            what = (
                f"{empty} images" if left.min() else f"training images of class {plan.class_names[int(left.argmin())]}"
            )
            raise RuntimeError(f"{plan.name}: no {what} are left after {len(skipped)} corrupt ones ({skipped[0]}, ...)")
        sha = hashlib.sha256()
        for split in plan.splits:
            sha.update(self.sha256[split])
        names = [name for split in plan.splits for name in rows[split].names]
        sha.update("\n".join(names).encode())
        mean, std = (plan.mean, plan.std) if plan.mean else level_statistics(self.levels)
        provenance = {
            **plan.provenance,
            "files": [
                # Of every image's SHA-256, then the names.
                {"file": f"{len(names)} images", "sha256": sha.hexdigest()},
                *plan.provenance.get("files", []),
            ],
        }
        if plan.remarks:
            provenance["remarks"] = list(plan.remarks)
        if skipped:
            provenance["skipped"] = skipped
        splits = {split: Split(images[split], kept.labels, kept.groups) for split, kept in rows.items()}
        return Dataset(
            name=plan.name,
            **splits,
            class_names=plan.class_names,
            group_names=plan.group_names,
            mean=mean,
            std=std,
            provenance=provenance,
        )
