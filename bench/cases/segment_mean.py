"""Weighted means over segments: the targets of DM (a segment a class) and of FairDD (one a class and group)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdd import ops
from fastdd.bench.baselines import plain
from fastdd.bench.framework.case import Case
from fastdd.core import rng


@dataclass(frozen=True)
class Rows:
    """Embeddings [N, D] in segments of unequal size: offsets int64 [S+1], weights float32 [N]."""

    x: Tensor
    offsets: Tensor
    weights: Tensor
    lengths: list[int]


class SegmentMean(Case):
    name = "segment_mean"

    def __init__(self, segments: int):
        self.variant = {"segments": segments}
        self.about = f"weighted means of 2,560 embeddings of 2,048 in {segments} segments"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Rows:
        n, d, segments = *((256, 64) if quick else (2560, 2048)), self.variant["segments"]
        key = rng.key(seed, self.name, segments)
        x = rng.normal(key, n * d, device).view(n, d)
        weights = rng.uniform(rng.key(seed, self.name, "weights"), n, device) + 0.5
        cuts = rng.permutation(rng.key(seed, self.name, "cuts", segments), n - 1)[: segments - 1].sort().values + 1
        offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([n])])
        return Rows(x, offsets.to(device), weights, offsets.diff().tolist())

    def shape(self, inputs: Rows) -> dict[str, int | list[int]]:
        return {"rows": list(inputs.x.shape), **self.variant}

    def fastdd(self, inputs: Rows) -> Tensor:
        return ops.segment_mean(inputs.x, inputs.offsets, inputs.weights)

    def plain(self, inputs: Rows) -> Tensor:
        return plain.segment_mean(inputs.x, inputs.offsets, inputs.weights)

    def loop(self, inputs: Rows) -> Tensor:
        return self._loop(inputs.x, inputs.weights, inputs.lengths)

    def truth(self, inputs: Rows) -> Tensor:
        return self._loop(inputs.x.double(), inputs.weights.double(), inputs.lengths)

    @staticmethod
    def _loop(x: Tensor, weights: Tensor, lengths: list[int]) -> Tensor:
        pairs = zip(x.split(lengths), weights.split(lengths), strict=True)
        return torch.stack([(rows * w[:, None]).sum(0) / w.sum() for rows, w in pairs])

    def bytes(self, inputs: Rows) -> int:
        means = len(inputs.lengths) * inputs.x.shape[1] * inputs.x.element_size()
        return inputs.x.nbytes + inputs.weights.nbytes + inputs.offsets.nbytes + means

    def flops(self, inputs: Rows) -> int:
        return 2 * inputs.x.numel()


CASES = [SegmentMean(10), SegmentMean(100)]
