"""The data sets by name: one door, :func:`load`, to the embedded, the published, the biased and one's own."""

import dataclasses
import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.data.dataset import Dataset, Split
from fastdd.data.files import readers
from fastdd.data.files.images import Plan, gray_or_colour
from fastdd.data.files.store import build_store, check_place, is_store, open_store, save_store
from fastdd.data.sets import animals, backgrounds, builders, faces, imagenet, lff
from fastdd.data.sets.folder import folder
from fastdd.data.sets.variants import with_variants


@dataclass(frozen=True)
class Entry:
    """A data set of the catalog.

    Args:
        description: one line.
        load: ``load(root, *, option=default, ...)``; its keyword-only parameters are the data set's options. It checks
            their values (ValueError, one line); :func:`load` has checked their types, ``bias_ratio`` and ``seed``. Of
            image files, it returns a plan, which is decoded into memory, or streamed into a store (:func:`build`).
        published: numbers of training and test images with the default options.
    """

    description: str
    load: Callable[..., Dataset | Plan]
    published: tuple[int, int] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options and their defaults."""
        parameters = inspect.signature(self.load).parameters.values()
        return {
            parameter.name: parameter.default for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY
        }


def built(read: Callable[..., Any], build: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """``build(read(root), **options)`` as an :class:`Entry`'s ``load``, with the options of ``build``."""

    def load(root, **options) -> Dataset:
        return build(read(root), **options)

    load.__signature__ = inspect.signature(build)
    return load


def _subset(name: str) -> Callable[..., Plan]:
    def plan(root, *, size: int = 128, skip_corrupt: bool = False) -> Plan:
        return imagenet.imagenet_subset(name, root, size, skip_corrupt)

    return plan


def _subset_s(name: str) -> Callable[..., Plan]:
    def plan(
        root,
        *,
        bias_ratio: float = imagenet.BIAS_RATIO,
        seed: int = imagenet.SEED,
        size: int = 128,
        skip_corrupt: bool = False,
    ) -> Plan:
        subset = imagenet.imagenet_subset(name, root, size, skip_corrupt)
        return gray_or_colour(subset, f"{name}-s", bias_ratio, seed)

    return plan


def _biased(read: Callable[..., Any], build: Callable[..., Dataset]) -> Callable[..., Dataset]:
    return with_variants(built(read, build))


def _plain(name: str, source: readers.Source, class_names, mean, std) -> Dataset:
    splits = (
        Split(images, labels, np.zeros(len(labels), np.int64))
        for images, labels in (
            (source.train_images, source.train_labels),
            (source.test_images, source.test_labels),
        )
    )
    return Dataset(name, *splits, class_names, ("all",), mean, std, {"builder": name, "files": source.files})


def _mnist(source: readers.Source) -> Dataset:
    return _plain("mnist", source, builders.DIGITS, (0.1307,), (0.3081,))


def _fashion_mnist(source: readers.Source) -> Dataset:
    return _plain("fashion-mnist", source, builders.FASHION_CLASSES, (0.2861,), (0.3530,))


def _cifar10(source: readers.Source) -> Dataset:
    constants = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return _plain("cifar10", source, readers.CIFAR10_CLASSES, *constants)


def _cifar100(found: tuple[readers.Source, tuple[str, ...]]) -> Dataset:
    return _plain("cifar100", *found, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))


