"""Sets that LfF's and Biased-DD's scripts save as arrays: ``.npy`` files, and a ``.pth`` file of tensors.

How the scripts make them of MNIST and CIFAR-10 is in :mod:`fastdd.data.sets.lff`; here their own files are read, and
nothing that these may hold is run.
"""

import zipfile
from pathlib import Path

import numpy as np
import torch

from fastdd.core import bounds, files
from fastdd.data.dataset import Dataset, Split
from fastdd.data.files.readers import CIFAR10_CLASSES, CIFAR10_NORMALISATION, describe_file, no_root
from fastdd.data.files.statistics import channel_statistics
from fastdd.data.sets.builders import DIGITS
from fastdd.data.sets.lff import COLOUR_NAMES, SEVERITIES, corruption_names
from fastdd.data.sets.variants import check_share

LFF_PAGE = "https://github.com/alinlab/LfF"
BIASED_DD_PAGE = "https://github.com/yaolu-zjut/Biased-DD"
_HALF = ((0.5,) * 3, (0.5,) * 3)
_KINDS = ("mnist", "cifar10")
_TENSORS = ("imgs", "labs", "attrs")
_CHUNK = 4096


def lff(root) -> Dataset:
    """A set that LfF's ``make_dataset.py`` saved: ``images.npy`` and ``attrs.npy`` in ``train`` and in ``valid``.

    Images are uint8 [N, H, W, 3]; attributes, whole numbers [N, 2], are class and group. ``valid`` is what LfF tests
    on. By the folder's name (``ColoredMNIST-Skewed0.05-Severity4``, ``CorruptedCIFAR10-Type0-...``), classes and groups
    have the names, and pixels the mean and std, that ``cmnist-lff`` and ``corrupted-cifar10`` give them; otherwise
    numbers, and mean and std of the training pixels.

    Args:
        root: the set's folder, or one that holds one of them.

    Raises:
        FileNotFoundError: no root, or no such folder in it.
        ValueError: several of them; or attributes below 0, or as high as there are images.
        RuntimeError: an array that is damaged, holds Python objects or is of another kind, naming its file.

    Cost: all pixels are read into memory.
    """
    folder = _set_folder(root)
    splits, files = [], []
    for name in ("train", "valid"):
        images, attributes = (_array(folder / name / f"{what}.npy") for what in ("images", "attrs"))
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise RuntimeError(
                f"{folder / name / 'images.npy'} must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}"
            )
        if attributes.dtype.kind not in "iu" or attributes.shape != (len(images), 2):
            raise RuntimeError(
                f"{folder / name / 'attrs.npy'} must be whole numbers [{len(images)}, 2], class and group, not "
                f"{attributes.dtype} {list(attributes.shape)}"
            )
        labels, groups = attributes.T.astype(np.int64)
        splits.append(Split(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels, groups))
        files += [describe_file(folder / name / f"{what}.npy", f"{name}/{what}.npy") for what in ("images", "attrs")]
    train, test = splits
    class_names, group_names, normalisation = _names_by_folder(folder, train, test)
    mean, std = normalisation or channel_statistics(train.images)
    provenance = {"builder": "lff", "folder": folder.name, "files": files}
    return Dataset("lff", train, test, class_names, group_names, mean, std, provenance)


def _set_folder(root) -> Path:
    wanted = "train/images.npy, train/attrs.npy and valid"
    if root is None:
        raise no_root("LfF's files", wanted, LFF_PAGE)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"the data root {root} is not a folder")
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    found = [folder for folder in folders if (folder / "train/images.npy").is_file()]
    if not found:
        raise FileNotFoundError(
            f"LfF's files: {wanted} not found in {root}, nor in a folder of it; they are made by {LFF_PAGE}"
        )
    if root not in found and len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise ValueError(f"{root} holds {len(found)} sets ({names}): give the folder of one of them as the root")
    return found[0]


def _array(path: Path) -> np.ndarray:
    try:
        return bounds.load_npy(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"LfF's files: {path} is missing") from None
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error.strerror}") from None


def _names_by_folder(folder: Path, train: Split, test: Split):
    """Names of classes and groups, and mean and std where they are known."""
    counts = []
    for what in ("labels", "groups"):
        numbers = np.concatenate([getattr(train, what), getattr(test, what)])
        if numbers.min() < 0 or numbers.max() >= len(numbers):
            stray = numbers.min() if numbers.min() < 0 else numbers.max()
            raise ValueError(f"{folder}: {what} must be numbered from 0 on, and there is {stray}")
        counts.append(int(numbers.max()) + 1)
    if max(counts) <= 10 and folder.name.startswith("ColoredMNIST"):
        return DIGITS, COLOUR_NAMES, _HALF
    for kind in (0, 1):
        if max(counts) <= 10 and folder.name.startswith(f"CorruptedCIFAR10-Type{kind}"):
            return CIFAR10_CLASSES, corruption_names(kind), CIFAR10_NORMALISATION
    classes, groups = (range(count) for count in counts)
    return tuple(map(str, classes)), tuple(f"group {number}" for number in groups), None


