"""NCFM's distance of characteristic functions, with its gradient in the synthetic features."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import ops
from fastdd.bench.cases.matching import with_gradient
from fastdd.bench.framework.case import Case, Result
from fastdd.core import rng


@dataclass(frozen=True)
class Features:
    """Real [N, D] in segments of rows of length 1, synthetic [M, D] likewise, and frequencies [1, K, D]; one class."""

    real: Tensor
    synthetic: Tensor
    t: Tensor
    offsets: Tensor
    lengths: list[int]


def _published(a: Tensor, b: Tensor, c: Tensor, s: Tensor) -> Tensor:
    """The distance of a + ib and c + is with both weights a half."""
    real, synthetic = (a * a + b * b).sqrt(), (c * c + s * s).sqrt()
    phase = 2 * (real * synthetic - a * c - b * s)
    return (0.5 * (real - synthetic) ** 2 + 0.5 * phase.clamp(min=1e-12)).sqrt()


def _apart(a: Tensor, b: Tensor, c: Tensor, s: Tensor) -> Tensor:
    """The same, with its digits."""
    return 0.5**0.5 * torch.sqrt((a - c) ** 2 + (b - s) ** 2)


class CfMatch(Case):
    """The loss of NCFM from the features of one class, in one segment or ten."""

    name = "cf_match"

    def __init__(self, segments: int):
        self.variant = {"segments": segments}
        rows = "1,024 real and 40 synthetic features of 2,048"
        self.about = f"NCFM's distance and gradient: {rows} at 4,096 frequencies, {segments} segments"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Features:
        n, m, d, k = (100, 8, 32, 64) if quick else (1024, 40, 2048, 4096)
        segments = self.variant["segments"]
        # As after a ReLU.
        both = F.normalize(rng.normal(rng.key(seed, self.name), (n + m) * d, device).view(n + m, d).relu(), dim=1)
        t = ops.cf_frequencies(rng.lanes(rng.key(seed, self.name, "t"), 1, device), k, d)
        cuts = rng.permutation(rng.key(seed, self.name, "cuts"), n - 1)[: segments - 1].sort().values + 1
        offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([n])])
        return Features(both[:n], both[n:], t, offsets.to(device), offsets.diff().tolist())

    def shape(self, inputs: Features) -> dict[str, int | list[int]]:
        sides = {"real": list(inputs.real.shape), "synthetic": list(inputs.synthetic.shape)}
        return {**sides, "frequencies": inputs.t.shape[1], **self.variant}

    def fastdd(self, inputs: Features) -> Result:
        classes = torch.zeros_like(inputs.offsets[1:])

        def distances(synthetic: Tensor) -> Tensor:
            return ops.cf_match(inputs.real, synthetic, inputs.t, inputs.offsets, None, classes, 1)

        return with_gradient(distances, [inputs.synthetic])

    def plain(self, inputs: Features) -> Result:
        t = inputs.t[0]
        phases = inputs.real @ t.T
        real = torch.stack(
            [torch.stack([part.cos().mean(0), part.sin().mean(0)]) for part in phases.split(inputs.lengths)]
        )

        def distances(synthetic: Tensor) -> Tensor:
            phases = synthetic @ t.T
            means = torch.stack([phases.cos().mean(0), phases.sin().mean(0)])
            return 0.5**0.5 * torch.linalg.vector_norm(real - means, dim=1).mean(1)

        return with_gradient(distances, [inputs.synthetic])

    def loop(self, inputs: Features) -> Result:
        return self._loop(inputs, inputs.real, inputs.synthetic, inputs.t[0])

    def truth(self, inputs: Features) -> Result:
        doubles = inputs.real.double(), inputs.synthetic.double(), inputs.t[0].double()
        return self._loop(inputs, *doubles, distance=_published)

    def _loop(
        self,
        inputs: Features,
        real: Tensor,
        synthetic: Tensor,
        t: Tensor,
        distance: Callable[..., Tensor] = _apart,
    ) -> Result:
        """As published: a product each for the cosines and for the sines, of the synthetic side once a segment.

        But for the distance: the published one takes a difference of nearly equal numbers, which in float32 has the
        gradient wrong by 1e-4.
        """

        def means(features: Tensor) -> tuple[Tensor, Tensor]:
            return (t @ features.T).cos().mean(1), (t @ features.T).sin().mean(1)

        def distances(leaf: Tensor) -> Tensor:
            return torch.stack([distance(*means(rows), *means(leaf)).mean() for rows in real.split(inputs.lengths)])

        return with_gradient(distances, [synthetic])

    def bytes(self, inputs: Features) -> int:
        return inputs.real.nbytes + 2 * inputs.synthetic.nbytes + inputs.t.nbytes

    def flops(self, inputs: Features) -> int:
        """A product of all rows with all frequencies; of the synthetic ones twice more for the gradient."""
        k, d = inputs.t.shape[1:]
        return 2 * k * d * (len(inputs.real) + 3 * len(inputs.synthetic))


CASES = [CfMatch(1), CfMatch(10)]
