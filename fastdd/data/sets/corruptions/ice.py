"""The textures of ice that :func:`~fastdd.data.sets.corruptions.weather.frost` adds: drawn, or photographs."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from fastdd.data.files.decode import FORMATS
from fastdd.data.sets.corruptions.base import SIZE

_PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


def drawn_frost() -> list[np.ndarray]:
    """Five drawn textures of ice, uint8 [100, 140, 3]: ridges of smoothed noise at four scales, dark to white.

    They stand in for the published photographs: mean about (147, 167, 178) and deviation about 30, as those, measured
    at the scale at which they are used. The same on every machine and for every seed.
    """
    textures = []
    for number in range(5):
        random = np.random.RandomState((5, number))
        ice = np.zeros((100, 140))
        for scale in (1, 2, 4, 8):
            noise = ndimage.gaussian_filter(random.normal(size=ice.shape), (scale, 0.6 * scale + 0.4), mode="wrap")
            # Crystals: sharp bright ridges along the zero lines of the noise.
            ice += scale**0.5 * np.exp(-np.abs(noise) / (0.6 * noise.std()))
        ice = (ice - ice.mean()) / ice.std()
        tint = np.array([147, 167, 178]) + np.array([-12, -2, 0]) * (number - 2)
        textures.append(np.clip(tint + 30 * ice[..., None], 0, 255).astype(np.uint8))
    return textures


def frost_textures(folder: str | os.PathLike | None = None) -> list[np.ndarray]:
    """Textures for :func:`frost`: drawn ones, or those of the published photographs.

    Args:
        folder: has ``frost1.png``, ``frost2.png``, ``frost3.png``, ``frost4.jpg``, ``frost5.jpg`` of the CIFAR-10-C
            script (or any photographs of these names). They are reduced to a fifth, as published: OpenCV's bilinear
            reduction by five takes exactly every fifth pixel, from the third on. None: :func:`drawn_frost`.

    Returns:
        uint8 [H, W, 3] each.

    Raises:
        FileNotFoundError: a file is missing: names all that are.
        ValueError: a photograph is too small.
        RuntimeError: a file is no image.
    """
    if folder is None:
        return drawn_frost()
    missing = [name for name in _PHOTOGRAPHS if not (Path(folder) / name).is_file()]
    if missing:
        raise FileNotFoundError(f"frost_images: {folder} lacks {', '.join(missing)}")
    textures = []
    for name in _PHOTOGRAPHS:
        try:
            with Image.open(Path(folder) / name, formats=FORMATS) as image:
                texture = np.asarray(image.convert("RGB"))[2::5, 2::5]
        except OSError as error:
            raise RuntimeError(f"cannot read {Path(folder) / name}: {error}") from None
        if min(texture.shape[:2]) <= SIZE:
            raise ValueError(
                f"{Path(folder) / name} is too small: both sides must be more than {5 * (SIZE + 1)} pixels"
            )
        textures.append(texture)
    return textures
