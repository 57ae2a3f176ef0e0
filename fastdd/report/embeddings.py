"""Features of real and synthetic images in the plane, for a page."""

from dataclasses import dataclass

import numpy as np
import torch

from fastdd import models
from fastdd.core import rng
from fastdd.data import Dataset, Split, SyntheticSet
from fastdd.evaluation.features import Projection, drawn_rows, features_of, in_plane, seen_images, silhouette
from fastdd.report import charts
from fastdd.report.palette import group_colours
from fastdd.report.record import Record
from fastdd.session.trained import StoredNetwork, read_network

# What a reader takes in, and t-SNE in seconds.
_MOST_EMBEDDED, _MOST_TESTED = 1500, 2000
# Of a run's folder: networks that were trained on its set, as `fastdd evaluate --keep-nets` writes them.
NETWORKS = "networks"


@dataclass(frozen=True)
class Embedding:
    """Features in the plane: what network they are of, and (what the colours are by, chart)."""

    about: str
    pictures: list[tuple[str, str]]


def kept_network(record: Record) -> StoredNetwork:
    """The first network that was trained on the record's set and kept in its folder.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = (record.path if record.path.is_dir() else record.path.parent) / NETWORKS
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{record.path} has no trained networks: fastdd evaluate {record.path} --keep-nets {folder} trains some"
        )
    return read_network(folder)


def of_random_network(made: SyntheticSet, dataset: Dataset, projection: Projection, seed: int) -> Embedding:
    """Features by a random ConvNet of training images, and of synthetic ones beside them."""
    train, made = dataset.train, made.decoded()
    rows = drawn_rows(train, _MOST_EMBEDDED, rng.key(seed, "report-embedded"))
    real = seen_images(train.take(rows), dataset, made.zca).read(torch.arange(len(rows)))
    net = models.build("ConvNet", dataset.channels, dataset.num_classes, dataset.size, key=rng.key(seed, "report-net"))
    features = features_of(net, torch.cat([real, made.images]))
    plane = in_plane(features, projection, fitted=len(rows))
    return Embedding(
        "Features of a random ConvNet in the plane: real images small, synthetic ones large.",
        _scatters(plane, train.take(rows), made.labels.numpy(), dataset),
    )


def of_trained_network(
    made: SyntheticSet, stored: StoredNetwork, dataset: Dataset, projection: Projection, seed: int
) -> Embedding:
    """Features by a network that was trained on the set of test images, and of synthetic ones beside them; and how far
    classes and groups of the test images are apart in them."""
    stored.check_fits(dataset)
    made, test = made.decoded(), dataset.test
    test = test.take(drawn_rows(test, _MOST_TESTED, rng.key(seed, "report-tested")))
    real = stored.read(test).read(torch.arange(len(test)))
    features = features_of(stored.net, torch.cat([real, made.images]))
    plane = in_plane(features, projection, fitted=len(test))
    apart = (silhouette(features[: len(test)], labels) for labels in (test.labels, test.groups))
    told = ", ".join(
        f"by {what} {value:.2f}" for what, value in zip(("class", "group"), apart, strict=True) if value is not None
    )
    return Embedding(
        f"Features of a network that was trained on the set ({stored.path.name}) in the plane: test images small, "
        f"synthetic ones large. Silhouette of the test images, in all dimensions: {told}; 1 is far apart, 0 overlaps.",
        _scatters(plane, test, made.labels.numpy(), dataset),
    )


def _scatters(plane: np.ndarray, real: Split, of_made: np.ndarray, dataset: Dataset) -> list[tuple[str, str]]:
    points = plane[: len(real)], plane[len(real) :]
    found = [("by class", charts.scatter(points[0], real.labels, points[1], of_made, dataset.class_names))]
    if dataset.num_groups > 1:
        names = dataset.group_names
        colours = group_colours(names)
        found.append(("by group", charts.scatter(points[0], real.groups, points[1], None, names, colours)))
    return found
