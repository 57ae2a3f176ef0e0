"""The data sets by name: one door, :func:`load`, to the embedded, the published, the biased and one's own."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.core import plugins
from fastdd.core.text import did_you_mean
from fastdd.data.dataset import Dataset
from fastdd.data.files.building import build_store
from fastdd.data.files.plan import Plan
from fastdd.data.files.store import check_place, is_store, open_finished, open_store, save_store
from fastdd.data.sets import DATASETS, Architecture
from fastdd.data.sets.entry import Entry, registered
from fastdd.data.sets.variants import with_variants

# What an option with a default of a type has to be.
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def available() -> dict[str, str]:
    """The names that :func:`load` knows, each with one line on what it is.

    >>> available()["mnist"]
    'MNIST, 1x28x28'
    """
    return {name: entry.description for name, entry in DATASETS.items()}


def register(name: str, load: Callable[..., Dataset | Plan], about: str, architecture: Architecture) -> None:
    """Add a user's data set (:func:`fastdd.register_dataset`)."""
    plugins.check_name(plugins.DATASET, name, DATASETS, load)
    if not isinstance(about, str) or not about.strip():
        raise TypeError(f"data set {name}: about is a line of text, not {about!r}")
    made = with_variants(registered(name, load), only={"val_split", "validation"})
    DATASETS[name] = Entry(" ".join(about.split()), made, architecture=architecture)
    plugins.claim(plugins.DATASET, name, load, lambda: DATASETS.pop(name, None))


def options(name: str | os.PathLike) -> dict[str, Any]:
    """The options that :func:`load` takes for a data set, and their defaults; a packed store has none.

    Raises:
        ValueError: an unknown name.

    >>> list(options("c-digits"))
    ['bias_ratio', 'seed', 'balanced', 'label_noise', 'group_noise', 'missing_groups', 'val_split', 'validation',
     'drop_to']
    """
    entry = _entry(name)
    return {} if entry is None else entry.options


def built_with(metadata: Mapping[str, Any], name: str | os.PathLike) -> dict[str, Any]:
    """The options that the data set of a synthetic set was built with, from the set's metadata."""
    parameters = metadata.get("provenance", {}).get("parameters", {})
    return {option: parameters[option] for option in options(name) if option in parameters}


def registered_name(metadata: Mapping[str, Any]) -> str | None:
    """The name by which the data set of a synthetic set is loaded: its own, or ``folder`` of an image folder that was
    given another; None where there is none."""
    name, provenance = metadata.get("dataset"), metadata.get("provenance") or {}
    given = (provenance.get("parameters") or {}).get("name")
    return name if name in DATASETS else provenance.get("builder") if name is not None and name == given else None


def load(name: str | os.PathLike, /, root: str | os.PathLike | None = None, **options: Any) -> Dataset:
    """The data set of a name (:func:`available`), or of a packed store's folder.

    Args:
        name: a registered name, or the path of a packed store (:func:`~fastdd.data.files.store.save_store`).
        root: folder of the publisher's files, or one that holds them in a usual subfolder; for ``folder``, the images'.
        options: the data set's own (:func:`options` lists them); None stands for the default. Many sets have
            ``bias_ratio``, the share of a class's training images in its majority group, 0..1 (published: 0.9), and
            ``seed``, that of the set's draws (default: the published builder's). ``provenance["parameters"]`` of the
            result has them all.

    Raises:
        ValueError: an unknown name, an option that the data set does not have, or a value out of its range.
        FileNotFoundError: no root, or files missing: names them, the folders looked in, and where they are offered.
        RuntimeError: a damaged file, naming it.

    Deterministic: the same files and arguments give the same bytes. C-MNIST takes about two seconds to build.

    >>> digits = load("c-digits")
    >>> digits.train.images.shape, digits.num_groups
    ((1297, 3, 16, 16), 10)
    """
    entry = _entry(name)
    values = _option_values(name, entry, options)
    if entry is None:
        return open_store(name)
    dataset = _with_parameters(entry.load(root, **values), values)
    return dataset.dataset() if isinstance(dataset, Plan) else dataset


