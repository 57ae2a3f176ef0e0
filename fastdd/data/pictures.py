"""Pictures of images: grids, PNG files, and tables of HTML for notebooks."""

import base64
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.core import files
from fastdd.core.text import printable

GAP = 2
_TARGET_PIXELS = 64
_TITLE_PIXELS = 16
_NAME_PIXELS, _NAME_LETTERS = 104, 16
# Of a notebook's table.
_CLASSES, _IMAGES = 10, 8


def picture(pixels: np.ndarray) -> Any:
    """The Pillow image of uint8 [C, H, W]; of channels that are no colours, the first."""
    from PIL import Image

    shown = pixels if len(pixels) in (1, 3, 4) else pixels[:1]
    return Image.fromarray(np.ascontiguousarray(shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)))


def data_uri(image: Any) -> str:
    """A Pillow image as the data URI of a PNG."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def grid(rows: Sequence[np.ndarray], columns: int, titles: Sequence[str] = (), names: Sequence[str] = ()) -> Any:
    """One Pillow image of uint8 [n, C, H, W] a row; ``titles`` of columns stand above, ``names`` of rows on the left.

    Small images are enlarged by a whole factor, without smoothing, to about 64 pixels.
    """
    from PIL import ImageDraw

    scale = max(1, _TARGET_PIXELS // rows[0].shape[2])
    channels, height, width = rows[0].shape[1], rows[0].shape[2] * scale, rows[0].shape[3] * scale
    above, beside = _TITLE_PIXELS if titles else 0, _NAME_PIXELS if names else 0
    shape = (channels, above + len(rows) * (height + GAP) + GAP, beside + columns * (width + GAP) + GAP)
    drawn = np.full(shape, 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images.repeat(scale, axis=2).repeat(scale, axis=3)):
            top, left = above + GAP + row * (height + GAP), beside + GAP + column * (width + GAP)
            drawn[:, top : top + height, left : left + width] = image
    whole = picture(drawn)
    black = 0 if whole.mode == "L" else (0,) * 3
    for column, title in enumerate(titles):
        middle = beside + GAP + column * (width + GAP) + width // 2, above // 2
        ImageDraw.Draw(whole).text(middle, title, fill=black, anchor="mm")
    for row, name in enumerate(names):
        middle = beside // 2, above + GAP + row * (height + GAP) + height // 2
        ImageDraw.Draw(whole).text(middle, name[:_NAME_LETTERS], fill=black, anchor="mm")
    return whole


def save_by_class(
    folder: Path, pixels: np.ndarray, labels: Sequence[int], folders: Sequence[str], *, place: Path | None = None
) -> list[Path]:
    """PNG files CLASS/NUMBER.png of uint8 [N, C, H, W]; theirs in the order of the images.

    Raises:
        WriteError: naming ``place``, by default the folder.
    """
    seen, written = [0] * len(folders), []
    for image, label in zip(pixels, labels, strict=True):
        file = folder / folders[label] / f"{seen[label]:05d}.png"
        file.parent.mkdir(exist_ok=True)
        try:
            picture(image).save(file)
        except OSError as error:
            raise files.write_error(place or folder, error) from error
        written.append(file)
        seen[label] += 1
    return written


def folder_names(class_names: Sequence[str]) -> list[str]:
    """The classes' names, without what a file system would take for something else."""
    names = [re.sub(r"[^\w .()-]", "_", name).strip(" .") or "_" for name in class_names]
    if len({name.lower() for name in names}) < len(names):
        names = [f"{number:04d} {name}" for number, name in enumerate(names)]
    return names


def table_of_classes(
    title: str,
    class_names: Sequence[str],
    labels: Mapping[str, np.ndarray],
    images: Callable[[np.ndarray], np.ndarray],
) -> str:
    """HTML: a row a class, with its numbers of images and a strip of some of the first kind of labels.

    Args:
        labels: by the title of their column.
        images: uint8 [n, C, H, W] of some rows.
    """
    first = next(iter(labels.values()))
    lines = []
    for number, name in list(enumerate(class_names))[:_CLASSES]:
        rows = np.flatnonzero(first == number)[:_IMAGES]
        strip = f'<img src="{data_uri(grid([images(rows)], len(rows)))}">' if len(rows) else ""
        counts = [f"{int((of == number).sum()):,}" for of in labels.values()]
        lines.append([escaped(name), *counts, strip])
    more = len(class_names) - _CLASSES
    below = f"<p>and {more} classes more</p>" if more > 0 else ""
    return f"<p><b>{escaped(title)}</b></p>{html_table(['class', *labels, 'images'], lines)}{below}"


def html_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of HTML; cells are HTML, the header is text."""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def escaped(text: object) -> str:
    """Text from outside, for HTML."""
    return html.escape(printable(str(text)))


def heat_map(percent: Sequence[Sequence[float | None]]) -> Any:
    """A Pillow image of a table of 0 to 100: red to green by way of yellow, gray where there is nothing."""
    rows = [[np.nan if value is None else value for value in row] for row in percent]
    share = np.clip(np.array(rows, float) / 100, 0, 1)
    red, green = np.minimum(1, 2 - 2 * share), np.minimum(1, 2 * share)
    pixels = np.stack([230 * red, 200 * green, np.full_like(share, 60)])
    pixels = np.where(np.isnan(share), 200, pixels)
    return picture(pixels.astype(np.uint8).repeat(14, 1).repeat(28, 2))
