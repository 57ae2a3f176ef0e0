"""IDC's and DREAM's results: ``data.pt``, a list [images, classes]; images are pixels in [0, 1], not normalised.

With multi-formation of factor f an image holds f x f smaller ones, and networks see those, enlarged
(:func:`fastdd.ops.formation`). A set keeps the images and the factor; what several factors decode is decoded here.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdd import ops
from fastdd.core.reading import damage_of
from fastdd.core.text import one_of
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange import torch_files
from fastdd.exchange.dc import check_holds, learned_rate, plain, several
from fastdd.exchange.found import RECORD, Content, Export, Found, check_free, plain_tensor, read_record, write_record

DESCRIPTION = "data.pt, a list [images, labels], or its folder"
DECODERS = ("single", "multi", "bound")
# Of decoded images a class: IDC's batch_syn_max.
_BOUND = 128


def matches(content: Content) -> bool:
    if content.value is None:
        return (content.path / "data.pt").is_file()
    value = content.value
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, Tensor) for part in value)


def read(content: Content, *, factor: int | None = None, decoder: str = "single") -> Found:
    """The images as they are stored, with the ``factor`` that decodes them; decoded where several factors do."""
    path, value = content.path, content.value
    if value is None:
        path = path / "data.pt"
        value = torch_files.load(path)
    if not matches(Content(path, value)):
        raise ValueError(f"{path} is not {DESCRIPTION}: it holds {Content(path, value).describe()}")
    if decoder not in DECODERS:
        raise ValueError(f"unknown decoder {decoder!r}; {one_of(decoder, DECODERS)}")
    images, labels = (plain_tensor(part, path, what) for part, what in zip(value, ("images", "labels"), strict=True))
    found = Found(images, labels, "pixels", [path], read_record(path.parent, [path]), about={"method": "idc"})
    factor = _factor(path, factor, found.record)
    if factor != 1:
        if images.ndim != 4 or not images.is_floating_point() or labels.ndim != 1 or len(labels) != len(images):
            raise ValueError(f"{path}: only floating-point images [M, C, H, W] with classes [M] can be decoded")
        with damage_of(path, "can't be decoded", ValueError):
            _check_factor(images, factor)
        found.about["source"] = {"factor": factor, "decoder": decoder, "stored": len(images)}
        if decoder == "single":
            found.about["formation"] = factor
            found.notes.append(
                f"an image holds {factor} x {factor}: {len(images)} are seen as {len(images) * factor**2}"
            )
        else:
            with damage_of(path, "can't be decoded", ValueError):
                found.images, rows = decode(images.detach(), labels, factor, decoder)
            found.labels = labels[rows]
            found.notes.append(f"{len(images)} images decoded into {len(rows)} (factor {factor}, {decoder})")
            (found.record or {}).pop("formation", None)
    if images.is_floating_point() and images.numel() and not (images.min() >= 0 and images.max() <= 1):
        found.notes.append(f"pixels from {images.min():.3g} to {images.max():.3g}, where IDC's lie in 0..1")
    return found


def _factor(path: Path, given: int | None, record: dict[str, Any] | None) -> int:
    """What the images are decoded by: as the file says that was written beside them, or the user.

    ValueError where they contradict, or where the folder's name says what nobody else does.
    """
    if record is not None:
        own = record.get("formation", 1)
        if isinstance(own, bool) or not isinstance(own, int):
            raise ValueError(f"{path}: {RECORD} beside it has the formation {own!r:.40}, which is no whole number")
        if given not in (None, own):
            raise ValueError(f"{path}: {RECORD} beside it says factor {own}, not {given}; leave --factor out")
        return own
    named = re.search(r"factor(\d+)", str(path.absolute()))
    if given is None and named and int(named[1]) > 1:
        raise ValueError(
            f"{path}: its folder says factor {named[1]}; give --factor {named[1]} to decode its images, or --factor 1"
        )
    return 1 if given is None else given


def _check_factor(images: Tensor, factor: int) -> None:
    size = images.shape[-1]
    if images.shape[-2] != size or not 1 <= factor <= size:
        raise ValueError(f"a factor of 1 to {size} decodes square images, not {factor} those of {list(images.shape)}")


def decode(images: Tensor, labels: Tensor, factor: int, decoder: str = "single") -> tuple[Tensor, Tensor]:
    """Multi-formation: the images that are packed into images, at full size (IDC, section 4.1).

    Args:
        images: [M, C, H, H], pixels.
        labels: [M]; a class's images are decoded together, class by class in the order of their labels.
        factor: f: an image is cut into f x f parts, from left to right and top to bottom.
        decoder: single; multi for the images of all factors from 1 to f; bound for as many images as 128 a class
            allow, of the largest factors first.

    Returns:
        Images, part by part, each of all images of a class; and which image each came from, int64.

    Raises:
        ValueError: a factor that is below 1 or larger than the images, or images that are not square.
    """
    _check_factor(images, factor)
    decoded, rows = [], []
    for label in labels.unique(sorted=True):
        own = (labels == label).nonzero().squeeze(1)
        for chosen, scale in _schedule(own, factor, decoder):
            decoded.append(ops.formation(images[chosen], scale))
            rows.append(chosen.repeat(scale * scale))
    return torch.cat(decoded), torch.cat(rows)


def _schedule(rows: Tensor, factor: int, decoder: str) -> list[tuple[Tensor, int]]:
    """Which images of a class are decoded by which factor."""
    if decoder == "single":
        return [(rows, factor)]
    if decoder == "multi":
        return [(rows, scale) for scale in range(1, factor + 1)]
    parts, left, done = [], len(rows), 0
    for scale in range(factor, 0, -1):
        # Every image that is left needs a place for itself.
        count = min((_BOUND - done - left) // scale**2, left) if scale > 1 else left
        if count > 0:
            first = len(rows) - left
            parts.append((rows[first : first + count], scale))
            left -= count
            done += count * scale**2
    return parts


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """``data.pt`` in a folder, or a file of another name; ``fastdd.json`` beside."""
    if path.suffix != ".pt":
        path = path / "data.pt"
    check_holds(made, "idc")
    check_free([path, path.parent / RECORD], force)
    path.parent.mkdir(parents=True, exist_ok=True)
    mean, std = (made.images.new_tensor(made.metadata[field]).view(1, -1, 1, 1) for field in ("mean", "std"))
    pixels = made.images.detach() * std + mean
    torch_files.save([plain(pixels), plain(made.labels)], path)
    notes = [*(several(made) or ["the images are whole ones: --factor 1"]), *learned_rate(made)]
    outside = ((pixels < 0) | (pixels > 1)).double().mean().item()
    if outside:
        notes.insert(0, f"{outside:.1%} of the pixels lie outside 0..1, and are kept; some readers clamp them")
    return Export([path, write_record(path.parent, [path], made)], notes)
