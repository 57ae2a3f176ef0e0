"""Photographs as people have them: mixed formats, modes, sizes and turns, and a spreadsheet's table of them.

As a script, of an image folder with class folders (any depth): photographs.py SOURCE OUT [COUNT] [CLASSES].
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

# (suffix, mode, turned by its EXIF orientation)
_KINDS = (
    ("jpg", "RGB", False),
    ("JPG", "RGB", True),
    ("png", "RGB", False),
    ("png", "P", False),
    ("webp", "RGB", False),
    ("bmp", "RGB", False),
    ("tif", "CMYK", False),
    ("tiff", "I;16", False),
    ("gif", "P", False),
    ("jpeg", "CMYK", False),
)
HEADER = "Datei;Art;Licht;Bemerkung"


def write(folder: Path, images: list[Image.Image], kinds: list[str], light: list[str]) -> Path:
    """Photographs in ``folder/Fotos``, some deeper, and the table ``folder/Blätter.csv``: semicolons, Latin-1."""
    lines = [HEADER]
    for number, (image, kind, group) in enumerate(zip(images, kinds, light, strict=True)):
        suffix, mode, turned = _KINDS[number % len(_KINDS)]
        place = folder / "Fotos" / ("", "Müller 2024")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        width, height = 80 + 7 * (number % 5), 70 + 11 * (number % 3)
        image = image.convert("RGB").resize((width, height))
        options = {}
        if turned:
            image, exif = image.transpose(Image.Transpose.ROTATE_90), Image.Exif()
            exif[0x0112] = 6
            options["exif"] = exif.tobytes()
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        elif mode != "RGB":
            image = image.convert(mode)
        name = f"IMG_{number:04d}.{suffix}"
        image.save(place / name, **options)
        # Absolute on the computer where the table was written, or bare, as people do.
        there = "C:\\Fotos\\" + ("" if place.name == "Fotos" else f"{place.name}\\")
        called = name if number % 3 else f"{there}{name}"
        lines.append(f"{called};{kind};{group};schön")
    table = folder / "Blätter.csv"
    table.write_bytes("\r\n".join(lines).encode("latin-1"))
    return table


def main(source: Path, out: Path, count: int = 300, classes: int = 5) -> None:
    """Of the first classes of a folder of images; the group ``dunkel`` is darker, 80 % of the even classes."""
    names = ("Ahorn", "Birke", "Eiche", "Mülltonne", "Straße", "Öse", "Tor", "Uhr", "Zaun", "Ähre")[:classes]
    folders = sorted({file.parent for file in source.rglob("*.JPEG")})[:classes]
    files = [sorted(folder.glob("*.JPEG")) for folder in folders]
    images, kinds, light = [], [], []
    random = np.random.default_rng(0)
    for number in range(count):
        label = number % classes
        image = Image.open(files[label][number // classes]).convert("RGB")
        dark = random.random() < (0.8 if label % 2 == 0 else 0.2)
        images.append(image.point(lambda level: level // 2) if dark else image)
        kinds.append(names[label])
        light.append("dunkel" if dark else "hell")
    write(out, images, kinds, light)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
