"""What a network's features are like: in the plane, and how well they keep classes and groups apart."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.data import Dataset, DeviceImages, Split, Zca

_BATCH = 256
# Of t-SNE: components that are kept before it, and scikit-learn's own default of neighbours.
_COMPONENTS, _PERPLEXITY = 50, 30.0

Projection = Literal["pca", "tsne"]


def drawn_rows(split: Split, count: int, key: int) -> np.ndarray:
    """``count`` rows drawn without replacement, ascending; all where there are no more."""
    return np.sort(rng.permutation(key, len(split)).numpy()[:count])


def seen_images(split: Split, dataset: Dataset, zca: Zca | None, device: torch.device | str = "cpu") -> DeviceImages:
    """The images of a split as networks see them: whitened by ``zca``, or normalised as the data set says."""
    if zca is not None:
        return zca.read(split.images, device)
    return DeviceImages.of(split.images, dataset.mean, dataset.std, device)


@torch.no_grad()
def features_of(net: nn.Module, images: Tensor) -> np.ndarray:
    """float32 [N, D], what the last layer sees of normalised images [N, C, H, W].

    Args:
        net: with ``embed``, as those of :mod:`fastdd.models` and the predictors of :mod:`fastdd.training`; it is left
            in evaluation mode.
        images: on the network's device.
    """
    net.eval()
    embed = net.embedder() if isinstance(net, models.Network) else net.embed
    with models.exact_convolutions():
        return torch.cat([embed(some).float() for some in images.split(_BATCH)]).cpu().numpy()


def silhouette(features: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean silhouette of the points (Rousseeuw 1987): (b - a) / max(a, b), Euclidean.

    a is a point's mean distance to the others of its label, b that to those of the nearest other label: 1 where labels
    are tight clusters far apart, 0 where they overlap, below 0 where points are nearer to another label's.

    Args:
        features: [N, D].
        labels: int [N].

    Returns:
        -1..1; None where there is one label, or as many as points.

    Cost: N^2 D multiply-adds; a part of the distances in memory at a time.

    >>> round(silhouette(np.array([[0.0], [1.0], [9.0], [10.0]]), np.array([0, 0, 1, 1])), 3)
    0.889
    """
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(features, labels))


def in_plane(features: np.ndarray, projection: Projection, fitted: int | None = None) -> np.ndarray:
    """Features [N, D] in the plane, [N, 2].

    ``pca``: principal components. ``tsne``: t-SNE (van der Maaten and Hinton 2008) of the first 50 components, started
    from the first two, with perplexity 30, or less for few points. By scikit-learn, with a fixed state.

    Args:
        features: [N, D].
        projection: pca or tsne.
        fitted: of pca, how many of the first rows decide the components; None: all.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if projection == "pca":
        return PCA(2, random_state=0).fit(features[:fitted]).transform(features)
    few = PCA(min(_COMPONENTS, *features.shape), random_state=0).fit_transform(features)
    perplexity = min(_PERPLEXITY, (len(few) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(few)
