"""Charts as SVG text for a page: curves and scatters, drawn by matplotlib, the same bytes for the same data."""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fastdd.core.text import printable

# Okabe and Ito's colours, which colour-blind readers can tell apart, then paler ones.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B", "#17A589", "#B7950B",
)  # fmt: skip
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fastdd",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}
_MOST_POINTS = 2000
# Characters of a line of a legend that lies above, a name's mark among them.
_LINE, _MARK = 56, 6


def colour_of(names: Sequence[str], number: int) -> str:
    """The colour of one of many: that of its name where all are called by colours.

    >>> colour_of(["red", "light yellow"], 1), colour_of(["red", "old"], 0)
    ('#ffffe0', '#0072B2')
    """
    from matplotlib.colors import CSS4_COLORS

    named = [CSS4_COLORS.get(name.replace(" ", "").lower()) for name in names]
    return COLOURS[number % len(COLOURS)] if None in named else named[number].lower()


def curves(series: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, x: str, y: str) -> str:
    """Named curves of (x, y); y is logarithmic where all of it is positive and it spans more than a factor of 20.

    More than 2,000 points are drawn as means of neighbours. A name without points leaves its colour to no other.
    """
    with _Figure(7, 2.8) as (figure, axes):
        lowest, highest = np.inf, -np.inf
        for number, (_, points) in enumerate(series):
            if not points:
                continue
            xs, ys = (np.asarray(values, dtype=float) for values in zip(*points, strict=True))
            if len(xs) > _MOST_POINTS:
                parts = np.array_split(np.arange(len(xs)), _MOST_POINTS)
                xs, ys = (np.array([values[part].mean() for part in parts]) for values in (xs, ys))
            lowest, highest = min(lowest, ys.min()), max(highest, ys.max())
            axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=str(number))
        if lowest > 0 and highest > 20 * lowest:
            axes.set_yscale("log")
        axes.set(xlabel=x, ylabel=y)
        if len(series) > 1:
            _legend(axes, [name for name, points in series if points])
        return figure()


def course(
    series: Sequence[tuple[str, Sequence[tuple[int, float, float]]]],
    *,
    x: str,
    y: str,
    limits: tuple[float, float] | None = None,
    barred: Collection[int] = (),
) -> str:
    """Named curves of few points (x, mean, spread), each marked, in a band of one spread; y is linear.

    A mean that is NaN breaks its curve. A name without points leaves its colour to no other. Curves that are 0
    throughout are drawn at the bottom.

    Args:
        limits: beyond which y is not drawn, whatever the spreads are; None: as far as they go.
        barred: numbers of the series whose spreads are drawn as bars with caps.
    """
    with _Figure(5.2, 2.8) as (figure, axes):
        for number, (_, points) in enumerate(series):
            if not points:
                continue
            xs, means, deviations = np.asarray(points, dtype=float).T
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(xs, means, color=colour, linewidth=1.2, marker="o", markersize=3.5, label=str(number))
            if number in barred:
                # Side by side, where curves have the same x.
                beside = xs + (number - (len(series) - 1) / 2) * 0.012 * np.nanmax(xs)
                axes.errorbar(beside, means, deviations, fmt="none", ecolor=colour, elinewidth=1, capsize=3)
            else:
                axes.fill_between(xs, means - deviations, means + deviations, color=colour, alpha=0.2, linewidth=0)
        if limits is not None:
            lowest, highest = axes.get_ylim()
            margin = 0.03 * (limits[1] - limits[0])
            axes.set_ylim(max(lowest, limits[0] - margin), min(highest, limits[1] + margin))
        if not any(mean for _, points in series for _, mean, _ in points):
            axes.set_ylim(-0.05, 1)
        axes.set(xlabel=x, ylabel=y)
        if len(series) > 1:
            _legend(axes, [name for name, points in series if points])
        return figure()


