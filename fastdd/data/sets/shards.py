"""Data sets of other ecosystems' files: tar shards (WebDataset), and tables of images (Hugging Face, Parquet)."""

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fastdd.core.files import DAMAGE, reason
from fastdd.core.reading import parse_json
from fastdd.core.text import shown
from fastdd.data.dataset import Dataset
from fastdd.data.files.decode import Recipe, check_size, decode
from fastdd.data.files.tree import is_image
from fastdd.data.sets.memory import Part, assembled, of_picture

_SPLITS = {"train": ("train",), "test": ("test",), "validation": ("val",)}
# Fields of a sample that are its class, in the order in which they are looked for.
_LABELS = ("cls", "label", "class", "labels", "target", "y")
# What the fields beside an image hold, by their suffix; others are not read.
_TEXT = (".cls", ".txt", ".json")
_MOST_TEXT = 1 << 20


def of_webdataset(
    train: Any,
    test: Any = None,
    validation: Any = None,
    *,
    size: int = 32,
    label: str | None = None,
    group: str | None = None,
    **about: Any,
) -> Dataset:
    """:meth:`fastdd.data.Dataset.from_webdataset`."""
    shards = _shards(train, test, validation)
    parts = {split: _of_shards(paths, size, label, group) for split, paths in shards.items()}
    names = [path.name for paths in shards.values() for path in paths]
    told = {"builder": "webdataset", "files": [{"file": name} for name in names]}
    return assembled(parts, provenance=told, **about)


def _shards(train: Any, test: Any, validation: Any) -> dict[str, list[Path]]:
    """The shards of every split; a folder's by the names of its files or of its folders."""
    given = {"train": train, "test": test, "validation": validation}
    if isinstance(train, str | os.PathLike) and Path(train).is_dir() and test is None and validation is None:
        every = sorted(Path(train).rglob("*.tar"))
        for split in _SPLITS:
            given[split] = [path for path in every if _split_of(path.relative_to(train)) == split] or None
        held_out = {*(given["test"] or ()), *(given["validation"] or ())}
        given["train"] = given["train"] or [path for path in every if path not in held_out]
        if not given["train"]:
            raise FileNotFoundError(f"{train} has no shards (*.tar) to train on")
    return {split: _paths(what) for split, what in given.items() if what is not None}


def _split_of(path: Path) -> str | None:
    """The split that a file's name begins with, else that of the innermost folder that begins with one; None: neither.

    >>> [_split_of(Path(path)) for path in ("default/train/0.parquet", "plain_text/test-0.parquet", "0.tar")]
    ['train', 'test', None]
    """
    said = (ours for part in reversed(path.parts) for ours, words in _SPLITS.items() if part.lower().startswith(words))
    return next(said, None)


