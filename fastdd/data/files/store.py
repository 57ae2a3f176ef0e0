"""The packed store: a data set as a folder of ``.npy`` files, opened memory-mapped, and ``meta.json``."""

import errno
import glob
import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastdd.core import bounds, files, reading
from fastdd.core.files import DAMAGE, partial_folder, reason, write_atomic, write_text
from fastdd.core.space import check_room
from fastdd.core.text import shown
from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.plan import Plan

SCHEMA = 1
_FORMAT = "fastdd-store"
_META = "meta.json"
_ARRAYS = ("images", "labels", "groups")
# Every store has the first two; versions that know no third read a store that has it, without.
_SPLITS = ("train", "test", "validation")
# Of the folder in which a store is made: the new one, and the one that it replaces.
FINISHED, _REPLACED = "store", "replaced"


def is_store(path: str | os.PathLike) -> bool:
    """Whether ``path`` is a folder with the ``meta.json`` of a packed store (its content is not checked).

    One that a killed ``overwrite`` had moved aside is put back.
    """
    _put_back(Path(path))
    try:
        meta = reading.parse_json(reading.content(Path(path) / _META))
    except DAMAGE:
        return False
    return isinstance(meta, dict) and meta.get("format") == _FORMAT


def _put_back(path: Path) -> None:
    """Where a kill came between the two renames of :func:`install`: the store that was there, in its place again."""
    if os.path.lexists(path):
        return
    for making in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if (making / _REPLACED).is_dir() and not files.held(making):
            os.rename(making / _REPLACED, path)
            return


