"""Gaussian log-densities of embeddings: exact, and from nearest neighbours with a sampled far field."""

import math
from dataclasses import dataclass

import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor

from fastdd import ops
from fastdd.bench.framework.case import FLOOR, Case
from fastdd.bench.framework.upstream import Upstream
from fastdd.core import rng


@dataclass(frozen=True)
class Points:
    """Unit rows [N, D] around ten directions, and a bandwidth."""

    x: Tensor
    bandwidth: float


class Kde(Case):
    """``reference-loop`` is scikit-learn, which takes over a minute: its check is its only repetition."""

    name = "kde/exact"
    about = "log-density of 20,000 x 128 under themselves; reference-loop is scikit-learn, once"
    once = frozenset({"reference-loop"})

    def __init__(self):
        self.variant = {}

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Points:
        n, d = (300, 8) if quick else (20_000, 128)
        centres = rng.normal(rng.key(seed, "kde", "centres"), 10 * d, device).view(10, d)
        noise = rng.normal(rng.key(seed, "kde"), n * d, device).view(n, d)
        x = centres[torch.arange(n, device=device) % 10] + noise
        return Points(torch.nn.functional.normalize(x), math.sqrt(0.1))

    def shape(self, inputs: Points) -> dict[str, int | list[int]]:
        return {"x": list(inputs.x.shape)}

    def fastdd(self, inputs: Points) -> Tensor:
        return ops.kde(inputs.x, bandwidth=inputs.bandwidth)

    def plain(self, inputs: Points) -> Tensor:
        return _tiled(inputs.x, inputs.bandwidth)

    def loop(self, inputs: Points) -> Tensor:
        x = inputs.x.cpu().double().numpy()
        scores = KernelDensity(kernel="gaussian", bandwidth=inputs.bandwidth).fit(x).score_samples(x)
        return torch.from_numpy(scores).to(inputs.x.device)

    def truth(self, inputs: Points) -> Tensor:
        return _tiled(inputs.x.double(), inputs.bandwidth)

    def bytes(self, inputs: Points) -> int:
        return inputs.x.nbytes + 4 * len(inputs.x)

    def flops(self, inputs: Points) -> int:
        """All products of two rows; N^2 exponentials come on top."""
        return 2 * len(inputs.x) * inputs.x.numel()


class KnnKde(Kde):
    """An approximation, held to what it promises: the truth is within its bounds, and the estimate within six standard
    errors, ``sqrt((N - k) / (m k)) / 2`` nats with m far samples, of the truth."""

    name = "kde/knn"
    about = "the same from 256 nearest neighbours and 1,024 far samples; torch is exact"
    _NEIGHBOURS, _FAR = 256, 1024

    def fastdd(self, inputs: Points) -> "ops.KnnDensity":
        return ops.knn_kde(inputs.x, bandwidth=inputs.bandwidth, k=self._NEIGHBOURS, far_samples=self._FAR)

    def backends(self, code: Upstream | None) -> list[str]:
        return ["torch", "fastdd"]

    def check(self, backend: str, inputs: Points, code: Upstream | None, truth: Tensor) -> list[float]:
        """By how much the truth is out of bounds, and the estimate's error, both in nats."""
        found = self.call(backend, inputs, code)
        if backend == "torch":
            return [0.0, (found.double() - truth).abs().max().item()]
        outside = torch.maximum(found.lower.double() - truth, truth - found.upper.double()).clamp(min=0)
        return [outside.max().item(), (found.log_density.double() - truth).abs().max().item()]

    def floors(self, results: int) -> list[float]:
        return [FLOOR, 6 * math.sqrt(20_000 / (self._FAR * self._NEIGHBOURS)) / 2]


def _tiled(x: Tensor, bandwidth: float) -> Tensor:
    """A matrix product and a logsumexp a tile of rows; on CPUs of so few that they stay in cache (twice as fast)."""
    rows = 4096 if x.is_cuda else 128
    scaled = x / bandwidth
    squares = scaled.square().sum(1)
    constant = math.log(len(x)) + x.shape[1] * math.log(bandwidth * math.sqrt(2 * math.pi))
    tiles = [
        (torch.addmm(-0.5 * squares, tile, scaled.T) - 0.5 * own[:, None]).logsumexp(1)
        for tile, own in zip(scaled.split(rows), squares.split(rows), strict=True)
    ]
    return torch.cat(tiles) - constant


CASES = [Kde(), KnnKde()]
