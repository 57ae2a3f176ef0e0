"""What training recipes reach on biased images, and on a set distilled from them.

c-digits with 95 % of the training images bias-aligned. A hundred of its test digits, each in all ten colours, are held
out for recipes that need validation (dfr); all are tested on the other four hundred, after the last epoch. The sets are
DM's, of ten images a class: plain, with KDE, with FairDD. On the plain one networks are trained by every recipe that
needs no groups ("Mitigating Bias in Dataset Distillation", its Table 4).

    python -m fastdd.bench.studies.recipes --json recipes.json

Rows that the file has are not made again.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastdd
from fastdd import report
from fastdd.core import files
from fastdd.data import Dataset, Split
from fastdd.evaluation import Metrics
from fastdd.training import RECIPES

BIAS_RATIO, WIDTH, EPOCHS, SEEDS = 0.95, 32, 30, (0, 1, 2)
IPC, NETS, SET_EPOCHS = 10, 3, 300
# Group DRO on draws as in its paper.
BALANCED = "groupdro, balanced"
VALIDATION_DIGITS, COLOURS = 100, 10
# DFA as published for digits: features are swapped after a fifth of the steps, biased losses count tenfold.
_SWAP_AFTER, _LAMBDA = 5, 10.0
_METRICS = ("accuracy", "wa", "ba", "deo_a")


def data() -> Dataset:
    """c-digits, some of whose test digits validate."""
    digits = fastdd.data.load("c-digits", bias_ratio=BIAS_RATIO)
    count, test = VALIDATION_DIGITS * COLOURS, digits.test

    def part(rows: slice) -> Split:
        return Split(test.images[rows], test.labels[rows], test.groups[rows])

    return replace(digits, validation=part(slice(count)), test=part(slice(count, None)))


def constants(training: str, steps: int) -> dict[str, Any]:
    """What a recipe is given in place of its defaults, for so many steps."""
    if training != "dfa":
        return {}
    return {"swap_from": steps // _SWAP_AFTER, "lambda_dis": _LAMBDA, "lambda_swap_bias": _LAMBDA}


def runs(digits: Dataset) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """What is run, by what tells it from others, and how."""
    steps = EPOCHS * -(-len(digits.train) // 64)
    for seed in SEEDS:
        for label in (*RECIPES, BALANCED):

            def whole(label: str = label, seed: int = seed) -> dict[str, Any]:
                training = label.split(",")[0]
                trained = fastdd.train_network(
                    digits,
                    training=training,
                    constants={"balanced": True} if label == BALANCED else constants(training, steps),
                    width=WIDTH,
                    epochs=EPOCHS,
                    keep="last",
                    seed=seed,
                )
                return _figures([trained.metrics()])

            yield {"on": "all", "training": label, "seed": seed}, whole
    for debias in ("none", "kde", "fairdd"):
        distilled: list[Any] = []
        for training, kind in RECIPES.items():
            if kind.needs_groups or (training != "erm" and debias != "none"):
                continue

            def of_set(training: str = training, debias: str = debias, distilled: list = distilled) -> dict[str, Any]:
                if not distilled:
                    weights = fastdd.kde_weights(digits).weights if debias == "kde" else None
                    distilled.append(fastdd.distill(digits, method="dm", debias=debias, weights=weights, ipc=IPC))
                given = constants(training, SET_EPOCHS) or None
                evaluated = fastdd.evaluate(
                    distilled[0], digits, training=training, constants=given, nets=NETS, width=WIDTH, epochs=SET_EPOCHS
                )
                return _figures(evaluated.metrics())

            yield {"on": "dm" if debias == "none" else f"dm+{debias}", "training": training, "seed": 0}, of_set


def _figures(networks: list[Metrics]) -> dict[str, Any]:
    return {name: [getattr(net, name) for net in networks] for name in _METRICS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="the numbers")
    path = parser.parse_args().json
    files.check_writable(path)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    for about, run in runs(data()):
        if any(about.items() <= row.items() for row in rows):
            continue
        rows.append(about | run())
        report.write_json(path, report.document(rows))
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
