"""Results of trajectory matching (MTT, TESLA, FTD, DATM): ``images_IT.pt`` and ``labels_IT.pt``, IT is best or a step.

Images are normalised, or whitened where the run had ZCA; ``images_zca_IT.pt`` are those, with the whitening taken back.
Labels are classes or soft. FTD's averages over steps are ``ema_images_IT.pt`` and ``ema_labels_IT.pt``, in a folder of
their own. ``lr_IT.pt`` is the learned step size, which only DATM and its descendants store.
"""

import re
from pathlib import Path
from typing import Any

import torch

from fastdd.core.files import empty_place
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange import torch_files
from fastdd.exchange.dc import normalisation, plain
from fastdd.exchange.found import RECORD, Content, Export, Found, check_free, plain_tensor, read_record, write_record

DESCRIPTION = "a folder with images_best.pt and labels_best.pt (or of a step), or such a file of images"
# DC-Bench has Tiny-ImageNet's 10,000 images in five parts.
_IMAGES = re.compile(r"(?P<ema>ema_)?images_(?P<zca>zca_)?(?P<iteration>best|\d+)(_(?P<part>\d))?\.pt")


def matches(content: Content) -> bool:
    if content.value is None:
        return any(_IMAGES.fullmatch(path.name) for path in content.path.glob("*images_*.pt"))
    return isinstance(content.value, torch.Tensor) and content.value.ndim == 4


def read(content: Content, *, iteration: str | None = None) -> Found:
    """The set of an iteration: by default best, or the only one in a folder; of a file, that in its name."""
    if content.value is not None:
        named = _IMAGES.fullmatch(content.path.name)
        if named is None:
            raise ValueError(f"{content.path} holds images only; call it images_best.pt, with labels_best.pt beside it")
        if iteration is not None:
            raise ValueError(f"{content.path} is of iteration {named['iteration']}: give its folder for another")
        return _read(content.path.parent, named["iteration"], named["ema"] or "", named["zca"] or "")
    files = [found for path in content.path.iterdir() if (found := _IMAGES.fullmatch(path.name))]
    files = [found for found in files if not found["zca"]]
    ema = "ema_" if all(found["ema"] for found in files) else ""
    there = {found["iteration"] for found in files if (found["ema"] or "") == ema}
    if not there:
        raise ValueError(
            f"{content.path} has images with the whitening taken back only (images_zca_*.pt): give one of them"
        )
    ordered = sorted(there - {"best"}, key=int)
    if iteration is None:
        if "best" not in there and len(ordered) != 1:
            raise ValueError(
                f"{content.path} has no {ema}images_best.pt; give --iteration, one of {', '.join(ordered)}"
            )
        iteration = "best" if "best" in there else ordered[0]
    if iteration not in there:
        known = ", ".join(["best", *ordered] if "best" in there else ordered)
        raise ValueError(f"{content.path} has no images of iteration {iteration}; there are {known}")
    return _read(content.path, iteration, ema, "")


def _read(folder: Path, iteration: str, ema: str, zca: str) -> Found:
    images, labels = _parts(folder, f"{ema}images_{zca}{iteration}"), _parts(folder, f"{ema}labels_{iteration}")
    found = Found(
        _joined(images),
        _joined(labels),
        "pixels" if zca else "normalised",
        [*images, *labels],
        record=None if zca else read_record(folder, images),
        # Written by runs with ZCA only.
        whitened=not zca and any(folder.glob("images_zca_*.pt")),
        about={"method": "mtt", "source": {"iteration": iteration}},
    )
    if zca:
        found.notes.append(f"{images[0].name} has the whitening taken back: its networks saw images_{iteration}.pt")
    rate = folder / f"lr_{iteration}.pt"
    if rate.exists():
        found.learning_rate = _rate(torch_files.load(rate), rate)
        found.files.append(rate)
    return found


def _parts(folder: Path, stem: str) -> list[Path]:
    """One file, or where there is none those that it was split into."""
    whole = folder / f"{stem}.pt"
    parts = [] if whole.exists() else sorted(folder.glob(f"{stem}_[0-9].pt"))
    return parts or [whole]


def _joined(paths: list[Path]) -> Any:
    values = [torch_files.load(path) for path in paths]
    if len(values) == 1:
        return values[0]
    try:
        return torch.cat(values)
    except (TypeError, RuntimeError):
        raise ValueError(f"{paths[0]} and the other parts are no tensors that fit together") from None


def _rate(value: Any, path: Path) -> float:
    if isinstance(value, torch.Tensor):
        value = plain_tensor(value, path, "the step size")
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value.item())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{path} is not a step size: {Content(path, value).describe()}")


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """A folder with ``_best`` files, ``lr_best.pt`` if a step size was learned, and ``fastdd.json``."""
    if path.is_file():
        raise ValueError(f"{path} is a file; mtt is a folder of files")
    absent = {"lr_best.pt": made.learning_rate is None, "images_zca_best.pt": made.zca is None}
    places = [path / name for name in ("images_best.pt", "labels_best.pt", *absent, RECORD)]
    check_free(places, force)
    path.mkdir(parents=True, exist_ok=True)
    # Images first, which come last again: what a kill leaves is no set, and not one of two.
    for place in places:
        empty_place(place)
        if absent.get(place.name):
            place.unlink(missing_ok=True)
    files = [save_labels(made, path / "labels_best.pt")]
    notes = normalisation(made)
    if made.learning_rate is not None:
        files.append(path / "lr_best.pt")
        torch_files.save(torch.tensor(made.learning_rate, dtype=torch.float64), files[-1])
        notes.append(f"the learned step size {made.learning_rate:g} is in lr_best.pt, which only some projects read")
    if made.zca is not None:
        files.append(path / "images_zca_best.pt")
        torch_files.save(made.zca.unwhiten(made.images), files[-1])
        notes = ["images are whitened: test images must be, by the same ZCA; it is not in the files", *notes[1:]]
    # Last: a folder has a set when it has these.
    images = path / "images_best.pt"
    torch_files.save(plain(made.images), images)
    return Export([images, *files, write_record(path, [images], made)], notes)


def save_labels(made: SyntheticSet, path: Path) -> Path:
    torch_files.save(plain(made.targets), path)
    return path
