"""Colours, marks and dashes that readers can tell apart, whatever their eyes, and text that can be read on colours.

The eight colours of a scheme were searched for by their smallest distance in CIELAB, as they are and as Machado et al.
(2009) simulate protanopia, deuteranopia and tritanopia: about 18 in either scheme. All have the contrast of 3 with the
page's background that WCAG 2.2 asks of graphics (1.4.11).
"""

from collections.abc import Sequence

from fastdd.data.sets.colours import colours_in_images

# On white: blue, orange, green, plum, brown, sky, brick, navy; and their like on the dark page.
COLOURS = ("#0b5fd0", "#e0560a", "#149863", "#a1307c", "#4a3a13", "#3a93fa", "#ba4b41", "#101040")
DARK = ("#5b9bff", "#fb8737", "#48c78e", "#d868b8", "#ccc270", "#9bddff", "#e2a1c0", "#f5f5f5")
# As matplotlib names and draws them. Their numbers have no factor in common with that of the colours, so that of 56
# things (40 lines) no two look alike, and neighbours differ in colour and in form.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (9, 3, 3, 3))
# Of a table's cells, at 0, 50 and 100 %.
_RAMP = ((0xF7, 0xFB, 0xFF), (0x6B, 0xAE, 0xD6), (0x08, 0x30, 0x6B))
_BLACK, _WHITE = "#000000", "#ffffff"


def colour(number: int) -> str:
    """Of one thing of many."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Of one thing of many."""
    return MARKERS[number % len(MARKERS)]


def dashes(number: int) -> tuple[float, ...]:
    """Of one line of many, in its widths: on, off, ...; the first is drawn through."""
    return DASHES[number % len(DASHES)]


def group_colours(names: Sequence[str]) -> list[str]:
    """``#rrggbb`` of groups: those of the data set's images where they are known.

    Else that of which a group's name is the name (CSS, then the survey of xkcd), and of the other groups the palette's,
    but for those that are near to one of these.

    >>> group_colours(["red", "light yellow"]), group_colours(["red", "old"]), group_colours(["old", "young"])
    (['#ff0000', '#ffff80'], ['#ff0000', '#0b5fd0'], ['#0b5fd0', '#e0560a'])
    """
    known = colours_in_images(names)
    if known is not None:
        return known
    from matplotlib.colors import CSS4_COLORS, XKCD_COLORS

    lowered = [name.lower().replace("_", " ") for name in names]
    named = [CSS4_COLORS.get(name.replace(" ", "")) or XKCD_COLORS.get(f"xkcd:{name}") for name in lowered]
    taken = [one.lower() for one in named if one]
    free = [one for one in COLOURS if not any(_near(one, other) for other in taken)] or list(COLOURS)
    found = []
    for one in named:
        found.append(one.lower() if one else free[(len(found) - sum(map(bool, named[: len(found)]))) % len(free)])
    return found


def luminance(colour: str) -> float:
    """WCAG's relative luminance of ``#rrggbb``: 0 is black, 1 is white."""
    parts = [value / 255 for value in _rgb(colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours, 1 to 21.

    >>> round(contrast("#000000", "#ffffff"), 2), round(contrast("#777777", "#ffffff"), 2)
    (21.0, 4.48)
    """
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def cell_colours(share: float) -> tuple[str, str]:
    """Background and text of a table's cell whose value is a share, 0..1: the darker the more, and black or white text,
    whichever is clearer. Its contrast is at least 4.58 on any colour.

    >>> cell_colours(0), cell_colours(1)
    (('#f7fbff', '#000000'), ('#08306b', '#ffffff'))
    """
    place = 2 * min(1.0, max(0.0, share))
    lower = min(1, int(place))
    pair = zip(_RAMP[lower], _RAMP[lower + 1], strict=True)
    back = "#" + "".join(f"{round(a + (place - lower) * (b - a)):02x}" for a, b in pair)
    return back, max((_BLACK, _WHITE), key=lambda text: contrast(text, back))


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def _near(one: str, other: str) -> bool:
    """Whether two colours may be taken for each other, roughly: within a fifth of the cube's side."""
    return sum((a - b) ** 2 for a, b in zip(_rgb(one), _rgb(other), strict=True)) < 51**2