def _paths(what: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    several = [what] if isinstance(what, str | os.PathLike) else list(what)
    paths: list[Path] = []
    for one in map(str, several):
        paths += sorted(map(Path, glob.glob(one))) if glob.has_magic(one) and not Path(one).exists() else [Path(one)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None or not paths:
        raise FileNotFoundError(f"there is no shard {missing or what}")
    return paths


def _of_shards(paths: list[Path], size: int, label: str | None, group: str | None) -> Part:
    images, labels, groups = [], [], []
    for path in paths:
        for key, sample in samples(path):
            where = f"{path}: {key}"
            content = sample.get("image")
            if content is None:
                raise ValueError(f"{where} has no image, only {', '.join(sorted(sample))}")
            try:
                images.append(decode(content, Recipe(size)))
            except ValueError as error:
                raise RuntimeError(f"cannot decode {where}: {error}") from None
            labels.append(field_of(sample, label, where, "label"))
            if group is not None:
                groups.append(field_of(sample, group, where, "group"))
    if not images:
        raise ValueError(f"{paths[0]} has no samples")
    return Part(np.stack(images), _alike(labels), _alike(groups) if group is not None else None)


def _alike(values: list[int | str]) -> np.ndarray:
    """Whole numbers where all are, else words."""
    if any(value is None for value in values):
        raise ValueError(f"row {values.index(None)} has no class or no group: fill it in, or leave the row out")
    numbers = all(isinstance(value, int) for value in values)
    return np.array(values, np.int64) if numbers else np.array([str(value) for value in values])


def samples(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samples of a shard, members KEY.jpg, KEY.cls, KEY.json that follow each other: ``image``, its content; the
    values of the others by their suffix, those of JSON by their own names. Of several images it is the one that is
    called KEY.jpg, not KEY.mask.png; hidden files are none.

    Raises:
        RuntimeError: in one line: no tar archive, or damaged.
        ValueError: several images of a sample, of which none is the one.
    """
    try:
        with tarfile.open(path) as archive:
            key, sample, images = None, {}, {}
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.name.startswith("."):
                    continue
                here = str(name.with_name(name.name.partition(".")[0]))
                if here != key and (sample or images):
                    yield key, _whole(sample, images, f"{path}: {key}")
                    sample, images = {}, {}
                key = here
                _add(sample, images, name.name, member, archive)
            if sample or images:
                yield key, _whole(sample, images, f"{path}: {key}")
    except (tarfile.TarError, *DAMAGE) as error:
        if str(path) in str(error):
            raise
        raise RuntimeError(f"{path} is no tar archive of samples, or damaged: {reason(error)}") from None


def _whole(sample: dict[str, Any], images: dict[str, bytes], where: str) -> dict[str, Any]:
    """A sample with its image, which no field of that name stands for."""
    chosen = [suffix for suffix in images if "." not in suffix] or [*images]
    if len(chosen) > 1:
        raise ValueError(f"{where} has the images {', '.join(chosen)}: leave one of them, whose suffix has no dot")
    whole = {name: value for name, value in sample.items() if name != "image"}
    if chosen:
        whole["image"] = images[chosen[0]]
    return whole


def _add(
    sample: dict[str, Any], images: dict[str, bytes], name: str, member: tarfile.TarInfo, archive: tarfile.TarFile
) -> None:
    suffix = "." + name.partition(".")[2].lower()
    if is_image(name):
        check_size(member.size)
        images[suffix[1:]] = archive.extractfile(member).read()
    elif suffix.endswith(_TEXT) and member.size <= _MOST_TEXT:
        text = archive.extractfile(member).read().decode()
        if suffix.endswith(".json"):
            values = parse_json(text)
            sample.update({str(name): value for name, value in values.items()} if isinstance(values, dict) else {})
        else:
            value = text.strip()
            sample[suffix[1:].rpartition(".")[2]] = int(value) if value.lstrip("-").isdecimal() else value


def field_of(sample: dict[str, Any], name: str | None, where: str, what: str) -> int | str:
    names = (name,) if name is not None else _LABELS
    found = next((one for one in names if one in sample), None)
    there = ", ".join(sorted(set(sample) - {"image"})) or "nothing beside the image"
    if found is None:
        raise ValueError(f"{where} has no {' or '.join(names[:2])}, but {there}: name its field, {what}=")
    value = sample[found]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{where}: {found} must be a whole number or a word, not {shown(value)}")
    return value


def of_huggingface(
    source: Any,
    *,
    size: int = 32,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    test: str | None = None,
    **about: Any,
) -> Dataset:
    """:meth:`fastdd.data.Dataset.from_huggingface`."""
    datasets = huggingface()
    splits = huggingface_splits(datasets, source)
    if "test" not in splits and test is None and "validation" in splits:
        test = "validation"
    wanted = {"train": "train", "test": test or "test"}
    if test != "validation":
        wanted["validation"] = "validation"
    if test is not None and test not in splits:
        raise ValueError(f"there is no split {test!r}; it has {', '.join(splits)}")
    chosen = {ours: splits[theirs] for ours, theirs in wanted.items() if theirs in splits}
    if "train" not in chosen:
        if len(splits) > 1:
            raise ValueError(f"there is no split train; it has {', '.join(splits)}")
        chosen = {"train": next(iter(splits.values()))}
    columns = image_columns(datasets, chosen["train"], image, label, group)
    parts, names = {}, {}
    for split, table in chosen.items():
        where = f"{source}, {split}" if isinstance(source, str | os.PathLike) else split
        parts[split] = _of_table(datasets, table, columns, size, where)
    for what, column in (("class_names", columns[1]), ("group_names", columns[2])):
        feature = chosen["train"].features[column] if column else None
        if isinstance(feature, datasets.ClassLabel):
            names[what] = list(feature.names)
    about = {**names, **{name: value for name, value in about.items() if value is not None}}
    told = {
        "builder": "huggingface",
        "files": [{"file": shown(source) if not isinstance(source, str | os.PathLike) else Path(source).name}],
    }
    return assembled(parts, provenance=told, **about)


def huggingface() -> Any:
    """The package ``datasets``; RuntimeError where it is not there."""
    try:
        import datasets
    except ImportError:
        raise RuntimeError("this needs the package datasets: pip install 'fastdd[hf]'") from None
    return datasets


def huggingface_splits(datasets: Any, source: Any) -> dict[str, Any]:
    """The splits by name of what is loaded, of Parquet files, a folder of them or of ``save_to_disk``, or of a name."""
    if isinstance(source, datasets.Dataset):
        return {"train": source}
    if isinstance(source, dict):  # a DatasetDict is one
        return dict(source)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source is a path, a name, or of the package datasets, not {type(source).__name__}")
    path = Path(source)
    try:
        if path.is_file():
            return {"train": _of_parquet(datasets, [path])}
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            found = datasets.load_from_disk(str(path))
            return dict(found) if isinstance(found, dict) else {"train": found}
        if path.is_dir():
            return {split: _of_parquet(datasets, files) for split, files in _parquet_files(path).items()}
        return dict(datasets.load_dataset(str(source)))
    except FileNotFoundError:
        raise
    except Exception as error:  # the package raises whatever its readers meet
        raise RuntimeError(f"{source} can't be read by the package datasets: {reason(error)[:200]}") from None


def _of_parquet(datasets: Any, files: list[Path]) -> Any:
    """A table of files, without a copy of them in the package's cache."""
    import pyarrow.parquet

    return datasets.Dataset(pyarrow.parquet.read_table([str(file) for file in files]))


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files of a folder by their split, as their names or folders begin."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has no Parquet files and is no folder of save_to_disk")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file.relative_to(folder)) or "train", []).append(file)
    return by_split


