"""What the kernel's variance, the temperature and the cut-off of KDE weights do to a distilled set.

The ablation of "Mitigating Bias in Dataset Distillation" (its figures 4 and 8), on c-digits with 95 % of the training
images bias-aligned: accuracy on the unbiased test set of networks trained on ten images a class, and, below, weight on
the bias-conflicting images and effective sample size, means over classes.

    python -m fastdd.bench.studies.kde --out kde-ablation.png --json kde-ablation.json
"""

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fastdd
from fastdd import report
from fastdd.core import files
from fastdd.debias.density.kde import KdeSettings, KdeWeights, kde_weights

IPC, NETS, EPOCHS = 10, 2, 200
KNOBS: dict[str, tuple[float, ...]] = {
    "variance": (0.001, 0.01, 0.1, 0.3, 1.0, 3.0),
    "temperature": (0.05, 0.1, 0.25, 0.5, 1.0, 3.0),
    "clip": (1.25, 2.0, 3.0, 5.0, 10.0, 100.0),
}
_TITLES = {"variance": "variance of the kernel, σ²", "temperature": "temperature", "clip": "cut-off of scores"}
_ACCURACY, _MASS, _ESS = "#2e7d4f", "#c8553d", "#4a7fb5"
_DPI = 100


def measure(data: fastdd.data.Dataset, made: KdeWeights | None, debias: str, seed: int) -> dict[str, Any]:
    """Distil, train networks, test: accuracy and DEO_A in percent, and what the weights do."""
    synthetic = fastdd.distill(data, debias=debias, weights=None if made is None else made.weights, ipc=IPC, seed=seed)
    summary = fastdd.evaluate(synthetic, data, nets=NETS, epochs=EPOCHS, seed=seed).summary()
    row: dict[str, Any] = {"debias": debias, "seed": seed}
    row |= {name: summary[name]["mean"] for name in ("accuracy", "deo_a")}
    if made is not None:
        found = made.diagnostics(data.train.labels, data.train.groups)
        row |= {"conflict_mass": float(np.mean(found.conflict_mass)), "ess": float(np.mean(found.ess))}
    return row


def study(bias_ratio: float = 0.95, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of DM, DM+FairDD, and DM+KDE for every value of every knob, the others at their defaults."""
    data = fastdd.data.load("c-digits", bias_ratio=bias_ratio)
    rows = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(
            " ".join(f"{name} {value:.4g}" if isinstance(value, float) else str(value) for name, value in row.items())
        )

    for debias in ("none", "fairdd"):
        add(measure(data, None, debias, seed))
    embeddings = fastdd.kde_weights(data, seed=seed).embeddings
    known: dict[KdeSettings, dict[str, Any]] = {}
    for knob, values in KNOBS.items():
        for value in values:
            settings = {knob: value}
            key = KdeSettings(**settings)
            if key not in known:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # that a class has few effective images is a result
                    made = kde_weights(embeddings, data.train.labels, **settings)
                known[key] = measure(data, made, "kde", seed)
            add({**known[key], "knob": knob, "value": value})
    return rows


def draw(rows: list[dict[str, Any]], path: str | os.PathLike) -> None:
    """One panel a knob, in a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=_DPI, layout="constrained")
    panels = figure.subplots(2, len(KNOBS), sharex="col", sharey="row", height_ratios=(3, 2))
    plain, fair = (next(row for row in rows if row["debias"] == debias) for debias in ("none", "fairdd"))
    for number, knob in enumerate(KNOBS):
        own = [row for row in rows if row.get("knob") == knob]
        values = [row["value"] for row in own]
        top, below = panels[:, number]
        top.plot(values, [row["accuracy"] for row in own], "o-", color=_ACCURACY, label="DM+KDE")
        top.axhline(fair["accuracy"], color="#555555", ls="--", lw=1, label="DM+FairDD (groups known)")
        top.axhline(plain["accuracy"], color="#555555", ls=":", lw=1, label="DM")
        below.plot(values, [100 * row["conflict_mass"] for row in own], "s-", color=_MASS, ms=4)
        sizes = below.twinx()
        sizes.plot(values, [row["ess"] for row in own], "^-", color=_ESS, ms=4)
        sizes.set(yscale="log", ylim=(0.9, 150))
        below.set(xscale="log", xlabel=_TITLES[knob], ylim=(0, 105))
        top.set(ylim=(0, 100))
        for axes in (top, below):
            axes.axvline(getattr(KdeSettings(), knob), color="#bbbbbb", lw=6, alpha=0.4, zorder=0)
        if number == 0:
            top.set_ylabel("unbiased accuracy, %")
            below.set_ylabel("weight on\nconflicting, %", color=_MASS)
        if number == len(KNOBS) - 1:
            sizes.set_ylabel("effective sample size", color=_ESS)
            top.legend(frameon=False, loc="center right", fontsize=8)
        else:
            sizes.set_yticklabels([])
    figure.suptitle(f"c-digits, 95 % bias-aligned, {IPC} images a class; grey: default")
    files.write_atomic(path, lambda file: figure.savefig(file, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="picture (PNG)")
    parser.add_argument("--json", type=Path, help="also the numbers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for path in (arguments.out, arguments.json):
        if path is not None:
            files.check_writable(path)
    began = time.perf_counter()
    rows = study(seed=arguments.seed)
    draw(rows, arguments.out)
    if arguments.json is not None:
        report.write_json(arguments.json, report.document(rows, seconds=time.perf_counter() - began))


if __name__ == "__main__":
    main()
