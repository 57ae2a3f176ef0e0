"""How near a kernel density comes to the density that points were drawn from: a normal one, in one dimension.

Figure 7 of the appendix of "Mitigating Bias in Dataset Distillation": points, their histogram, the true density and the
estimate. The integrated squared error falls to 0 with the number of points where the bandwidth falls as n^(-1/5).
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fastdd import ops
from fastdd.core import files, rng
from fastdd.studies.kept import KeptRows

POINTS = (50, 500, 5_000, 50_000)
# Beyond 6 deviations a normal density has less than 1e-8 of its mass.
_REACH, _PLACES = 6.0, 1201
_DPI = 100
# Of the integrated squared error with the best bandwidth: 5/4 (R(K)^4 R(f''))^(1/5), R(g) the integral of g^2; for a
# normal kernel and a normal density (Wand and Jones 1995, equation 2.13).
_BEST = 1.25 * ((0.5 / math.sqrt(math.pi)) ** 4 * 3 / (8 * math.sqrt(math.pi))) ** 0.2


def bandwidth(points: int) -> float:
    """The standard deviation of the kernel that is best for a standard normal density: (4 / 3n)^(1/5).

    >>> round(bandwidth(1000), 4)
    0.2661
    """
    return (4 / (3 * points)) ** 0.2


def places() -> torch.Tensor:
    """float64 [P], where densities are compared: evenly spaced over -6..6."""
    return torch.linspace(-_REACH, _REACH, _PLACES, dtype=torch.float64)


def normal_density(at: torch.Tensor) -> torch.Tensor:
    """Of the standard normal distribution."""
    return (-0.5 * at**2).exp() / math.sqrt(2 * math.pi)


def drawn(points: int, seed: int) -> torch.Tensor:
    """float64 [n] from the standard normal distribution; the first of more are those of fewer."""
    return rng.normal(rng.lanes(rng.key(seed, "study-density"), points), 1)[:, 0].double()


def estimate(sample: torch.Tensor, width: float) -> torch.Tensor:
    """The kernel density at :func:`places`, float64 [P]."""
    return ops.kde(sample[:, None], places()[:, None], bandwidth=width).exp()


def squared_error(density: torch.Tensor) -> float:
    """Integral of (density - true density)^2 over :func:`places`."""
    return float(torch.trapezoid((density - normal_density(places())) ** 2, places()))


def study(
    kept: KeptRows, *, points: Sequence[int], seed: int, tell: Callable[[dict[str, Any]], None] = lambda row: None
) -> list[dict[str, Any]]:
    """Rows of every number of points: ``bandwidth``, ``ise`` (integrated squared error), ``ise_expected`` (its mean
    over samples, for many points), ``ise_histogram``, and ``bins`` of the histogram.

    Cost: the sum of n times 1,201 kernels.
    """
    rows = []
    for count in points:
        if count < 2:
            raise ValueError(f"a density needs at least 2 points, not {count}")

        def measure(count: int = count) -> dict[str, Any]:
            sample, width = drawn(count, seed), bandwidth(count)
            return {
                "bandwidth": width,
                "ise": squared_error(estimate(sample, width)),
                "ise_expected": _BEST * count**-0.8,
                **_histogram_error(sample.numpy()),
            }

        rows.append(kept.get({"points": count}, measure))
        tell(rows[-1])
    return rows


def _edges(sample: np.ndarray) -> np.ndarray:
    """Bins of the width that is best for a standard normal density (Scott 1979): 3.49 n^(-1/3)."""
    return np.linspace(-_REACH, _REACH, max(2, round(2 * _REACH / (3.49 * len(sample) ** (-1 / 3)))) + 1)


def _histogram_error(sample: np.ndarray) -> dict[str, Any]:
    heights, edges = np.histogram(sample, _edges(sample), density=True)
    here = np.clip(np.searchsorted(edges, places().numpy(), side="right") - 1, 0, len(heights) - 1)
    return {"ise_histogram": squared_error(torch.from_numpy(heights[here])), "bins": len(heights)}


def draw(rows: Sequence[Mapping[str, Any]], seed: int, path: str | os.PathLike) -> None:
    """Write a PNG: a panel each of up to four numbers of points, and the errors of all."""
    from matplotlib.figure import Figure

    shown = rows[:4]
    figure = Figure(figsize=(2.7 * (len(shown) + 1.3), 3.1), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, len(shown) + 1, width_ratios=[1] * len(shown) + [1.3])
    at = places()
    for axes, row in zip(panels, shown, strict=False):
        sample = drawn(row["points"], seed)
        axes.hist(sample.numpy(), _edges(sample.numpy()), density=True, color="#c9d3dd", label="histogram")
        axes.plot(at, normal_density(at), color="#555555", ls="--", lw=1, label="normal")
        axes.plot(at, estimate(sample, row["bandwidth"]), color="#c8553d", lw=1.3, label="kernel density")
        title = f"{row['points']:,} points, bandwidth {row['bandwidth']:.2f}\nsquared error {row['ise']:.2g}"
        axes.set_title(title, fontsize=9)
        axes.set(xlim=(-4, 4), ylim=(0, 0.55), yticks=[])
    panels[0].legend(frameon=False, fontsize=7, loc="upper left")
    errors, points = panels[-1], [row["points"] for row in rows]
    errors.loglog(points, [row["ise"] for row in rows], "o-", ms=4, color="#c8553d", label="kernel density")
    errors.loglog(points, [row["ise_histogram"] for row in rows], "s-", ms=4, color="#8a97a4", label="histogram")
    expected = [row["ise_expected"] for row in rows]
    errors.loglog(points, expected, ls="--", lw=1, color="#555555", label="expected, $\\propto n^{-4/5}$")
    errors.set(xlabel="points", ylabel="integrated squared error")
    errors.legend(frameon=False, fontsize=7)
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))
