"""Charts as SVG text for a page: curves and scatters, drawn by matplotlib, the same bytes for the same data.

A chart is an element of HTML: the SVG, and beside it the legend as a list, which wraps where there is no room. Ink,
grid and the palette's colours are variables of the page's style (``--ink``, ``--grid``, ``--c0`` ...), so that they
follow its scheme; scatters, whose points are pixels or have colours of their own, stand on paper that is light in both.
"""

import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fastdd.core.text import printable
from fastdd.report.palette import COLOURS, DARK, MARKERS, colour, dashes, marker

INK, GRID, EDGE = "#1b1f24", "#d8dde3", "#555555"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fastdd",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.axisbelow": True,
}
# Of bars that stand for no curve: its contrast is more than 3 in either scheme.
_GRAY = "#7d8790"
_MOST_POINTS = 2000
# Inches. On the narrowest phones a chart is as wide as the page, and its text still 10 pixels high.
_SIZE, _SQUARE = (4.7, 2.7), (4.4, 3.7)
_NARROW = 1.4  # of lines, points
# Of a legend: forms in a square of 10 around 0, as MARKERS are.
_FORMS = {
    "o": '<circle r="4"/>',
    "s": '<path d="M-3.6-3.6h7.2v7.2h-7.2z"/>',
    "^": '<path d="M0-4.4L4.4 4h-8.8z"/>',
    "D": '<path d="M0-5L5 0 0 5-5 0z"/>',
    "v": '<path d="M0 4.4L4.4-4h-8.8z"/>',
    "P": '<path d="M-1.7-5h3.4v3.3H5v3.4H1.7V5h-3.4V1.7H-5v-3.4h3.3z"/>',
    "X": '<path d="M-2.6-5L0-2.4 2.6-5 5-2.6 2.4 0 5 2.6 2.6 5 0 2.4-2.6 5-5 2.6-2.4 0-5-2.6z"/>',
    "*": '<path d="M0-5.5L1.3-1.8 5.2-1.7 2.1.7 3.2 4.5 0 2.3-3.2 4.5-2.1.7-5.2-1.7-1.3-1.8z"/>',
    "x": '<path d="M-4-4L4 4M-4 4L4-4" fill="none" stroke="#000000" stroke-width="1.6"/>',
}
_VARIABLES = {
    **{INK: "--ink", GRID: "--grid"},
    **{one: f"--c{number}" for number, one in enumerate(COLOURS)},
}

Key = tuple[str, str]  # of a legend: its sign as SVG, and a name


def scheme(dark: bool) -> str:
    """The palette as declarations of CSS."""
    return " ".join(f"--c{number}: {one};" for number, one in enumerate(DARK if dark else COLOURS))


def curves(series: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, x: str, y: str) -> str:
    """Named curves of (x, y); y is logarithmic where all of it is positive and it spans more than a factor of 20.

    More than 2,000 points are drawn as means of neighbours. A name without points leaves its colour to no other.
    """
    with _Figure(*_SIZE) as (figure, axes):
        lowest, highest, key = np.inf, -np.inf, []
        for number, (name, points) in enumerate(series):
            if not points:
                continue
            xs, ys = (np.asarray(values, dtype=float) for values in zip(*points, strict=True))
            if len(xs) > _MOST_POINTS:
                parts = np.array_split(np.arange(len(xs)), _MOST_POINTS)
                xs, ys = (np.array([values[part].mean() for part in parts]) for values in (xs, ys))
            lowest, highest = min(lowest, ys.min()), max(highest, ys.max())
            axes.plot(xs, ys, color=colour(number), linewidth=_NARROW, dashes=dashes(number))
            key.append((_line(number), name))
        if lowest > 0 and highest > 20 * lowest:
            axes.set_yscale("log")
        axes.set(xlabel=x, ylabel=y)
        return figure(key if len(series) > 1 else [])