def image_columns(
    datasets: Any, table: Any, image: str | None = None, label: str | None = None, group: str | None = None
) -> tuple[str, str, str | None]:
    """The columns of image, class and group: those that are named, else those whose type or name says it."""
    features = table.features
    for what, name in (("image", image), ("label", label), ("group", group)):
        if name is not None and name not in features:
            raise ValueError(f"there is no column {name!r} ({what}=); it has {', '.join(features)}")
    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image) or _is_bytes(kind)]
    classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    classes = [name for name in classes if name != group] or [name for name in _LABELS if name in features]
    for what, found, given in (("image", pictures, image), ("label", classes, label)):
        if given is None and len(found) != 1:
            raise ValueError(f"which column is the {what}? Name it, {what}=: it has {', '.join(features)}")
    return image or pictures[0], label or classes[0], group


def _is_bytes(kind: Any) -> bool:
    """Whether a column holds what an image column does, in a file that does not say so."""
    return isinstance(kind, dict) and set(kind) == {"bytes", "path"}


def _of_table(datasets: Any, table: Any, columns: tuple[str, str, str | None], size: int, where: str) -> Part:
    image, label, group = columns
    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    images = []
    for row, value in enumerate(table[image]):
        try:
            images.append(_pixels(value, size))
        except (ValueError, TypeError, OSError) as error:
            raise RuntimeError(f"cannot decode {where} row {row}: {reason(error)}") from None
    if not images:
        raise ValueError(f"{where} has no rows")
    values = [_alike(list(table[column])) if column else None for column in (label, group)]
    return Part(np.stack(images), *values)


def _pixels(value: Any, size: int) -> np.ndarray:
    if isinstance(value, dict):
        content = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        return decode(content, Recipe(size))
    if isinstance(value, bytes):
        return decode(value, Recipe(size))
    return of_picture(value, size)
