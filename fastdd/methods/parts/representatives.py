"""Representative images: of every cluster of a network's embeddings the one nearest its centroid (DREAM)."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.data import Dataset, DeviceImages
from fastdd.data.sampler import even_shares
from fastdd.methods.parts.draws import RealSamples
from fastdd.ops.kmeans import kmeans

CLUSTER_BY = Literal["class", "group"]


class Representatives:
    """Finds ``count`` images of a class: k-means of the embeddings of all its images, and the image nearest each
    centroid, which may be that of several.

    As in DREAM's code, the network sees pixels in [0, 1], neither normalised nor augmented, and k is the number of
    images that are wanted; a class with fewer gives all it has. With ``by`` ``group`` each protected group of the class
    is clustered by itself, into as even a share of them as there can be.

    Args:
        dataset, samples: what is known of the real images; those of weight 0 are no one's representatives.
        real: their pixels, uint8, where the network is.
        by: class or group.
    """

    def __init__(self, dataset: Dataset, samples: RealSamples, real: DeviceImages, by: CLUSTER_BY):
        self._pixels = replace(real, mean=torch.zeros_like(real.mean), std=torch.ones_like(real.std))
        wanted = np.ones(len(dataset.train), bool) if samples.weights is None else (samples.weights > 0).cpu().numpy()
        cells = dataset.train.labels * dataset.num_groups + (dataset.train.groups if by == "group" else 0)
        self._cells: list[list[Tensor]] = [[] for _ in range(dataset.num_classes)]
        for cell in np.unique(cells[wanted]):
            rows = torch.from_numpy(np.flatnonzero(wanted & (cells == cell))).to(self._pixels.pixels.device)
            self._cells[cell // dataset.num_groups].append(rows)

    def count(self, label: int, count: int) -> int:
        """How many :meth:`find` gives of a class."""
        return min(count, sum(map(len, self._cells[label])))

    def find(self, net: nn.Module, label: int, count: int, key: int) -> Tensor:
        """Rows of ``count`` representative images of a class, int64, on the host or the device where pixels are.

        Deterministic in the key (:func:`fastdd.core.rng.key`), on a machine and thread count. Cost: a pass of all
        images of the class through the network, and k-means of their embeddings.
        """
        cells = self._cells[label]
        shares = even_shares([len(rows) for rows in cells], count).tolist()
        found = []
        for number, (rows, share) in enumerate(zip(cells, shares, strict=True)):
            if share:
                embeddings = self._embed(net, rows)
                centroids = kmeans(embeddings, share, rng.key(key, "cell", number))
                nearest = torch.cdist(centroids, embeddings).argmin(1)
                found.append(rows[nearest.to(rows.device)])
        return torch.cat(found)

    @torch.no_grad()
    def _embed(self, net: nn.Module, rows: Tensor) -> Tensor:
        training = {layer: layer.training for layer in net.modules()}
        embed, chunk = net.eval().embedder(), models.chunk_size(net, self._pixels)
        embeddings = torch.cat([embed(self._pixels.read(some)) for some in rows.split(chunk)])
        for layer, mode in training.items():
            layer.training = mode
        return embeddings.float()
