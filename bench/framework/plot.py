"""Speed-ups as bars and the roofline as a scatter, in one PNG file."""

import os
from typing import Any

from fastdd.bench.framework.case import BASELINES
from fastdd.bench.framework.table import case_label
from fastdd.core import files

_COLORS = {"reference-loop": "#b5651d", "torch": "#4a7fb5", "upstream": "#8a6fb0", "fastdd": "#2e7d4f"}
_DPI = 120
_TALLEST = 26.0  # inches: taller pictures are scaled down by whoever shows them


def write(path: str | os.PathLike, document: dict[str, Any]) -> None:
    """Draw a document to a PNG file, whole or not at all."""
    from matplotlib.figure import Figure

    rows, meta = document["rows"], document["meta"]
    ours = [row for row in rows if row["backend"] == "fastdd"]
    height = min(_TALLEST, max(6.0, 1.5 + 0.42 * len(ours)))
    figure = Figure(figsize=(14, height), dpi=_DPI, layout="constrained")
    bars, roof = figure.subplots(1, 2)
    _speedups(bars, ours, rows)
    _roofline(roof, rows, meta["ceilings"])
    note = "  (quick: no measure of speed)" if meta["quick"] else ""
    figure.suptitle(f"fastdd {meta['fastdd']} on {meta['device']}, {meta['threads']} threads{note}")
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))


def _speedups(axes, ours: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    measured = [name for name in BASELINES if any(row["speedup"][name] for row in ours)]
    height = 0.8 / max(1, len(measured))
    for offset, baseline in enumerate(measured):
        places, values = [], []
        for place, row in enumerate(ours):
            if row["speedup"][baseline]:
                places.append(place - 0.4 + height * (offset + 0.5))
                values.append(row["speedup"][baseline])
        # From 1, so that slower points the other way.
        axes.barh(places, [v - 1 for v in values], height, left=1, color=_COLORS[baseline], label=f"over {baseline}")
        for place, value in zip(places, values, strict=True):
            side = "left" if value >= 1 else "right"
            axes.annotate(
                f"{value:.2f}x" if value < 10 else f"{value:.0f}x",
                (value, place),
                xytext=(3 if value >= 1 else -3, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=7,
            )
    for place, row in enumerate(ours):
        if not row["match"]:
            axes.text(1, place, " no match, no speed-up", va="center", fontsize=8, color="#b00020")
    axes.set_yticks(range(len(ours)), [case_label(row, rows) for row in ours], fontsize=8)
    axes.set_ylim(len(ours) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("speed-up of fastdd (ratio of medians)")
    axes.set_title("speed-up, where results match")
    if measured:
        axes.legend(fontsize=8)


def _roofline(axes, rows: list[dict[str, Any]], ceilings: dict[str, Any]) -> None:
    # Cases that only vary another's sizes would hide the rest.
    shown = [row for row in rows if not row["case"].startswith("scale/")] or rows
    timed = [row for row in shown if row["median_us"] and row["flops"] and row["bytes"]]
    for backend, color in _COLORS.items():
        points = [row for row in timed if row["backend"] == backend]
        if points:
            x = [row["flops"] / row["bytes"] for row in points]
            y = [row["flops"] / row["median_us"] / 1e3 for row in points]
            axes.scatter(x, y, s=22, color=color, label=backend, zorder=3)
    for number, row in enumerate(row for row in timed if row["backend"] == "fastdd"):
        at = row["flops"] / row["bytes"], row["flops"] / row["median_us"] / 1e3
        right = number % 2  # both sides in turns: neighbours in the table are often neighbours here
        axes.annotate(
            case_label(row, rows),
            at,
            xytext=(5 if right else -5, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=7,
        )
    intensities = [row["flops"] / row["bytes"] for row in timed] or [1.0]
    low, high = min(intensities) / 20, max(intensities) * 4
    used = {row["dtype"] for row in timed}
    for name, peak in ceilings["gemm_gflops"].items():
        if name not in used:
            continue
        bend = peak / ceilings["copy_gbs"]
        x = [low, *([bend] if low < bend < high else []), high]
        axes.plot(x, [min(peak, value * ceilings["copy_gbs"]) for value in x], color="black", linewidth=1)
        axes.annotate(f"{name} product, {peak:,.0f} GFLOP/s", (high, peak), ha="right", va="bottom", fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity, FLOP per byte that must move")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"roofline: measured ceilings, copy {ceilings['copy_gbs']:.1f} GB/s")
    axes.grid(True, which="major", linewidth=0.3)
    if timed:
        axes.legend(fontsize=8, loc="lower right")