def _svhn(source: readers.Source) -> Dataset:
    return _plain("svhn", source, builders.DIGITS, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def _c_digits(
    root, *, bias_ratio: float = builders.PUBLISHED_BIAS_RATIO, seed: int = builders.C_DIGITS_SEED
) -> Dataset:
    return builders.c_digits(bias_ratio=bias_ratio, seed=seed)


def _read_mnist(root) -> readers.Source:
    return readers.read_mnist_files(root, readers.MNIST)


def _read_fashion_mnist(root) -> readers.Source:
    return readers.read_mnist_files(root, readers.FASHION_MNIST)


_MNIST, _CIFAR10 = (60_000, 10_000), (50_000, 10_000)
_ENTRIES = {
    "c-digits": Entry("embedded: 1,797 real 8x8 digits at 16x16, in ten colours", with_variants(_c_digits)),
    "mnist": Entry("MNIST, 1x28x28", built(_read_mnist, _mnist), published=_MNIST),
    "fashion-mnist": Entry("Fashion-MNIST, 1x28x28", built(_read_fashion_mnist, _fashion_mnist), published=_MNIST),
    "cifar10": Entry("CIFAR-10, 3x32x32", built(readers.read_cifar10, _cifar10), published=_CIFAR10),
    "cifar100": Entry("CIFAR-100, 3x32x32", built(readers.read_cifar100, _cifar100), published=_CIFAR10),
    "svhn": Entry("SVHN, cropped digits, 3x32x32", built(readers.read_svhn, _svhn), published=(73_257, 26_032)),
    "c-mnist-fg": Entry(
        "C-MNIST (FG): digits in ten colours, 3x32x32", _biased(_read_mnist, builders.c_mnist_fg), published=_MNIST
    ),
    "c-mnist-bg": Entry(
        "C-MNIST (BG): backgrounds in ten colours, 3x32x32", _biased(_read_mnist, builders.c_mnist_bg), published=_MNIST
    ),
    "c-fmnist-fg": Entry(
        "C-FMNIST (FG): Fashion-MNIST's objects in ten colours, 3x32x32",
        _biased(_read_fashion_mnist, builders.c_fmnist_fg),
        published=_MNIST,
    ),
    "c-fmnist-bg": Entry(
        "C-FMNIST (BG): Fashion-MNIST on backgrounds in ten colours, 3x32x32",
        _biased(_read_fashion_mnist, builders.c_fmnist_bg),
        published=_MNIST,
    ),
    "cifar10-s": Entry(
        "CIFAR10-S: CIFAR-10, gray or colour, 3x32x32",
        _biased(readers.read_cifar10, builders.cifar10_s),
        published=(50_000, 20_000),
    ),
    "cmnist-lff": Entry("LfF's Colored MNIST: jittered colours, 3x28x28", _biased(_read_mnist, lff.cmnist_lff), _MNIST),
    "cmnist-dd": Entry("CMNIST-DD: jittered colours, 3x28x28", _biased(_read_mnist, lff.cmnist_dd), _MNIST),
    "corrupted-cifar10": Entry(
        "LfF's Corrupted CIFAR-10: ten corruptions, 3x32x32",
        _biased(readers.read_cifar10, lff.corrupted_cifar10),
        _CIFAR10,
    ),
    "ccifar10-dd": Entry(
        "CCIFAR10-DD: ten corruptions, 3x32x32", _biased(readers.read_cifar10, lff.ccifar10_dd), _CIFAR10
    ),
    "bg-fmnist": Entry(
        "BG-FMNIST, re-created: Fashion-MNIST over photographs of scenes, 3x32x32",
        _biased(_read_fashion_mnist, backgrounds.bg_fmnist),
        _MNIST,
    ),
    "tiny-imagenet": Entry("Tiny-ImageNet, 3x64x64, 200 classes", imagenet.tiny_imagenet, (100_000, 10_000)),
    "tiny-imagenet-s": Entry(
        "Tiny-ImageNet-S: gray or colour, 3x64x64", with_variants(imagenet.tiny_imagenet_s), (100_000, 20_000)
    ),
    **{
        name: Entry(f"ten classes of ImageNet, 3x128x128: {', '.join(list(classes.values())[:3])}, ...", _subset(name))
        for name, classes in imagenet.SUBSETS.items()
    },
    **{
        f"{name}-s": Entry(f"{name} of ImageNet Subset-S: gray or colour, 3x128x128", with_variants(_subset_s(name)))
        for name in imagenet.SUBSETS
    },
    "celeba": Entry("CelebA, 3x64x64: any attribute by any others", with_variants(faces.celeba), (162_770, 7_656)),
    "celeba-hq": Entry(
        "CelebA-HQ: smiling by gender, or any attributes", with_variants(faces.celeba_hq), (24_183, 2_824)
    ),
    "utkface": Entry(
        "UTKFace, 3x64x64: three ages by four races, or by gender", with_variants(faces.utkface), (20_813, 1_200)
    ),
    "bffhq": Entry("BFFHQ, 3x64x64: age by gender, 99.5 % aligned", with_variants(faces.bffhq), (19_200, 1_000)),
    "spuco-animals": Entry(
        "SpuCo Animals: birds and dogs by surroundings", with_variants(animals.spuco_animals), (42_000, 4_000)
    ),
    "folder": Entry(
        "one's own images: train/<class>/*.png and test/<class>/*.png (also jpg, webp, bmp) under the root", folder
    ),
}

# Of the others (plain sets, one's own images) training images can be held out too.
_ENTRIES = {
    name: dataclasses.replace(entry, load=with_variants(entry.load, only="val_split"))
    for name, entry in _ENTRIES.items()
}

# What an option with a default of a type has to be.
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def available() -> dict[str, str]:
    """The names that :func:`load` knows, each with one line on what it is.

    >>> available()["mnist"]
    'MNIST, 1x28x28'
    """
    return {name: entry.description for name, entry in _ENTRIES.items()}


def options(name: str | os.PathLike) -> dict[str, Any]:
    """The options that :func:`load` takes for a data set, and their defaults; a packed store has none.

    Raises:
        ValueError: an unknown name.

    >>> list(options("c-digits"))
    ['bias_ratio', 'seed', 'balanced', 'label_noise', 'group_noise', 'missing_groups', 'val_split']
    """
    entry = _entry(name)
    return {} if entry is None else entry.options


def built_with(metadata: Mapping[str, Any], name: str | os.PathLike) -> dict[str, Any]:
    """The options that the data set of a synthetic set was built with, from the set's metadata."""
    built = metadata.get("provenance", {}).get("parameters", {})
    return {option: built[option] for option in options(name) if option in built}


def load(name: str | os.PathLike, root: str | os.PathLike | None = None, **options: Any) -> Dataset:
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
    chosen = _chosen(name, {} if entry is None else entry.options, options)
    if entry is None:
        return open_store(name)
    made = _with_parameters(entry.load(root, **chosen), chosen)
    return made.dataset() if isinstance(made, Plan) else made


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
    done before a kill is kept (:func:`~fastdd.data.files.store.build_store`). Others are made in memory and written.

    Args:
        name, root, options: as of :func:`load`.
        path: the store's folder; its parent must exist.
        overwrite: replace a store that is there.
        resume: continue a build that was killed; start if there is none.
        workers: processes that decode; all cores by default. The store does not depend on it.
        progress: ``progress(done, total)``, in images.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: as :func:`load`; ValueError also for a store's folder as the name.
        FileExistsError, OSError: as :func:`~fastdd.data.files.store.build_store`.
    """
    entry = _entry(name)
    if entry is None:
        raise ValueError(f"{name} is a packed store already")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    check_place(path, overwrite)
    chosen = _chosen(name, entry.options, options or {})
    made = _with_parameters(entry.load(root, **chosen), chosen)
    if isinstance(made, Plan):
        return build_store(made, path, overwrite=overwrite, resume=resume, workers=workers, progress=progress)
    save_store(made, path, overwrite=overwrite)
    return open_store(path)


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


def _with_parameters(made, chosen: dict[str, Any]):
    """A data set, or a plan, whose provenance has all options."""
    parameters = made.provenance.get("parameters", {})
    for option, value in chosen.items():
        if value is not None:
            parameters = parameters | {option: os.fspath(value) if isinstance(value, os.PathLike) else value}
    return dataclasses.replace(made, provenance=made.provenance | {"parameters": parameters})


def _entry(name: str | os.PathLike) -> Entry | None:
    """The entry of a name; None for a packed store."""
    entry = _ENTRIES.get(name) if isinstance(name, str) else None
    if entry is None and not is_store(name):
        raise _unknown(name)
    return entry


def _chosen(name, defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The defaults, with the given values that are not None, checked."""
    chosen = dict(defaults)
    for option, value in given.items():
        if value is None:
            continue
        if option not in defaults:
            raise ValueError(f"{name} has no {option}: it can't be {value!r}; leave it out")
        chosen[option] = _checked(name, option, value, defaults[option])
    return chosen


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
    if option == "seed" and not 0 <= value < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, not {value}")
    return value


def _unknown(name: str | os.PathLike) -> ValueError:
    names = list(available())
    if Path(name).is_dir():
        return ValueError(f"{name} is not a packed store; if it holds images, load 'folder' with it as the root")
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return ValueError(f"unknown data set {str(name)!r}: {hint}known are {', '.join(names)}, or a packed store's folder")
