"""Multi-formation (IDC, section 4.1): stored images that hold several, which networks see enlarged."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from fastdd.core.reading import damage_of
from fastdd.exchange.found import RECORD, Found


def told_factor(path: Path, given: int | None, record: dict[str, Any] | None, *, named: bool = True) -> int:
    """What the images are decoded by: as the file says that was written beside them, or the user.

    ``named``: whether a folder's name can say that there is a factor, which the user has to confirm then.

    ValueError where they contradict, or where the folder's name says what nobody else does.
    """
    if record is not None:
        own = record.get("formation", 1)
        if isinstance(own, bool) or not isinstance(own, int):
            raise ValueError(f"{path}: {RECORD} beside it has the formation {own!r:.40}, which is no whole number")
        if given not in (None, own):
            raise ValueError(f"{path}: {RECORD} beside it says factor {own}, not {given}; leave --factor out")
        return own
    name = re.search(r"factor(\d+)", str(path.absolute())) if named else None
    if given is None and name and int(name[1]) > 1:
        raise ValueError(
            f"{path}: its folder says factor {name[1]}; give --factor {name[1]} to decode its images, or --factor 1"
        )
    return 1 if given is None else given


def check_packed(path: Path, images: Tensor, labels: Tensor, factor: int) -> None:
    """ValueError, naming the file, unless such images with classes can be decoded by a factor."""
    if images.ndim != 4 or not images.is_floating_point() or labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"{path}: only floating-point images [M, C, H, W] with classes [M] can be decoded")
    with damage_of(path, "can't be decoded", ValueError):
        check_factor(images, factor)


def check_factor(images: Tensor, factor: int) -> None:
    """ValueError unless the factor decodes images of this size."""
    size = images.shape[-1]
    if images.shape[-2] != size or not 1 <= factor <= size:
        raise ValueError(f"a factor of 1 to {size} decodes square images, not {factor} those of {list(images.shape)}")


def keep_packed(found: Found, images: int, factor: int) -> None:
    """Let a set keep ``images`` stored images, and what each holds."""
    found.about["formation"] = factor
    found.notes.append(f"an image holds {factor} x {factor}: {images} are seen as {images * factor**2}")
