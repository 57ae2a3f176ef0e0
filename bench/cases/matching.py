"""Distances of matching with their gradient in the synthetic side: embeddings (DM) and network gradients (DC)."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from fastdd import ops
from fastdd.bench.baselines import plain
from fastdd.bench.framework.case import Case, Result
from fastdd.bench.framework.upstream import Upstream
from fastdd.core import rng


def with_gradient(function: Callable[..., Tensor], leaves: list[Tensor]) -> Result:
    """Distances [S] of fresh leaves, and the gradient of their sum in every leaf."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    distances = function(*leaves)
    return distances.detach(), *torch.autograd.grad(distances.sum(), leaves)


@dataclass(frozen=True)
class Embeddings:
    """Real [N, D] in segments, with weights that sum to 1 over each; synthetic [C * IPC, D]; class of each segment."""

    real: Tensor
    synthetic: Tensor
    offsets: Tensor
    weights: Tensor
    classes: Tensor
    lengths: list[int]
    of_class: list[int]


class EmbeddingMatch(Case):
    """The loss of DM from its embeddings: ten classes, with one segment each or ten."""

    name = "embedding_match"
    _CLASSES = 10

    def __init__(self, segments: int):
        self.variant = {"segments": segments}
        self.about = f"DM's distances and gradient: 2,560 embeddings of 2,048 in {segments} segments, IPC 10"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Embeddings:
        n, d, ipc = (200, 32, 2) if quick else (2560, 2048, 10)
        segments = self.variant["segments"]
        rows = self._CLASSES * ipc
        both = rng.normal(rng.key(seed, self.name, segments), (n + rows) * d, device).view(n + rows, d)
        cuts = rng.permutation(rng.key(seed, self.name, "cuts", segments), n - 1)[: segments - 1].sort().values + 1
        offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([n])])
        lengths = offsets.diff()
        classes = torch.arange(segments) * self._CLASSES // segments
        weights = (1 / lengths).repeat_interleave(lengths)
        placed = (t.to(device) for t in (offsets, weights, classes))
        return Embeddings(both[:n], both[n:], *placed, lengths.tolist(), classes.tolist())

    def shape(self, inputs: Embeddings) -> dict[str, int | list[int]]:
        return {"real": list(inputs.real.shape), "synthetic": list(inputs.synthetic.shape), **self.variant}

    def fastdd(self, inputs: Embeddings) -> Result:
        def distances(synthetic: Tensor) -> Tensor:
            return ops.embedding_match(
                inputs.real, synthetic, inputs.offsets, inputs.weights, inputs.classes, self._CLASSES
            )

        return with_gradient(distances, [inputs.synthetic])

    def plain(self, inputs: Embeddings) -> Result:
        targets = plain.segment_mean(inputs.real, inputs.offsets, inputs.weights)

        def distances(synthetic: Tensor) -> Tensor:
            means = synthetic.view(self._CLASSES, -1, synthetic.shape[1]).mean(1)
            # As many segments a class: broadcasting, whose derivative is a sum, where indexing's is a scatter.
            return (targets.unflatten(0, (self._CLASSES, -1)) - means[:, None]).square().sum(2).flatten()

        return with_gradient(distances, [inputs.synthetic])

    def loop(self, inputs: Embeddings) -> Result:
        return self._loop(inputs, inputs.real, inputs.synthetic)

    def truth(self, inputs: Embeddings) -> Result:
        return self._loop(inputs, inputs.real.double(), inputs.synthetic.double())

    def _loop(self, inputs: Embeddings, real: Tensor, synthetic: Tensor) -> Result:
        def distances(leaf: Tensor) -> Tensor:
            means = [of_class.mean(0) for of_class in leaf.chunk(self._CLASSES)]
            pairs = zip(real.split(inputs.lengths), inputs.of_class, strict=True)
            return torch.stack([((rows.mean(0) - means[c]) ** 2).sum() for rows, c in pairs])

        return with_gradient(distances, [synthetic])

    def bytes(self, inputs: Embeddings) -> int:
        return inputs.real.nbytes + inputs.weights.nbytes + 2 * inputs.synthetic.nbytes

    def flops(self, inputs: Embeddings) -> int:
        d = inputs.real.shape[1]
        return 2 * inputs.real.numel() + inputs.synthetic.numel() + 3 * len(inputs.lengths) * d