def biased_dd(root, *, kind: str = "mnist", bias_ratio: float = 0.95, severity: int = 4) -> Dataset:
    """CMNIST-DD or CCIFAR10-DD as Biased-DD's scripts save it: ``MNIST_align0.95_severity_4.pth``, ``CIFAR10_...``.

    A file has the tensors ``training_imgs``, ``training_labs``, ``training_attrs`` and the same of ``testing``: float32
    [N, 3, H, W] of 0..1 in steps of 1/255, and whole numbers [N], class and group. Of MNIST 60,000 + 10,000, of
    CIFAR-10 50,000 + 10,000. Names, mean and std are those of ``cmnist-dd`` and ``ccifar10-dd``, which build such sets.

    Args:
        root: folder of the file, or one that holds it in ``CMNIST-DD`` or ``CCIFAR10-DD``.
        kind: ``mnist`` or ``cifar10``.
        bias_ratio: share of a class's training images in its own group, as the file's name has it; published 0, .1, .5,
            .8, .95, 1.
        severity: 1..4.

    Raises:
        FileNotFoundError: no root, or no such file.
        ValueError: another ``kind``, ``bias_ratio`` or ``severity``.
        RuntimeError: a file that is damaged or holds anything but such tensors.

    Cost: the file is mapped and read a part at a time; pixels are kept as uint8.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind of biased-dd must be {' or '.join(_KINDS)}, not {kind!r}")
    check_share("bias_ratio", bias_ratio)
    if severity not in range(1, SEVERITIES + 1):
        raise ValueError(f"severity must be 1, 2, 3 or 4, not {severity!r}")
    path = _dd_file(root, f"{kind.upper()}_align{float(bias_ratio)}_severity_{severity}.pth", f"C{kind.upper()}-DD")
    tensors = _tensors(path)
    train, test = (_split(path, part, tensors) for part in ("training", "testing"))
    provenance = {"builder": "biased-dd", "files": [describe_file(path, path.name)]}
    aligned = float((train.labels == train.groups).mean())
    if abs(aligned - bias_ratio) > 0.005:
        provenance["remarks"] = [f"{aligned:.1%} of the training images are aligned, not {bias_ratio:.1%}"]
    if kind == "mnist":
        return Dataset("biased-dd", train, test, DIGITS, COLOUR_NAMES, *_HALF, provenance)
    return Dataset("biased-dd", train, test, CIFAR10_CLASSES, corruption_names(0), *CIFAR10_NORMALISATION, provenance)


def _dd_file(root, name: str, folder: str) -> Path:
    if root is None:
        raise no_root("Biased-DD's files", name, BIASED_DD_PAGE)
    places = [Path(root) / name, Path(root) / folder / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        looked = " or ".join(str(place.parent) for place in places)
        raise FileNotFoundError(f"Biased-DD's files: {name} not found in {looked}; offered at {BIASED_DD_PAGE}")
    return path


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch.load raises whatever its parser meets
        why = files.reason(error)[:120]
        raise RuntimeError(f"{path} is no file of tensors only, or is damaged: {why}") from None
    tensors = content if isinstance(content, dict) else {}
    for part in ("training", "testing"):
        for name in _TENSORS:
            tensor = tensors.get(f"{part}_{name}")
            if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise RuntimeError(f"{path} has no tensor {part}_{name}: it is not one of Biased-DD's files")
            # One value can stand for many (stride 0).
            bounds.check_unpacked(f"{path}: {part}_{name}", tensor.numel(), path.stat().st_size)
    return {name: tensor.detach() if isinstance(tensor, torch.Tensor) else tensor for name, tensor in tensors.items()}


def _split(path: Path, part: str, tensors: dict[str, torch.Tensor]) -> Split:
    """A split, checked, with pixels as levels of 0..255."""
    images, *numbers = (tensors[f"{part}_{name}"] for name in _TENSORS)
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise RuntimeError(
            f"{path}: {part}_imgs must be of floating point [N, 3, H, W], not {images.dtype} {list(images.shape)}"
        )
    for name, values in zip(_TENSORS[1:], numbers, strict=True):
        whole = not (values.is_floating_point() or values.is_complex())
        if values.shape != images.shape[:1] or not whole or not bool(((values >= 0) & (values < 10)).all()):
            raise RuntimeError(
                f"{path}: {part}_{name} must be whole numbers of 0..9, [{len(images)}], not {values.dtype} "
                f"{list(values.shape)}{f' to {values.max()}' if values.numel() else ''}"
            )
    levels = np.empty(tuple(images.shape), np.uint8)
    for start in range(0, len(images), _CHUNK):
        scaled = images[start : start + _CHUNK].double().mul(255).numpy()
        rounded = np.rint(scaled)
        # Of float32, a level is met to 2e-5; what lies between two would be rounded away.
        if not ((np.abs(scaled - rounded) < 1e-3) & (rounded >= 0) & (rounded <= 255)).all():
            raise RuntimeError(f"{path}: {part}_imgs must be of 0..1 in steps of 1/255, as pixels divided by 255 are")
        levels[start : start + _CHUNK] = rounded
    return Split(levels, *(values.long().numpy() for values in numbers))