def course(
    series: Sequence[tuple[str, Sequence[tuple[int, float, float]]]],
    *,
    x: str,
    y: str,
    limits: tuple[float, float] | None = None,
    barred: Collection[int] = (),
    levels: Sequence[tuple[str, float]] = (),
) -> str:
    """Named curves of few points (x, mean, spread), each marked, in a band of one spread; y is linear.

    A mean that is NaN breaks its curve. A name without points leaves its colour to no other. Curves that are 0
    throughout are drawn at the bottom.

    Args:
        limits: beyond which y is not drawn, whatever the spreads are; None: as far as they go.
        barred: numbers of the series whose spreads are drawn as bars with caps.
        levels: named values that hold at every x, such as baselines', as thin lines.
    """
    with _Figure(*_SIZE) as (figure, axes):
        key = []
        for number, (name, points) in enumerate(series):
            if not points:
                continue
            xs, means, deviations = np.asarray(points, dtype=float).T
            look = {"color": colour(number), "linewidth": _NARROW, "dashes": dashes(number)}
            axes.plot(xs, means, marker=marker(number), markersize=4.5, **look)
            if number in barred:
                # Side by side, where curves have the same x.
                beside = xs + (number - (len(series) - 1) / 2) * 0.012 * np.nanmax(xs)
                axes.errorbar(beside, means, deviations, fmt="none", ecolor=colour(number), elinewidth=1, capsize=3)
            else:
                low, high = means - deviations, means + deviations
                axes.fill_between(xs, low, high, color=colour(number), alpha=0.2, linewidth=0)
            key.append((_line(number, marker(number)), name))
        for number, (name, value) in enumerate(levels):
            axes.axhline(value, color=INK, linewidth=0.9, dashes=dashes(number + 1))
            key.append((_sign(_stroke("var(--ink)", dashes(number + 1), 0.9)), name))
        if limits is not None:
            lowest, highest = axes.get_ylim()
            margin = 0.03 * (limits[1] - limits[0])
            axes.set_ylim(max(lowest, limits[0] - margin), min(highest, limits[1] + margin))
        if not levels and not any(mean for _, points in series for _, mean, _ in points):
            axes.set_ylim(-0.05, 1)
        axes.set(xlabel=x, ylabel=y)
        return figure(key if len(series) + len(levels) > 1 else [])


