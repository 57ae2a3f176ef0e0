"""How well a network tells fake images from real ones: what From Fake to Real holds against training on both at once.

    python -m fastdd.bench.studies.fakes --dataset cifar10-s --data-root DIR --data-option bias_ratio=0.6 \
        --data-option validation=0.65 --per-cell 200
    python -m fastdd.bench.studies.fakes --dataset cifar10-s --data-root DIR --data-option ... --synthetic RUN

Fake images are stand-ins (degraded validation images, as many of every class and group), or those of a synthetic set.
Real ones are as many other validation images, drawn from a key. Half of both trains a network, half tests it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import yaml

from fastdd import api
from fastdd.core import rng
from fastdd.data import Dataset, Split, SyntheticSet, load
from fastdd.data.stand_in import stand_in_of_validation

_SEVERITY = 3


def probe(real: Split, fakes: Split, data: Dataset, **settings: object) -> float:
    """The accuracy, in percent, with which a network tells fake images from as many real ones; 50 is chance.

    Args:
        real, fakes: as many of both; their order should not matter.
        data: whose images they are; how they are normalised.
        **settings: of the network (:class:`fastdd.training.TrainSettings`).
    """
    half = len(fakes) // 2

    def split(rows: slice) -> Split:
        both = [one.take(np.arange(len(one))[rows]) for one in (real, fakes)]
        labels = np.repeat([0, 1], [len(one) for one in both])
        return Split(np.concatenate([one.images for one in both]), labels, np.zeros_like(labels))

    names = ("real", "fake"), ("any",)
    told = Dataset("real or fake", split(slice(half)), split(slice(half, None)), *names, data.mean, data.std, {})
    return api.train_network(told, **settings).metrics().accuracy


def of_synthetic(synthetic: SyntheticSet) -> Split:
    """The images of a set, as networks see them, in the 256 levels that real ones have."""
    mean, std = (torch.tensor(synthetic.metadata[name])[:, None, None] for name in ("mean", "std"))
    images = ((synthetic.decoded().images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    labels = np.asarray(synthetic.decoded().labels)
    return Split(images.numpy(), labels, np.zeros_like(labels))


def _shuffled(split: Split, key: int, count: int) -> Split:
    return split.take(rng.permutation(key, len(split)).numpy()[:count])


def main(arguments: list[str] | None = None) -> float:
    """Print the accuracy, and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--data-option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--per-cell", type=int, default=100, help="stand-ins of every class and group")
    parser.add_argument("--synthetic", metavar="RUN", help="a set, whose images are the fakes in place of stand-ins")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    options = [pair.partition("=") for pair in given.data_option]
    data = load(given.dataset, given.data_root, **{name: yaml.safe_load(value) for name, _, value in options})
    if given.synthetic is None:
        wanted = np.full((data.num_classes, data.num_groups), given.per_cell)
        data, fakes = stand_in_of_validation(data, wanted, _SEVERITY, given.seed)
    else:
        fakes = of_synthetic(api.load_synthetic(given.synthetic))
        if data.validation is None:
            parser.error("real images are validation images: --data-option validation=0.1 holds some out")
    fakes = _shuffled(fakes, rng.key(given.seed, "probe-fakes"), len(fakes))
    real = _shuffled(data.validation, rng.key(given.seed, "probe-real"), len(fakes))
    accuracy = probe(real, fakes, data, width=given.width, epochs=given.epochs, seed=given.seed)
    print(f"{len(real):,} real and {len(fakes):,} fake images: {accuracy:.1f} % of the other half are told apart")
    return accuracy


if __name__ == "__main__":
    main()
