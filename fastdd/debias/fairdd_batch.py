"""FairDD without group labels: what clusters within a step's batch is a group (FairDD, appendix M, Table 18).

The paper clusters "the samples within a batch" by DBSCAN, and says neither of what nor with which settings. Here it
is what the step's network sees of the images, without augmentation, of every class by itself; two neighbours make a
cluster, within the distance that nine of ten images have to their second neighbour. (Adjusted Rand index against the
true colours, 256 images a class of C-MNIST, random ConvNets: 0.63 BG, 0.66 FG; where the sorted distances bend: 0.2 to
0.4. On the few images of c-digits it finds nothing: 0.0.)
"""

import numpy as np
import torch

from fastdd.debias.base import Mode
from fastdd.debias.density.clusters import dbscan
from fastdd.debias.segments import Batch, Segments, segments_by

_NEIGHBOURS, _SHARE = 2, 0.9


def segments(batch: Batch) -> Segments:
    """One segment for each class and cluster of it, as :func:`fastdd.debias.fairdd.segments` has them of groups.

    The number of segments a class is the most clusters that one has, and differs from step to step. Waits for the
    device. Of a class with fewer than 4 images, or whose images look alike, all are one cluster.
    """
    if batch.embeddings is None:
        raise ValueError("clusters of a batch need what a network sees of it")
    values, classes = batch.embeddings.float().cpu().numpy(), batch.classes.cpu().numpy()
    groups = np.zeros(len(classes), np.int64)
    for label in range(batch.num_classes):
        members = np.flatnonzero(classes == label)
        groups[members] = _clusters(values[members])
    most = int(groups.max(initial=0)) + 1
    found = torch.from_numpy(groups).to(batch.rows.device)
    of_classes = torch.arange(batch.num_classes, device=batch.rows.device).repeat_interleave(most)
    return segments_by(batch, batch.classes * most + found, of_classes)


def _clusters(values: np.ndarray) -> np.ndarray:
    """int64 [n], clusters of one class's images [n, D], from 0."""
    if len(values) <= _NEIGHBOURS + 1:
        return np.zeros(len(values), np.int64)
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(values)
    radius = float(np.quantile(nearest.kneighbors()[0][:, -1], _SHARE))  # without the image itself
    return dbscan(values, radius, _NEIGHBOURS + 1) if radius > 0 else np.zeros(len(values), np.int64)


MODE = Mode(
    "fairdd of clusters within each batch, where no group is known (DBSCAN)", segments, "embeddings", waits=True
)
