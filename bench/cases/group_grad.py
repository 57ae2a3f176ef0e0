"""Weight gradients of one class, one for each of its protected groups: what FairDD with DC needs at every step."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import models, ops
from fastdd.bench.baselines import plain
from fastdd.bench.framework.case import Case, Result
from fastdd.core import rng

_CHUNK = 32


@dataclass(frozen=True)
class Labelled:
    """Images of a class, sorted by group, and the same network from fastdd's and from PyTorch's layers."""

    images: Tensor
    labels: Tensor
    offsets: Tensor
    weights: Tensor
    lengths: list[int]
    ours: nn.Module
    plain: nn.Module


class GroupGrad(Case):
    """A smooth activation, as one ReLU that rounds to the other side of zero moves a gradient by 1e-3."""

    name = "group_grad"

    def __init__(self, groups: int):
        self.variant = {"groups": groups}
        self.about = f"ConvNet's weight gradients of {groups} groups of 256 images"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Labelled:
        n, size, width, depth = (32, 16, 8, 2) if quick else (256, 32, 128, 3)
        groups = self.variant["groups"]
        images = rng.normal(rng.key(seed, self.name), n * 3 * size * size, device).view(n, 3, size, size)
        lengths = [len(part) for part in torch.empty(n).tensor_split(groups)]
        sizes = torch.tensor(lengths)
        offsets = F.pad(sizes.cumsum(0), (1, 0)).to(device)
        weights = (1 / sizes).repeat_interleave(sizes).to(device)
        settings = {"width": width, "depth": depth, "key": rng.key(seed, self.name, "net"), "device": device}
        ours = models.build("ConvNetASwish", 3, 10, (size, size), **settings).requires_grad_(False)
        own = plain.ConvNet(3, 10, (size, size), width, depth, "swish")
        own.load_state_dict(ours.state_dict())
        labels = torch.full((n,), 3, device=device)
        return Labelled(images, labels, offsets, weights, lengths, ours, own.to(device))

    def shape(self, inputs: Labelled) -> dict[str, int | list[int]]:
        parameters = sum(p.numel() for p in inputs.plain.parameters())
        return {"images": list(inputs.images.shape), "parameters": parameters, **self.variant}

    def fastdd(self, inputs: Labelled) -> Result:
        return tuple(ops.group_grad(inputs.ours, inputs.images, inputs.labels, inputs.offsets, inputs.weights).values())

    def plain(self, inputs: Labelled) -> Result:
        """Every image once: a forward and a backward of each group's, on CPUs in chunks that stay in cache."""
        net = inputs.plain.to(memory_format=torch.channels_last)
        weights, found = _weights(net), []
        images = inputs.images.contiguous(memory_format=torch.channels_last)
        for x, labels in zip(images.split(inputs.lengths), inputs.labels.split(inputs.lengths), strict=True):
            chunk = len(x) if x.is_cuda else _CHUNK
            parts = [
                torch.autograd.grad(F.cross_entropy(net(some), of, reduction="sum") / len(x), weights)
                for some, of in zip(x.split(chunk), labels.split(chunk), strict=True)
            ]
            found.append([sum(of_layer) for of_layer in zip(*parts, strict=True)])
        return tuple(torch.stack(of_layer) for of_layer in zip(*found, strict=True))

    def loop(self, inputs: Labelled) -> Result:
        return self._loop(inputs, inputs.plain.to(memory_format=torch.contiguous_format), inputs.images)

    def truth(self, inputs: Labelled) -> Result:
        results = self._loop(inputs, inputs.plain.double(), inputs.images.double())
        inputs.plain.float()
        return results

    @staticmethod
    def _loop(inputs: Labelled, net: nn.Module, images: Tensor) -> Result:
        """One forward of the class, then a backward of all of it for every group."""
        groups = torch.arange(len(inputs.lengths), device=images.device).repeat_interleave(inputs.offsets.diff())
        logits, weights, found = net(images), _weights(net), []
        for group in groups.unique():
            loss = F.cross_entropy(logits[groups == group], inputs.labels[groups == group])
            found.append(torch.autograd.grad(loss, weights, retain_graph=True))
        return tuple(torch.stack(of_layer) for of_layer in zip(*found, strict=True))

    def bytes(self, inputs: Labelled) -> int:
        parameters = sum(p.nbytes for p in _weights(inputs.plain))
        return inputs.images.nbytes + (1 + len(inputs.lengths)) * parameters

    def flops(self, inputs: Labelled) -> int:
        """Three products a layer: forward, to its input (but for the first), to its weight."""
        n, _, height, width = inputs.images.shape
        total = 0
        for number, weight in enumerate(_weights(inputs.plain)):
            pixels = (height >> number) * (width >> number) if weight.dim() == 4 else 1
            total += 2 * (3 if number else 2) * n * pixels * weight.numel()
        return total


def _weights(net: nn.Module) -> list[Tensor]:
    return [p for p in net.parameters() if p.dim() > 1]


CASES = [GroupGrad(1), GroupGrad(10)]
