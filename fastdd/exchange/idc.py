"""Results of IDC, DREAM and NCFM, lists [images, classes]; images are pixels in [0, 1], not normalised.

IDC's is ``data.pt``; of a step ``data40.pt`` is DREAM's and ``data_1000.pt`` NCFM's, whose first images are
``data_init.pt``.

With multi-formation of factor f an image holds f x f smaller ones, and networks see those, enlarged
(:func:`fastdd.ops.formation`). A set keeps the images and the factor; what several factors decode is decoded here.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from fastdd import ops
from fastdd.core.reading import damage_of
from fastdd.core.text import one_of
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange import torch_files
from fastdd.exchange.dc import check_holds, learned_rate, plain, several
from fastdd.exchange.found import RECORD, Content, Export, Found, check_free, plain_tensor, read_record, write_record
from fastdd.exchange.multi_formation import check_factor, check_packed, keep_packed, told_factor

DESCRIPTION = "data.pt (or data40.pt, data_1000.pt of a step), a list [images, labels], or its folder"
DECODERS = ("single", "multi", "bound")
# Of decoded images a class: IDC's batch_syn_max.
_BOUND = 128
_DATA = re.compile(r"data(_?(?P<iteration>\d+)|_(?P<first>init))?\.pt")


def matches(content: Content) -> bool:
    if content.value is None:
        return bool(_steps(content.path))
    value = content.value
    if content.path.suffix == ".pkl":  # IDM's pair, which is normalised
        return False
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, Tensor) for part in value)


def _steps(folder: Path) -> dict[str, Path]:
    """Files of a folder by their step, in its order; data.pt is called best, as it is what the code reads."""
    found = [(match, path) for path in folder.glob("data*.pt") if (match := _DATA.fullmatch(path.name))]
    named = {match["iteration"] or match["first"] or "best": path for match, path in found}
    return dict(sorted(named.items(), key=lambda item: (item[0] == "best", item[0].isdigit(), item[0].zfill(20))))


def _of_step(folder: Path, iteration: str | None) -> tuple[Path, list[str]]:
    """The file of a step, by default data.pt or the last, and what to say of the choice."""
    steps = _steps(folder)
    if iteration is None:
        iteration = list(steps)[-1]
        several = len(steps) > 1 and iteration != "best"
        notes = [f"{steps[iteration].name} of {len(steps)} (the last; --iteration takes another)"] if several else []
        return steps[iteration], notes
    if iteration not in steps:
        raise ValueError(f"{folder} has no images of iteration {iteration}; there are {', '.join(steps)}")
    return steps[iteration], []


def read(
    content: Content, *, factor: int | None = None, decoder: str = "single", iteration: str | None = None
) -> Found:
    """The images as they are stored, with the ``factor`` that decodes them; decoded where several factors do."""
    path, value, notes = content.path, content.value, []
    if value is None:
        path, notes = _of_step(path, iteration)
        value = torch_files.load(path)
    elif iteration is not None:
        raise ValueError(f"{path} is one step's file: give its folder for another")
    if not matches(Content(path, value)):
        raise ValueError(f"{path} is not {DESCRIPTION}: it holds {Content(path, value).describe()}")
    if decoder not in DECODERS:
        raise ValueError(f"unknown decoder {decoder!r}; {one_of(decoder, DECODERS)}")
    images, labels = (plain_tensor(part, path, what) for part, what in zip(value, ("images", "labels"), strict=True))
    found = Found(images, labels, "pixels", [path], read_record(path.parent, [path]), about={"method": "idc"})
    found.notes += notes
    factor = told_factor(path, factor, found.record)
    if factor != 1:
        check_packed(path, images, labels, factor)
        found.about["source"] = {"factor": factor, "decoder": decoder, "stored": len(images)}
        if decoder == "single":
            keep_packed(found, len(images), factor)
        else:
            with damage_of(path, "can't be decoded", ValueError):
                found.images, rows = decode(images.detach(), labels, factor, decoder)
            found.labels = labels[rows]
            found.notes.append(f"{len(images)} images decoded into {len(rows)} (factor {factor}, {decoder})")
            (found.record or {}).pop("formation", None)
    if images.is_floating_point() and images.numel() and not (images.min() >= 0 and images.max() <= 1):
        found.notes.append(f"pixels from {images.min():.3g} to {images.max():.3g}, where IDC's lie in 0..1")
    return found


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
    check_factor(images, factor)
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