def build(
    name: str,
    path: str | os.PathLike,
    root: str | os.PathLike | None = None,
    *,
    options: dict[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Build a data set into a packed store, and open it.

    Sets of image files are streamed: decoded in several processes, never more than a few images in memory, and what was
    done before a kill is kept (:func:`~fastdd.data.files.building.build_store`). Others are made in memory and written.

    Args:
        name, root, options: as of :func:`load`.
        path: the store's folder; its parent must exist.
        overwrite: replace a store that is there.
        resume: continue a build that was killed; start if there is none, and open the store if it is done.
        workers: processes that decode; all cores by default. The store does not depend on it.
        progress: ``progress(done, total)``, in images.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: as :func:`load`; ValueError also for a store's folder as the name.
        FileExistsError, OSError: as :func:`~fastdd.data.files.building.build_store`.
    """
    entry = _entry(name)
    if entry is None:
        raise ValueError(f"{name} is a packed store already")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    finished = resume and not overwrite and is_store(path)
    if not finished:
        check_place(path, overwrite)
    values = _option_values(name, entry, options or {})
    dataset = _with_parameters(entry.load(root, **values), values)
    if isinstance(dataset, Plan):
        return build_store(dataset, path, overwrite=overwrite, resume=resume, workers=workers, progress=progress)
    if finished:
        return open_finished(path, dataset)
    save_store(dataset, path, overwrite=overwrite)
    return open_store(path)


def image_paths(
    dataset: Dataset, name: str | os.PathLike, root: str | os.PathLike | None = None, **options: Any
) -> list[str] | None:
    """The files of the training images, row by row, below the root that the data set was made of.

    Args:
        dataset: the data set.
        name, root, options: that :func:`load` had; of a packed store its own root, and no options.

    Returns:
        None where a set is not of a file an image, some were left out, or a store comes without its root. The folders
        are listed again, and no image is read.
    """
    of = dataset.provenance.get("files")
    a_file_each = isinstance(of, list) and of and str(of[0].get("file", "")).endswith(" images")
    if not a_file_each or dataset.provenance.get("skipped"):
        return None
    entry = _entry(name)
    if entry is None:
        built = dataset.provenance.get("builder")
        if root is None or built not in DATASETS:
            return None
        entry, options = DATASETS[built], built_with({"provenance": dataset.provenance}, built)
    plan = entry.load(root, **_option_values(name, entry, options))
    return list(plan.train.names) if isinstance(plan, Plan) and len(plan.train) == len(dataset.train) else None


def published_counts(name: str, options: dict[str, Any]) -> tuple[int, int] | None:
    """Training and test images of the published data set; None if unknown, or if the options change them.

    >>> published_counts("bffhq", {"size": 32})
    (19200, 1000)
    """
    entry = _entry(name)
    if entry is None:
        return None
    defaults = entry.options
    for option in options.keys() - {"size", "skip_corrupt", "seed", "bias_ratio" if defaults.get("bias_ratio") else ""}:
        if options[option] not in (None, defaults.get(option)):
            return None
    return entry.published


def objects_in(dataset: Dataset, images: np.ndarray) -> np.ndarray | None:
    """Where the object is in some of a data set's images, uint8 [N, C, H, W]: bool [N, H, W]; None where that is not
    known. A packed store knows what it was built of. An image whose pixels do not tell has no pixel of an object."""
    entry = DATASETS.get(dataset.provenance.get("builder"))
    return None if entry is None or entry.objects is None else entry.objects(images)


def _with_parameters(dataset: Dataset | Plan, options: dict[str, Any]) -> Dataset | Plan:
    """A data set, or a plan, whose provenance has all options."""
    parameters = dataset.provenance.get("parameters", {})
    for option, value in options.items():
        if value is not None:
            parameters = parameters | {option: os.fspath(value) if isinstance(value, os.PathLike) else value}
    return dataclasses.replace(dataset, provenance=dataset.provenance | {"parameters": parameters})


def _entry(name: str | os.PathLike) -> Entry | None:
    """The entry of a name; None for a packed store."""
    entry = DATASETS.get(name) if isinstance(name, str) else None
    if entry is None and not is_store(name):
        raise _unknown(name)
    return entry


def _option_values(name, entry: Entry | None, given: dict[str, Any]) -> dict[str, Any]:
    """The defaults, with the given values that are not None, checked."""
    defaults, paths = ({}, set()) if entry is None else (entry.options, entry.paths)
    values = dict(defaults)
    for option, value in given.items():
        if value is None:
            continue
        if option not in defaults:
            hint = did_you_mean(option, defaults) or "; leave it out"
            shown = os.fspath(value) if isinstance(value, os.PathLike) else value
            raise ValueError(f"{name} has no {option}: it can't be {shown!r}{hint}")
        if option in paths and not isinstance(value, str | os.PathLike):
            raise ValueError(f"{option} of {name} must be a path, not {value!r}")
        values[option] = _checked(name, option, value, defaults[option])
    return values


def _checked(name, option: str, value: Any, default: Any) -> Any:
    # numpy's numbers are numbers; their own types can't be written as JSON.
    value = value.item() if isinstance(value, np.generic) else value
    kind = type(default)
    if kind in _KINDS:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"{option} of {name} must be {_KINDS[kind]}, not {value!r}")
    if option == "bias_ratio" and not isinstance(value, int | float):
        raise ValueError(f"{option} of {name} must be a number, not {value!r}")
    if option == "bias_ratio" and not 0 <= value <= 1:
        raise ValueError(f"bias_ratio must lie in 0..1, not {value}")
    if option == "seed" and type(value) is not int:
        raise ValueError(f"seed of {name} must be a whole number, not {value!r}")
    if option == "seed" and not 0 <= value < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, not {value}")
    return value


def _unknown(name: str | os.PathLike) -> ValueError:
    names = list(available())
    if Path(name).is_dir():
        return ValueError(f"{name} is not a packed store; if it holds images, load 'folder' with it as the root")
    if cure := plugins.cure(plugins.DATASET, name):
        return ValueError(f"unknown data set {str(name)!r}{cure}")
    if Path(name).exists() or len(Path(name).parts) > 1:
        there = "is a file" if Path(name).exists() else "does not exist"
        return ValueError(f"{name} {there}: a packed store is a folder that fastdd data build wrote")
    hint = did_you_mean(str(name), names)
    return ValueError(f"unknown data set {str(name)!r}{hint} (one of: {', '.join(names)}, or a packed store's folder)")