def check_place(path: str | os.PathLike, overwrite: bool) -> None:
    """Whether a store can be written at ``path``.

    Raises:
        FileExistsError: ``path`` exists, and is not a store or ``overwrite`` is False.
        FileNotFoundError: the parent folder does not exist.
    """
    path = Path(path)
    _put_back(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: make it first")
    if path.exists():
        if not is_store(path):
            raise FileExistsError(f"{path} exists and is not a packed store: choose another path")
        if not overwrite:
            raise FileExistsError(
                f"the packed store {path} exists: choose another path, or replace it with --force "
                "(overwrite=True in Python)"
            )


def save_store(dataset: Dataset, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write a packed store: built in a temporary folder beside ``path``, then renamed, so it is whole or absent.

    Args:
        dataset: what to write; two equal data sets give the same bytes.
        path: the store's folder; its parent must exist.
        overwrite: replace a store that is there. Anything else there is never replaced.

    Raises:
        FileExistsError, FileNotFoundError: as :func:`check_place`.
        OSError: too little space, before anything is written; or naming the file that couldn't be written; ``path`` is
            then as it was.
    """
    path = linked_to(path)
    check_place(path, overwrite)
    arrays = [getattr(split, array) for split in dataset.splits.values() for array in _ARRAYS]
    check_room(path.parent, sum(array.nbytes for array in arrays), "the store")
    with partial_folder(path) as building:
        content = building / FINISHED
        content.mkdir()
        for split_name, split in dataset.splits.items():
            write_arrays(content, split_name, split, _ARRAYS)
        write_meta(content, dataset, dataset.digest())
        install(building, path, overwrite)


def write_arrays(folder: Path, split_name: str, split: Split, arrays: Sequence[str]) -> None:
    """Some arrays of a split as ``.npy`` files, each whole or absent."""
    for array_name in arrays:
        array = getattr(split, array_name)
        file = folder / f"{split_name}-{array_name}.npy"
        write_atomic(file, lambda file, array=array: np.save(file, array, allow_pickle=False))


def write_meta(folder: Path, dataset: Dataset, digest: str) -> None:
    """The ``meta.json`` of a store."""
    shapes = {
        f"{split_name}-{array_name}.npy": list(getattr(split, array_name).shape)
        for split_name, split in dataset.splits.items()
        for array_name in _ARRAYS
    }
    meta = {
        "format": _FORMAT,
        "schema": SCHEMA,
        "name": dataset.name,
        "class_names": dataset.class_names,
        "group_names": dataset.group_names,
        "mean": dataset.mean,
        "std": dataset.std,
        "provenance": dataset.provenance,
        "shapes": shapes,
        "digest": digest,
    }
    write_text(folder / _META, json.dumps(meta, indent=1) + "\n")


def linked_to(path: str | os.PathLike) -> Path:
    """What is written where ``path`` is a link: what that points to, be it there or not; the link stays."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def install(building: Path, path: Path, overwrite: bool) -> None:
    """Put ``building/store`` at ``path``, in the place of the store that is there if ``overwrite``.

    That one is then somewhere in ``building``. At any moment one of them is at ``path``; on systems that can't let two
    folders change places, it is put back there when next it is looked for.

    Raises:
        FileExistsError: what :func:`check_place` refuses came there while the store was built; it stays.
    """
    check_place(path, overwrite)
    finished, replaced = building / FINISHED, building / _REPLACED
    if path.exists() and files.exchange(finished, path):
        return
    try:
        if path.exists():
            os.rename(path, replaced)  # a folder can't be renamed over one that is not empty
        try:
            os.rename(finished, path)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(f"{path} exists, and did not a moment ago: choose another path") from None
            raise
    finally:
        if replaced.exists():  # under its name it would be put back where the new one is not, later
            os.rename(replaced, building / "discarded" if path.exists() else path)


def written_digest(path: Path) -> str | None:
    """The digest in the ``meta.json`` of a store; None where there is no store."""
    return json.loads((path / _META).read_text(encoding="utf-8")).get("digest") if is_store(path) else None


def store_of(dataset: Dataset) -> Path | None:
    """The packed store that the data set was opened from; None for one of memory."""
    images = dataset.train.images
    if not isinstance(images, np.memmap) or not isinstance(images.base, mmap.mmap):
        return None
    folder = Path(os.path.abspath(images.filename)).parent
    return folder if is_store(folder) else None


def _read_meta(path: Path) -> dict:
    if not is_store(path):
        raise FileNotFoundError(f"{path} is not a packed store: it has no {_META} of one")
    meta = reading.parse_json(reading.content(path / _META))
    if meta.get("schema") != SCHEMA:
        schema = shown(meta.get("schema"))
        raise RuntimeError(f"{path}: schema {schema} can't be read, only {SCHEMA}; build the store again")
    kinds = {"name": str, "class_names": list, "group_names": list, "mean": list, "std": list, "provenance": dict}
    for name, kind in {**kinds, "digest": str}.items():
        names = meta.get(name, []) if name.endswith("names") else []
        if not isinstance(meta.get(name), kind) or not all(isinstance(word, str) for word in names):
            value = shown(meta.get(name))
            raise RuntimeError(f"{path} is damaged ({_META} has {name} {value}); build the store again")
    if not isinstance(meta["provenance"].get("parameters", {}), dict):
        raise RuntimeError(f"{path} is damaged ({_META} has provenance without parameters); build the store again")
    return meta


def open_store(path: str | os.PathLike) -> Dataset:
    """The data set of a packed store; images stay on the disk, memory-mapped (copy-on-write), read as they are used.

    Args:
        path: the store's folder.

    Raises:
        FileNotFoundError: no store there.
        RuntimeError: another schema, or a missing or damaged file, naming it.

    Cost: no pixel is read, so the digest is the one that was written; :func:`check_store` computes it.
    """
    path = Path(path)
    meta = _read_meta(path)
    splits = {}
    shapes = meta.get("shapes")
    shapes = shapes if isinstance(shapes, dict) else {}
    for split_name in _SPLITS:
        if split_name == "validation" and not any(f"validation-{array}.npy" in shapes for array in _ARRAYS):
            continue
        arrays = {}
        for array_name in _ARRAYS:
            file = path / f"{split_name}-{array_name}.npy"
            try:
                arrays[array_name] = (bounds.map_npy if array_name == "images" else bounds.load_npy)(file)
            except (*DAMAGE, RuntimeError) as error:
                raise RuntimeError(f"{file} is missing or damaged ({reason(error)}); build the store again") from None
            expected = shapes.get(file.name)
            if list(arrays[array_name].shape) != expected:
                raise RuntimeError(
                    f"{file} has the shape {list(arrays[array_name].shape)}, {_META} says {shown(expected)}"
                )
        splits[split_name] = arrays
    try:
        dataset = Dataset(
            name=meta["name"],
            **{split_name: Split(**arrays) for split_name, arrays in splits.items()},
            class_names=tuple(meta["class_names"]),
            group_names=tuple(meta["group_names"]),
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            provenance=meta["provenance"],
        )
        # Of pixels that may not fit into memory.
        vars(dataset)["_digest"] = meta["digest"]
    except DAMAGE as error:
        raise RuntimeError(f"{path} is damaged ({reason(error)}); build the store again") from None
    return dataset


def open_finished(path: str | os.PathLike, made: Dataset | Plan) -> Dataset:
    """The store at ``path``, which a build of ``made`` that is continued finds done.

    Raises:
        FileExistsError: it is of other data, or was built with other options.
        RuntimeError: as :func:`open_store`.
    """
    found = open_store(path)
    files.remove_partials(Path(path).parent, of=Path(path).name)
    names = ("name", "class_names", "group_names")
    same = all(getattr(found, name) == getattr(made, name) for name in names)
    same = same and _parameters(found) == _parameters(made)
    if isinstance(made, Dataset):
        same = same and found.digest() == made.digest()
    else:
        images = sum(map(len, found.splits.values())) + len(found.provenance.get("skipped", []))
        same = same and images == len(made) and found.splits.keys() == made.splits.keys()
    if not same:
        raise FileExistsError(
            f"the packed store {path} exists, of other data or other options: choose another path, or replace it with "
            "--force (overwrite=True in Python)"
        )
    return found


def _parameters(made: Dataset | Plan) -> object:
    """Options, as JSON has them."""
    return json.loads(json.dumps(made.provenance.get("parameters", {})))


def check_store(path: str | os.PathLike) -> list[str]:
    """What is wrong with a packed store, one line each; empty when it is sound. Reads every pixel.

    Args:
        path: the store's folder.

    Raises:
        FileNotFoundError: no store there.
    """
    path = Path(path)
    try:
        meta = _read_meta(path)
        dataset = open_store(path)
    except RuntimeError as error:
        return [str(error)]
    problems = []
    digest = dataset.compute_digest()
    if digest != meta.get("digest"):
        problems.append(f"{path}: the pixels, labels or groups changed: digest {digest}, written {meta.get('digest')}")
    for label in np.flatnonzero(dataset.train.counts(dataset.num_classes, dataset.num_groups).sum(1) == 0):
        problems.append(f"{path}: class {label} ({dataset.class_names[label]}) has no training image")
    return problems
