"""Image files as a data set: a plan of what is to be decoded, made into a :class:`Dataset` or streamed into a store."""

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.decode import Batch, Decoded, Recipe, cores, decode_all, read_item
from fastdd.data.files.readers import no_root

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# What Tiny-ImageNet and the ImageNet subsets are normalised by in published code.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH_IMAGES, _BATCH_BYTES = 64, 4 << 20
# Below it, starting worker processes takes longer than they save.
_SERIAL = 1500


class Tree:
    """A folder, a zip archive or an uncompressed tar archive, as names with forward slashes below its top.

    Raises:
        FileNotFoundError: there is none.
        RuntimeError: an archive that is damaged, or compressed as a whole, so that nothing in it can be picked out.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._entries: dict[str, tuple[str, str | None, int, int]] | None = None
        if self.path.is_dir():
            return
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no {self.path}")
        try:
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as archive:
                    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
                self._entries = {name: (str(self.path), name, 0, -1) for name in names}
            else:
                with tarfile.open(self.path, "r:") as archive:
                    self._entries = {
                        member.name.removeprefix("./"): (str(self.path), None, member.offset_data, member.size)
                        for member in archive
                        if member.isfile()
                    }
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise RuntimeError(
                f"{self.path} is no zip and no uncompressed tar archive ({error}); unpack it and give the folder"
            ) from None

    @cached_property
    def _folders(self) -> dict[str, tuple[set[str], list[str]]]:
        folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
        for name in self._entries:
            parts = name.split("/")
            for depth in range(len(parts) - 1):
                above = "/".join(parts[:depth])
                folders.setdefault(above, (set(), []))[0].add(parts[depth])
            folders.setdefault("/".join(parts[:-1]), (set(), []))[1].append(parts[-1])
        return folders

    def folders(self, below: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; none if it is not there."""
        if self._entries is None:
            try:
                with os.scandir(self.path / below) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(self._folders.get(below, (set(), []))[0])

    def files(self, below: str = "") -> list[str]:
        """Names of the files in a folder, sorted; none if it is not there."""
        if self._entries is None:
            try:
                with os.scandir(self.path / below) as entries:
                    return sorted(entry.name for entry in entries if not entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(self._folders.get(below, (set(), []))[1])

    def images(self, below: str) -> list[str]:
        """Names (below the top) of the images in a folder, sorted; not those that start with a dot."""
        return [
            f"{below}/{name}" if below else name
            for name in self.files(below)
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]

    def has(self, name: str) -> bool:
        return (self.path / name).is_file() if self._entries is None else name in self._entries

    def item(self, name: str) -> tuple[str, str | None, int, int]:
        """Where a file's bytes are, as :class:`fastdd.data.files.decode.Batch` takes it."""
        return (str(self.path / name), None, 0, -1) if self._entries is None else self._entries[name]

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: it can't be read.
        """
        if not self.has(name):
            raise FileNotFoundError(f"{self.shown(name)} is missing")
        try:
            return read_item(*self.item(name))
        except OSError as error:
            raise RuntimeError(f"cannot read {self.shown(name)}: {error.strerror}") from None

    def shown(self, name: str) -> str:
        """How a message names a file."""
        return str(self.path / name)


def find(root: str | os.PathLike | None, title: str, wanted: str, page: str, places: Sequence[str], test) -> Tree:
    """The first of the usual places below a root that holds a data set.

    Args:
        root: the root; may be None.
        title, wanted, page: of the data set: its name, what is looked for, where it is offered; for messages.
        places: folders or archives below the root, ``.`` for itself; also looked for in each folder of the root.
        test: ``test(tree)``: whether the data set is there.

    Raises:
        FileNotFoundError: no root, or the data set is in none of them.
    """
    if root is None:
        raise no_root(title, wanted, page)
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"the data root {root} does not exist")
    tried = []
    if root.is_file():
        tried.append(root)
    else:
        deeper = sorted(path for path in root.iterdir() if path.is_dir())
        tried += [base / place for base in (root, *deeper) for place in places]
    for path in tried:
        if path.exists():
            tree = Tree(path)
            if test(tree):
                return tree
    looked = ", ".join(str(root / place) for place in places)
    raise FileNotFoundError(f"{title}: {wanted} not found in {looked}; offered at {page}")


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
        train, test: the splits.
        class_names, group_names: as of :class:`Dataset`.
        recipe: how pixels are made.
        mean, std: as of :class:`Dataset`; those of the training pixels if None.
        provenance: what else the data set's provenance has; ``files`` lists annotations.
        remarks: lines on how what is there differs from what the publisher offers.
        skip_corrupt: leave out images that can't be decoded, and list them in the provenance.

    Raises:
        ValueError: a split without an image, or a class without training images.
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

    def __post_init__(self):
        if self.recipe.size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {self.recipe.size}")
        for split in ("train", "test"):
            if len(getattr(self, split)) == 0:
                raise ValueError(f"{self.tree.path}: {self.name} has no {split} image")
        empty = np.flatnonzero(np.bincount(self.train.labels, minlength=len(self.class_names)) == 0)
        if len(empty):
            raise ValueError(f"{self.tree.path}: class {self.class_names[empty[0]]} has no training image")

    def __len__(self) -> int:
        return len(self.train) + len(self.test)

    def shape(self, split: str) -> tuple[int, int, int, int]:
        return len(getattr(self, split)), 3, self.recipe.size, self.recipe.size

    def fingerprint(self) -> str:
        """SHA-256 over all that decides the result but the files' content and whether corrupt ones are left out."""
        sha = hashlib.sha256(repr((self.name, self.recipe, self.mean, self.std)).encode())
        sha.update(repr((self.class_names, self.group_names, self.provenance.get("files"), self.remarks)).encode())
        for rows in (self.train, self.test):
            sha.update("\n".join(rows.names).encode())
            for array in (rows.labels, rows.groups, self._gray(rows)):
                sha.update(np.ascontiguousarray(array))
        return sha.hexdigest()

    @staticmethod
    def _gray(rows: Rows) -> np.ndarray:
        return np.zeros(len(rows), bool) if rows.gray is None else rows.gray

    def decoded(self, split: str, first: int = 0, workers: int | None = None) -> Iterator["Part"]:
        """The images of a split from row ``first`` on, in order, some at a time.

        Args:
            split: ``train`` or ``test``.
            first: of the split's rows.
            workers: processes that decode; by default all cores if there are enough images, else this process.

        Raises:
            RuntimeError: an image that can't be decoded, naming it, unless they are skipped.
        """
        rows: Rows = getattr(self, split)
        gray = self._gray(rows)
        count = max(1, min(_BATCH_IMAGES, _BATCH_BYTES // (3 * self.recipe.size**2)))
        starts = range(first, len(rows), count)
        if not starts:
            return
        if workers is None:
            workers = 1 if len(rows) - first < _SERIAL else cores()

        def batches() -> Iterable[Batch]:
            for start in starts:
                stop = min(start + count, len(rows))
                yield Batch([self.tree.item(name) for name in rows.names[start:stop]], gray[start:stop], self.recipe)

        for start, done in zip(starts, decode_all(batches(), max(1, min(workers, len(starts)))), strict=True):
            failed = [(start + position, why) for position, why in done.failed]
            if failed and not self.skip_corrupt:
                row, why = failed[0]
                hint = "leave out such images with --skip-corrupt (skip_corrupt=True in Python)"
                raise RuntimeError(f"cannot decode {self.tree.shown(rows.names[row])}: {why}; {hint}")
            stop = min(start + count, len(rows))
            yield Part(stop, done, [(row, f"{rows.names[row]}: {why}") for row, why in failed])

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
        for split in SPLITS:
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


SPLITS = ("train", "test")


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


class Tally:
    """What is counted while a plan is decoded; makes the :class:`Dataset` at the end."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.stops = dict.fromkeys(SPLITS, 0)
        self.levels = np.zeros((3, 256), np.int64)
        self.failed: dict[str, list[tuple[int, str]]] = {split: [] for split in SPLITS}
        self.sha256 = {split: bytearray() for split in SPLITS}

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
        rows = {split: self.kept(split) for split in SPLITS}
        skipped = [line for split in SPLITS for _, line in self.failed[split]]
        left = np.bincount(rows["train"].labels, minlength=len(plan.class_names))
        if not len(rows["test"]) or left.min() == 0:
            what = "test images" if left.min() else f"training images of class {plan.class_names[int(left.argmin())]}"
            raise RuntimeError(f"{plan.name}: no {what} are left after {len(skipped)} corrupt ones ({skipped[0]}, ...)")
        sha = hashlib.sha256()
        for split in SPLITS:
            sha.update(self.sha256[split])
        names = [name for split in SPLITS for name in rows[split].names]
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
        return Dataset(
            plan.name,
            *(Split(images[split], rows[split].labels, rows[split].groups) for split in SPLITS),
            plan.class_names,
            plan.group_names,
            mean,
            std,
            provenance,
        )


def level_statistics(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, pixels scaled to [0, 1], from exact counts of the 256 levels.

    A constant channel gets the std 1/255, so that it can be normalised.

    Args:
        counts: int64 [C, 256].
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for count in counts:
        mean = float(count @ levels / count.sum())
        means.append(mean)
        stds.append(max(float(np.sqrt(count @ (levels - mean) ** 2 / count.sum())), 1 / 255))
    return tuple(means), tuple(stds)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """:func:`level_statistics` of uint8 images [N, C, H, W].

    >>> channel_statistics(np.array([0, 255], np.uint8).reshape(1, 1, 1, 2))
    ((0.5,), (0.5,))
    """
    channels = [np.array_split(images[:, channel], 64) for channel in range(images.shape[1])]
    return level_statistics(
        np.stack([sum(np.bincount(part.ravel(), minlength=256) for part in parts) for parts in channels])
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


def even_cells(labels: np.ndarray, groups: np.ndarray, random: np.random.RandomState, most: int | None = None):
    """Rows (sorted) that leave every cell, class and group, the size of the smallest that has any.

    Args:
        labels, groups: int64 [N].
        random: drawn from, cell by cell; advanced.
        most: of a cell, at most so many.
    """
    cells = labels * (groups.max() + 1) + groups
    sizes = np.bincount(cells)
    size = min(sizes[sizes > 0].min(), len(labels) if most is None else most)
    chosen = [random.permutation(np.flatnonzero(cells == cell))[:size] for cell in np.flatnonzero(sizes)]
    return np.sort(np.concatenate(chosen))


def drop_to_ratio(labels: np.ndarray, groups: np.ndarray, ratio: float, random: np.random.RandomState) -> np.ndarray:
    """Rows (sorted) that are left when images are dropped until each class's aligned group is ``ratio`` of it.

    From Fake to Real (section 4: "we vary the bias of the majority groups"). The aligned group of a class is the one
    that it has more of than the whole set does, in proportion: argmax over g of P(g | class) / P(g). What is dropped
    are images of the other groups, in proportion to their sizes, or, where they are too few, of the aligned one.

    >>> labels, groups = np.repeat([0, 1], 100), np.tile(np.repeat([0, 1], [60, 40]), 2)
    >>> groups[100:] = 1 - groups[100:]
    >>> rows = drop_to_ratio(labels, groups, 0.75, np.random.RandomState(0))
    >>> np.bincount(labels[rows] * 2 + groups[rows]).tolist()
    [60, 20, 20, 60]
    """
    counts = np.zeros((labels.max() + 1, groups.max() + 1))
    np.add.at(counts, (labels, groups), 1)
    share = counts / counts.sum(1, keepdims=True)
    aligned = np.argmax(share / np.maximum(counts.sum(0) / counts.sum(), 1e-12), 1)
    kept = []
    for label, group in enumerate(aligned.tolist()):
        own = random.permutation(np.flatnonzero((labels == label) & (groups == group)))
        others = random.permutation(np.flatnonzero((labels == label) & (groups != group)))
        if len(own) <= ratio * (len(own) + len(others)):
            kept += [own, _spread(others, groups[others], round(len(own) * (1 - ratio) / ratio))]
        else:
            kept += [own[: round(len(others) * ratio / (1 - ratio))] if ratio < 1 else own, others]
    return np.sort(np.concatenate(kept))


def _spread(rows: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """``count`` of the rows, each group's part in proportion to its size: every so many-th of them by group."""
    ordered = rows[np.argsort(groups, kind="stable")]
    return ordered[np.floor((np.arange(count) + 0.5) * len(rows) / max(count, 1)).astype(np.int64)]


def stem(name: str) -> str:
    """The last part of a name, without its suffix."""
    return PurePosixPath(name).stem
