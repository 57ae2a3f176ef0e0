"""What a trained network has learned: its features, and what its predictions rest on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastdd.core import ranks, rng
from fastdd.core.text import did_you_mean
from fastdd.data import Dataset, objects_in
from fastdd.evaluation.features import drawn_rows, features_of, in_plane, silhouette
from fastdd.evaluation.saliency import Saliency, check_cells, predicted, rise, share_inside
from fastdd.session.trained import StoredNetwork

PROJECTIONS = ("tsne", "pca", "none")
# The class of an image that saliency is of: its own, or the one that the network takes it for.
CLASSES = ("own", "predicted")


@dataclass(frozen=True)
class Explanation:
    """What a network has learned, on images of the test set.

    Attributes:
        network: the network, from its file.
        tested: rows of the test images whose features are looked at, int64 [M].
        silhouette_class, silhouette_group: how far classes, and groups, are apart in the features of the test images,
            -1..1 (:func:`fastdd.evaluation.features.silhouette`); None where the test set has one.
        plane: float32 [M, 2], the features in the plane; None where that was not asked for.
        explained: rows of the test images that saliency is of, int64 [N].
        explained_classes: that it is of, one an image, int64 [N].
        saliency: of those images and classes; None where there are none.
        inside: the share of each one's saliency inside its object (:func:`fastdd.evaluation.saliency.share_inside`), of
            where it is at least half of its maximum; None where the data set does not know the object, of all images
            or of one.
        inside_all: the same of all that is above 0.
        area: the object's share of each image: what ``inside`` is by chance; None likewise.
    """

    network: StoredNetwork
    tested: np.ndarray
    silhouette_class: float | None
    silhouette_group: float | None
    plane: np.ndarray | None
    explained: np.ndarray
    explained_classes: np.ndarray
    saliency: Saliency | None = None
    inside: list[float | None] | None = None
    inside_all: list[float | None] | None = None
    area: list[float | None] | None = None

    def __repr__(self) -> str:
        parts = {"class": self.silhouette_class, "group": self.silhouette_group}
        shown = [f"silhouette by {what} {value:.2f}" for what, value in parts.items() if value is not None]
        return f"Explanation({', '.join([*shown, f'saliency of {len(self.explained)} images'])})"


def explain_network(
    stored: StoredNetwork,
    data: Dataset,
    device: torch.device,
    *,
    features: int,
    projection: str,
    images: int,
    of: str,
    masks: int,
    cells: int | None,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Look at a network; arguments and errors as of :func:`fastdd.explain`."""
    if ranks.world() > 1:
        raise ValueError(f"a network is explained by one process, not by torchrun's {ranks.world()} ranks")
    _check(features=features, images=images, masks=masks, projection=projection, of=of)
    if images:
        check_cells(data.size, cells)
    stored.check_fits(data)
    net, test = stored.net.to(device), data.test
    tested = drawn_rows(test, features, rng.key(seed, "explain-features"))
    some = test.take(tested)
    values = features_of(net, stored.read(some, device).read(torch.arange(len(some))))
    plane = None if projection == "none" else in_plane(values, projection)
    explained = rows_by_class(test.labels, images, seed)
    about: dict[str, Any] = {"explained_classes": test.labels[explained]}
    if len(explained):
        shown = test.take(explained)
        pixels = stored.read(shown, device).read(torch.arange(len(shown)))
        if of == "predicted":
            about["explained_classes"] = predicted(net, pixels).cpu().numpy()
        classes, key = torch.from_numpy(about["explained_classes"]), rng.key(seed, "explain-masks")
        about["saliency"] = rise(net, pixels, classes, masks=masks, side=cells, key=key, progress=progress)
        about |= _inside(about["saliency"], objects_in(data, shown.images))
    return Explanation(
        network=stored,
        tested=tested,
        silhouette_class=silhouette(values, some.labels),
        silhouette_group=silhouette(values, some.groups),
        plane=plane,
        explained=explained,
        **about,
    )


def _check(*, features: int, images: int, masks: int, projection: str, of: str) -> None:
    for name, value, least in (("features", features, 2), ("images", images, 0), ("masks", masks, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    if projection not in PROJECTIONS:
        meant = did_you_mean(projection, PROJECTIONS)
        raise ValueError(f"projection must be one of {', '.join(PROJECTIONS)}, not {projection!r}{meant}")
    if of not in CLASSES:
        raise ValueError(f"of must be one of {', '.join(CLASSES)}, not {of!r}{did_you_mean(of, CLASSES)}")


def _inside(saliency: Saliency, objects: np.ndarray | None) -> dict[str, list[float | None]]:
    """Shares of saliency inside objects, and what objects take of images; None where an image's is not known."""
    if objects is None:
        return {}
    shares = {
        "inside": share_inside(saliency.excess, objects),
        "inside_all": share_inside(saliency.excess, objects, at_least=0),
        "area": objects.mean((1, 2)).tolist(),
    }
    told = objects.any((1, 2))
    return {
        name: [value if known else None for value, known in zip(values, told, strict=True)]
        for name, values in shares.items()
    }


def rows_by_class(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``count`` random rows, the classes in turn, int64; fewer where there are no more.

    >>> labels = np.array([0, 0, 0, 1, 1, 2])
    >>> labels[rows_by_class(labels, 5, seed=0)].tolist()
    [0, 1, 2, 0, 1]
    """
    drawn = {
        label: rows[rng.permutation(rng.key(seed, "explain-images", int(label)), len(rows)).numpy()]
        for label in np.unique(labels)
        for rows in [np.flatnonzero(labels == label)]
    }
    turns = [rows[turn] for turn in range(max(map(len, drawn.values()))) for rows in drawn.values() if turn < len(rows)]
    return np.array(turns[:count], np.int64)
