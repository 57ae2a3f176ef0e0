"""Colours that groups have in the images of data sets."""

from collections.abc import Sequence

import numpy as np

from fastdd.data.sets import builders, lff

_PALETTES = (
    dict(zip(builders.COLOUR_NAMES, builders.COLOURS, strict=True)),
    dict(zip(lff.COLOUR_NAMES, np.rint(255 * lff.COLOURS).astype(np.uint8), strict=True)),
)


def colours_in_images(group_names: Sequence[str]) -> list[str] | None:
    """``#rrggbb`` of every group, as C-MNIST and its kin (Bahng et al.) or Colored MNIST of LfF colour their images.

    None where the groups are not among those of one of them.

    >>> colours_in_images(["red", "light yellow"]), colours_in_images(["mauve"]), colours_in_images(["old"])
    (['#ff0000', '#ffff80'], ['#ac7694'], None)
    """
    for palette in _PALETTES:
        if all(name in palette for name in group_names):
            return ["#{:02x}{:02x}{:02x}".format(*palette[name].tolist()) for name in group_names]
    return None