def bars(
    groups: Sequence[tuple[str, Sequence[tuple[float, float | None]]]],
    names: Sequence[str],
    *,
    y: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Groups of bars, each a name and of every bar its value and half of its interval (None: it has none).

    Args:
        groups: as many bars each as there are ``names``.
        names: of the bars of a group, for the legend.
        limits: beyond which y is not drawn, however wide intervals are; None: as far as they go.
    """
    with _Figure(5.2, 2.8) as (figure, axes):
        width = 0.8 / len(names)
        for number in range(len(names)):
            heights = [values[number][0] for _, values in groups]
            spread = [values[number][1] or 0 for _, values in groups]
            colour = COLOURS[number % len(COLOURS)]
            places = np.arange(len(groups)) + (number - (len(names) - 1) / 2) * width
            axes.bar(places, heights, width, yerr=spread, capsize=3, color=colour, label=str(number))
        if limits is not None:
            axes.set_ylim(*limits)
        axes.set_xticks(range(len(groups)), [printable(name) for name, _ in groups], parse_math=False)
        axes.set(ylabel=y)
        axes.grid(visible=False, axis="x")
        in_a_line = max(1, min(len(names), _LINE // (max(map(len, names)) + _MARK)))
        _legend(axes, names, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=in_a_line)
        return figure()


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
    for group, (_, colour) in colours.items():
        here = real[of_real == group]
        axes.scatter(*here.T, s=18, color=colour, edgecolors="#555555", linewidths=0.4, label=str(group))
    axes.scatter(*made.T, s=150, marker="*", color="black", edgecolors="white", linewidths=0.8, label="made")
    axes.set(xticks=[], yticks=[])
    names = [*(name for name, _ in colours.values()), "synthetic"]
    _legend(axes, names, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


def coverage_picture(*arguments: Any) -> str:
    """:func:`coverage` by itself."""
    with _Figure(5.2, 4.2) as (figure, axes):
        coverage(axes, *arguments)
        return figure()


def scatter(
    real: np.ndarray,
    of_real: np.ndarray,
    made: np.ndarray,
    of_made: np.ndarray | None,
    names: Sequence[str],
    colours: Sequence[str] = COLOURS,
) -> str:
    """Points in the plane by what they are of: real ones small, synthetic ones large.

    Args:
        real: [N, 2]. of_real: int [N], index into ``names``.
        made: [M, 2]. of_made: int [M], or None where a synthetic image is of no group; then in black.
        colours: of the names; of others than the usual ones, which may be pale, points have an edge.
    """
    edge = {"linewidths": 0} if colours is COLOURS else {"linewidths": 0.3, "edgecolors": "#555555"}
    with _Figure(5.2, 4.2) as (figure, axes):
        for number in range(len(names)):
            colour = colours[number % len(colours)]
            here = real[of_real == number]
            size = 6 if colours is COLOURS else 12
            axes.scatter(*here.T, s=size, color=colour, alpha=0.6, rasterized=True, label=str(number), **edge)
            if of_made is not None:
                axes.scatter(
                    *made[of_made == number].T, s=46, color=colour, marker="D", edgecolors="black", linewidths=0.8
                )
        if of_made is None:
            axes.scatter(*made.T, s=40, color="black", marker="x", linewidths=1.2)
        axes.set(xticks=[], yticks=[])
        if len(names) <= len(COLOURS):
            _legend(axes, names, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure()


def _legend(axes: Any, names: Sequence[str], **where: Any) -> None:
    """The legend, of lines whose labels are numbers: matplotlib takes ``$`` in a name for TeX, and drops ``_name``."""
    for text, name in zip(axes.legend(frameon=False, **where).get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(printable(name))


class _Figure:
    """A figure in the pages' style; what it is called for is its SVG."""

    def __init__(self, width: float, height: float):
        self._size = width, height

    def __enter__(self) -> tuple[Any, Any]:
        import matplotlib
        from matplotlib.figure import Figure

        self._context = matplotlib.rc_context(_STYLE)
        self._context.__enter__()
        self._figure = Figure(figsize=self._size, dpi=110, layout="constrained")
        return self._svg, self._figure.add_subplot()

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)

    def _svg(self) -> str:
        text = io.StringIO()
        self._figure.savefig(text, format="svg", metadata={"Date": None})
        # The declaration before the element has no place inside a page.
        return text.getvalue()[text.getvalue().index("<svg") :]
