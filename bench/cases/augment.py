"""Differentiable Siamese augmentation: one operation for a batch, and all six, each on a sixth of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdd import ops
from fastdd.bench.baselines import plain, published
from fastdd.bench.framework.case import Case
from fastdd.bench.framework.upstream import Upstream
from fastdd.core import rng

# Arithmetic a pixel and channel: brightness, two means, two blends; a bilinear sample of four taps.
_FLOPS = {"color": 9, "scale": 8, "rotate": 8}


@dataclass(frozen=True)
class Parts:
    """Images in consecutive parts, each with an augmentation of its own.

    Attributes:
        x: float32 [N, C, H, W].
        sizes: images of every part.
        seeds: what published code draws each part's augmentation from.
        rows: each part's parameters, float64, on the CPU.
        params: the same for fastdd, float32 on x's device.
        of: the part of every image; None when there is only one.
    """

    x: Tensor
    sizes: list[int]
    seeds: list[int]
    rows: list[Tensor]
    params: Tensor
    of: Tensor | None


class Augment(Case):
    """256 images under the given operations, one a part of the batch."""

    def __init__(self, name: str, *operations: str):
        self.name, self.variant, self._operations = name, {}, operations
        self.about = f"DSA, {', '.join(operations)}: 256 images, fixed parameters"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Parts:
        n, size = (12, 16) if quick else (256, 32)
        x = rng.normal(rng.key(seed, self.name), n * 3 * size * size, device).view(n, 3, size, size)
        sizes = [len(part) for part in torch.empty(n).tensor_split(len(self._operations))]
        seeds = [self._seed(operation, seed, size, device) for operation in self._operations]
        drawn = [
            published.draw(operation, number, (size, size), device)[0]
            for operation, number in zip(self._operations, seeds, strict=True)
        ]
        params = torch.stack(drawn).to(device, torch.float32)
        of = torch.arange(len(sizes), device=device).repeat_interleave(torch.tensor(sizes, device=device))
        return Parts(x, sizes, seeds, drawn, params, of if len(sizes) > 1 else None)

    @staticmethod
    def _seed(operation: str, first: int, size: int, device: torch.device) -> int:
        """The first seed from ``first`` on whose draw changes the images."""
        identity = ops.identity_params(1, dtype=torch.float64)[0]
        seed = first
        while torch.equal(published.draw(operation, seed, (size, size), device)[0], identity):
            seed += 1
        return seed

    def shape(self, inputs: Parts) -> dict[str, int | list[int]]:
        return {"images": list(inputs.x.shape)}

    def fastdd(self, inputs: Parts) -> Tensor:
        return ops.augment(inputs.x, inputs.params, inputs.of)

    def plain(self, inputs: Parts) -> Tensor:
        return self._in_parts(inputs, plain.augment, inputs.x)

    def loop(self, inputs: Parts) -> Tensor:
        return self._in_parts(inputs, published.augment, inputs.x)

    def truth(self, inputs: Parts) -> Tensor:
        return self._in_parts(inputs, published.augment, inputs.x.double())

    def upstream(self, inputs: Parts, code: Upstream) -> Tensor:
        parts = zip(inputs.x.split(inputs.sizes), self._operations, inputs.seeds, strict=True)
        return self._joined([code.augment(*part) for part in parts])

    def _in_parts(self, inputs: Parts, function, x: Tensor) -> Tensor:
        parts = zip(x.split(inputs.sizes), inputs.rows, self._operations, strict=True)
        return self._joined([function(*part) for part in parts])

    @staticmethod
    def _joined(parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def bytes(self, inputs: Parts) -> int:
        return 2 * inputs.x.nbytes

    def flops(self, inputs: Parts) -> int:
        per_image = inputs.x[0].numel()
        pairs = zip(inputs.sizes, self._operations, strict=True)
        return sum(size * per_image * _FLOPS.get(operation, 0) for size, operation in pairs)


CASES = [
    *(Augment(f"augment/{operation}", operation) for operation in ops.DSA_OPS),
    Augment("augment/mix", *ops.DSA_OPS),
]