def bars(
    groups: Sequence[tuple[str, Sequence[tuple[float, float | None]]]],
    names: Sequence[str],
    *,
    y: str,
    limits: tuple[float, float] | None = None,
    of: Sequence[int | None] | None = None,
) -> str:
    """Groups of bars, each a name and of every bar its value and half of its interval (None: it has none).

    Args:
        groups: as many bars each as there are ``names``.
        names: of the bars of a group, for the legend, in whose order they stand.
        limits: beyond which y is not drawn, however wide intervals are; None: as far as they go.
        of: what the bars are of, as numbers of the curves in other charts, whose colours they have; None: gray, of
            what has no curve. By default a bar each. A colour's second bar is hatched, its third more densely.
    """
    of = range(len(names)) if of is None else of
    owns = [_GRAY if number is None else colour(number) for number in of]
    with _Figure(*_SIZE) as (figure, axes):
        width, key = 0.8 / len(names), []
        for number, (name, own) in enumerate(zip(names, owns, strict=True)):
            heights = [values[number][0] for _, values in groups]
            spread = [values[number][1] or 0 for _, values in groups]
            places = np.arange(len(groups)) + (number - (len(names) - 1) / 2) * width
            before = owns[:number].count(own)
            again = {"hatch": "//" * before, "edgecolor": "white"} if before else {}
            axes.bar(places, heights, width, color=own, **again)
            key.append((_bar(own, before), name))
            if any(spread):
                axes.errorbar(places, heights, spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        if limits is not None:
            axes.set_ylim(*limits)
        axes.set_xticks(range(len(groups)), [printable(name) for name, _ in groups], parse_math=False)
        axes.set(ylabel=y)
        axes.grid(visible=False, axis="x")
        return figure(key)


def coverage(
    axes: Any,
    others: np.ndarray,
    real: np.ndarray,
    of_real: np.ndarray,
    made: np.ndarray,
    colours: Mapping[int, tuple[str, str]],
) -> None:
    """Draw one class in the plane: the real images of other classes pale, its own by group, synthetic ones as stars.

    Args:
        axes: where.
        others: [L, 2]. real: [N, 2]. made: [M, 2].
        of_real: int [N], the group of each of the class's.
        colours: of the groups, each its name and colour.
    """
    axes.scatter(*others.T, s=5, color="#bbbbbb", alpha=0.3, linewidths=0, rasterized=True)
    for number, (group, (_, own)) in enumerate(colours.items()):
        here = real[of_real == group]
        axes.scatter(*here.T, s=18, color=own, marker=marker(number), edgecolors=EDGE, linewidths=0.4, label=str(group))
    axes.scatter(*made.T, s=150, marker="*", color="black", edgecolors="white", linewidths=0.8, label="made")
    axes.set(xticks=[], yticks=[])


def coverage_legend(axes: Any, colours: Mapping[int, tuple[str, str]]) -> None:
    """The legend of :func:`coverage` beside it, where there is no page around."""
    names = [*(name for name, _ in colours.values()), "synthetic"]
    # Of lines whose labels are numbers: matplotlib takes ``$`` in a name for TeX, and drops ``_name``.
    legend = axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(printable(name))


def coverage_picture(
    others: np.ndarray,
    real: np.ndarray,
    of_real: np.ndarray,
    made: np.ndarray,
    colours: Mapping[int, tuple[str, str]],
) -> str:
    """:func:`coverage` by itself, for a page."""
    with _Figure(*_SQUARE, paper=True) as (figure, axes):
        coverage(axes, others, real, of_real, made, colours)
        key = [(_point(own, marker(number)), name) for number, (name, own) in enumerate(colours.values())]
        return figure([*key, (_point("#000000", "*"), "synthetic")])


def scatter(
    real: np.ndarray,
    of_real: np.ndarray,
    made: np.ndarray,
    of_made: np.ndarray | None,
    names: Sequence[str],
    colours: Sequence[str] | None = None,
) -> str:
    """Points in the plane by what they are of: real ones small, synthetic ones large, each kind in a form of its own.

    Args:
        real: [N, 2]. of_real: int [N], index into ``names``.
        made: [M, 2]. of_made: int [M], or None where a synthetic image is of no group; then a black cross.
        colours: of the names, ``#rrggbb``; None: the palette's. Of others, which may be pale, points have an edge.
    """
    edge = {"linewidths": 0} if colours is None else {"linewidths": 0.3, "edgecolors": EDGE}
    with _Figure(*_SQUARE, paper=True) as (figure, axes):
        key = []
        for number, name in enumerate(names):
            own = colour(number) if colours is None else colours[number % len(colours)]
            look = {"color": own, "marker": marker(number)}
            here, size = real[of_real == number], 9 if colours is None else 14
            axes.scatter(*here.T, s=size, alpha=0.6, rasterized=True, **look, **edge)
            if of_made is not None:
                axes.scatter(*made[of_made == number].T, s=46, edgecolors="black", linewidths=0.9, **look)
            key.append((_point(own, marker(number)), name))
        if of_made is None:
            axes.scatter(*made.T, s=40, color="black", marker="x", linewidths=1.2)
            key.append((_point("#000000", "x"), "synthetic"))
        axes.set(xticks=[], yticks=[])
        return figure(key if len(names) <= len(COLOURS) * len(MARKERS) else [])


def _variable(own: str) -> str:
    """A colour as the page's style has it; one of no palette as it is."""
    return f"var({_VARIABLES[own]})" if own in _VARIABLES else own


def _sign(inside: str) -> str:
    return f'<svg class="sign" viewBox="-14 -6 28 12" aria-hidden="true">{inside}</svg>'


def _stroke(own: str, on_off: Sequence[float], width: float = _NARROW) -> str:
    dashed = f' stroke-dasharray="{" ".join(f"{width * part:g}" for part in on_off)}"' if on_off else ""
    return f'<path d="M-14 0H14" stroke="{own}" stroke-width="{width + 0.4:g}"{dashed}/>'


def _line(number: int, form: str | None = None) -> str:
    own = _variable(colour(number))
    return _sign(_stroke(own, dashes(number)) + (f'<g fill="{own}">{_FORMS[form]}</g>' if form else ""))


def _bar(own: str, before: int) -> str:
    lines = "".join(f'<path d="M{at}-5l-6 10" stroke="#fff"/>' for at in range(-2, 12, 6 - min(before, 4)) if before)
    return _sign(f'<path d="M-9-5H9V5H-9z" fill="{_variable(own)}"/>{lines}')


def _point(own: str, form: str) -> str:
    return _sign(f'<g fill="{own}" stroke="{EDGE}" stroke-width=".5">{_FORMS[form]}</g>')


class _Figure:
    """A figure in the pages' style; what it is called for, with its legend, is its element of HTML."""

    def __init__(self, width: float, height: float, *, paper: bool = False):
        self._size, self._paper = (width, height), paper

    def __enter__(self) -> tuple[Callable[[Sequence[Key]], str], Any]:
        import matplotlib
        from matplotlib.figure import Figure

        self._context = matplotlib.rc_context(_STYLE)
        self._context.__enter__()
        self._figure = Figure(figsize=self._size, dpi=110, layout="constrained")
        return self._element, self._figure.add_subplot()

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)

    def _element(self, key: Sequence[Key]) -> str:
        lines = "".join(f"<li>{sign}{escape(printable(name))}</li>" for sign, name in key)
        legend = f'<ul class="key">{lines}</ul>' if lines else ""
        return f'<div class="chart{" paper" if self._paper else ""}">{self._svg()}{legend}</div>'

    def _svg(self) -> str:
        text = io.StringIO()
        self._figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        # The declaration before the element has no place inside a page, nor have names of its parts, which repeat.
        found = re.sub(r'<g id="[^"]*"', "<g", text.getvalue()[text.getvalue().index("<svg") :])
        return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda match: _variable(match[0]), found)