@dataclass(frozen=True)
class Gradients:
    """For every layer, real [S, *shape] and synthetic [C, *shape]; S / C segments a class, in its order."""

    real: list[Tensor]
    synthetic: list[Tensor]
    classes: Tensor


class GradientMatch(Case):
    """DC's row-cosine distance and its gradient in the synthetic gradients, for ConvNet's weights."""

    name = "gradient_match"
    _CLASSES = 10

    def __init__(self, segments: int):
        self.variant = {"segments": segments}
        self.about = f"DC's row-cosine distance and gradient: ConvNet's weights, {segments} segments of 10 classes"

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Gradients:
        width, size = (8, 16) if quick else (128, 32)
        net = plain.ConvNet(3, self._CLASSES, (size, size), width, 3, "relu")
        shapes = [p.shape for p in net.parameters() if p.dim() > 1]
        segments = self.variant["segments"]

        def drawn(number: int, count: int) -> list[Tensor]:
            return [
                rng.normal(rng.key(seed, self.name, number, layer), count * shape.numel(), device).view(count, *shape)
                for layer, shape in enumerate(shapes)
            ]

        classes = torch.arange(segments, device=device) * self._CLASSES // segments
        return Gradients(drawn(0, segments), drawn(1, self._CLASSES), classes)

    def shape(self, inputs: Gradients) -> dict[str, int | list[int]]:
        return {"parameters": sum(t[0].numel() for t in inputs.real), "classes": self._CLASSES, **self.variant}

    def fastdd(self, inputs: Gradients) -> Result:
        return with_gradient(lambda *leaves: ops.gradient_match(inputs.real, leaves, inputs.classes), inputs.synthetic)

    def plain(self, inputs: Gradients) -> Result:
        def distances(*leaves: Tensor) -> Tensor:
            total = torch.zeros((), device=inputs.classes.device)
            for r, s in zip(inputs.real, leaves, strict=True):
                r, s = r.flatten(2).unflatten(0, (self._CLASSES, -1)), s.flatten(2)
                products = torch.einsum("cgrk,crk->cgr", r, s)
                norms = torch.linalg.vector_norm(r, dim=3) * torch.linalg.vector_norm(s, dim=2)[:, None]
                total = total + (1 - products / (norms + 1e-6)).sum(2).flatten()
            return total

        return with_gradient(distances, inputs.synthetic)

    def loop(self, inputs: Gradients) -> Result:
        return self._loop(inputs, inputs.real, inputs.synthetic)

    def truth(self, inputs: Gradients) -> Result:
        return self._loop(inputs, *([t.double() for t in side] for side in (inputs.real, inputs.synthetic)))

    def _loop(self, inputs: Gradients, real: list[Tensor], synthetic: list[Tensor]) -> Result:
        def distance(r: Tensor, s: Tensor) -> Tensor:
            r, s = r.flatten(1), s.flatten(1)
            return (1 - (r * s).sum(-1) / (r.norm(dim=-1) * s.norm(dim=-1) + 1e-6)).sum()

        def distances(*leaves: Tensor) -> Tensor:
            of_segments = []
            for segment, c in enumerate(inputs.classes.tolist()):
                of_segments.append(sum(distance(r[segment], s[c]) for r, s in zip(real, leaves, strict=True)))
            return torch.stack(of_segments)

        return with_gradient(distances, synthetic)

    def upstream(self, inputs: Gradients, code: Upstream) -> Result:
        settings = SimpleNamespace(device=inputs.classes.device, dis_metric="ours")

        def distances(*leaves: Tensor) -> Tensor:
            pairs = enumerate(inputs.classes.tolist())
            return torch.stack(
                [code.utils.match_loss([s[c] for s in leaves], [r[i] for r in inputs.real], settings) for i, c in pairs]
            )

        return with_gradient(distances, inputs.synthetic)

    def bytes(self, inputs: Gradients) -> int:
        return 2 * sum(t.nbytes for t in inputs.real) + 2 * sum(t.nbytes for t in inputs.synthetic)

    def flops(self, inputs: Gradients) -> int:
        """Two products forward (<r, s>, <r, r>), one multiply-add back."""
        return 6 * sum(t.numel() for t in inputs.real)


CASES = [EmbeddingMatch(10), EmbeddingMatch(100), GradientMatch(10), GradientMatch(100)]
