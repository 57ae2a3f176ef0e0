"""Multi-formation of a synthetic set, and the gradient of it: alone, and with the classes' augmentation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import ops
from fastdd.bench.baselines import plain, published
from fastdd.bench.framework.case import Case
from fastdd.core import rng

_FACTOR, _CLASSES = 2, 10


@dataclass(frozen=True)
class Stored:
    """A synthetic set whose images hold four each, and a gradient of what is seen.

    Attributes:
        x: float32 [classes * IPC, C, H, W], pixels in [0, 1]; class-major.
        g: float32 [classes * IPC * 4, C, H, W], of the seen images, an image's parts together.
        parts: the address of each.
        operations: the augmentation of every class.
        rows: its parameters, float64, on the CPU.
        params: the same for fastdd, float32 on x's device.
        of: the class of every seen image.
    """

    x: Tensor
    g: Tensor
    parts: Tensor
    operations: list[str]
    rows: list[Tensor]
    params: Tensor
    of: Tensor


class Formation(Case):
    """What a matching step sees of a set, and its gradient: forward and backward."""

    def __init__(self, augmented: bool):
        self._augmented, self.variant = augmented, {}
        self.name = "formation/augment" if augmented else "formation"
        beside = ", DSA of the classes on the way" if augmented else ""
        self.about = f"multi-formation, factor 2, of 10 classes at IPC 10 (3x32x32){beside}; and its gradient"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Stored:
        ipc, size = (1, 15) if quick else (10, 32)
        n = _CLASSES * ipc
        x = rng.uniform(rng.key(seed, self.name), n * 3 * size * size, device).view(n, 3, size, size)
        seen = n * _FACTOR**2
        g = rng.normal(rng.key(seed, self.name, "gradient"), seen * 3 * size * size, device).view(seen, 3, size, size)
        operations = [ops.DSA_OPS[number % len(ops.DSA_OPS)] for number in range(_CLASSES)]
        rows = [published.draw(name, seed + i, (size, size), device)[0] for i, name in enumerate(operations)]
        of = torch.arange(_CLASSES, device=device).repeat_interleave(ipc * _FACTOR**2)
        params = torch.stack(rows).to(device, torch.float32)
        return Stored(x, g, ops.all_parts(n, _FACTOR, device), operations, rows, params, of)

    def shape(self, inputs: Stored) -> dict[str, int | list[int]]:
        return {"images": list(inputs.x.shape)}

    def fastdd(self, inputs: Stored) -> tuple[Tensor, Tensor]:
        x = inputs.x.detach().requires_grad_()
        if self._augmented:
            seen = ops.augment_stored(x, inputs.params, inputs.of, factor=_FACTOR, parts=inputs.parts)
        else:
            seen = ops.formation(x, _FACTOR, inputs.parts)
        return seen.detach(), torch.autograd.grad(seen, x, inputs.g)[0]

    def plain(self, inputs: Stored) -> tuple[Tensor, Tensor]:
        """All parts at once, by views; a class's augmentation at a time, as each is another operation."""
        x = inputs.x.detach().requires_grad_()
        n, channels, size, _ = x.shape
        side = -(-size // _FACTOR)
        whole = F.pad(x, (0, side * _FACTOR - size) * 2, value=0.5) if size % _FACTOR else x
        tiles = whole.view(n, channels, _FACTOR, side, _FACTOR, side).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        seen = F.interpolate(tiles, size, mode="bilinear")
        if self._augmented:
            classes = zip(seen.chunk(_CLASSES), inputs.rows, inputs.operations, strict=True)
            seen = torch.cat([plain.augment(*one) for one in classes])
        return seen.detach(), torch.autograd.grad(seen, x, inputs.g)[0]

    def loop(self, inputs: Stored) -> tuple[Tensor, Tensor]:
        return self._class_by_class(inputs, inputs.x, inputs.g)

    def truth(self, inputs: Stored) -> tuple[Tensor, Tensor]:
        return self._class_by_class(inputs, inputs.x.double(), inputs.g.double())

    def _class_by_class(self, inputs: Stored, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """As published: a class at a time, a part of its images after the other; then an image's parts are put
        together, as its gradient is given."""
        size, results = x.shape[2], []
        side = -(-size // _FACTOR)
        more = side * _FACTOR - size
        classes = zip(x.chunk(_CLASSES), g.chunk(_CLASSES), inputs.rows, inputs.operations, strict=True)
        for images, gradient, row, operation in classes:
            leaf = images.detach().requires_grad_()
            whole = F.pad(leaf, (0, more, 0, more), value=0.5) if more else leaf
            cut = [
                whole[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
                for i in range(_FACTOR)
                for j in range(_FACTOR)
            ]
            seen = F.interpolate(torch.cat(cut), size=(size, size), mode="bilinear")
            if self._augmented:
                seen = published.augment(seen, row, operation)
            seen = seen.unflatten(0, (_FACTOR**2, len(leaf))).transpose(0, 1).flatten(0, 1)
            results.append((seen.detach(), torch.autograd.grad(seen, leaf, gradient)[0]))
        return torch.cat([seen for seen, _ in results]), torch.cat([gradient for _, gradient in results])

    def bytes(self, inputs: Stored) -> int:
        return 2 * (inputs.x.nbytes + inputs.g.nbytes)

    def flops(self, inputs: Stored) -> int:
        """A blend of two rows and one of two columns, forth and back; of augmentation no arithmetic is certain."""
        return 2 * 8 * inputs.g.numel()


CASES = [Formation(augmented=False), Formation(augmented=True)]
