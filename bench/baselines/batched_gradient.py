"""Steps of DC, DSA and FairDD's DC in the best plain PyTorch: every real image once, weights only, nothing kept."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.baselines import plain
from fastdd.bench.baselines.batched import BatchedSteps
from fastdd.bench.baselines.problem import Problem
from fastdd.bench.oracles.segments import Segment, by_class

# On CPUs, what stays in cache (2 cores, a class with 10 groups: 0.36 s in chunks of 32, 0.37 s of 16, 0.39 s of 64);
# on a GPU, all at once.
_CHUNK, _TRAINING_CHUNK = 32, 16


class BatchedGradientSteps(BatchedSteps):
    """Matching steps with the row-cosine distance, and the network's training between them, on one network."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        config, device = problem.config, problem.device
        self._labels = torch.arange(problem.dataset.num_classes, device=device).repeat_interleave(config.ipc)

    @property
    def net(self) -> nn.Module:
        """The network."""
        return self._net

    def network_of_step(self) -> nn.Module:
        return self._net

    def weights(self, net: nn.Module) -> list[nn.Parameter]:
        """Those whose gradients are matched."""
        return [p for p in net.parameters() if p.dim() > 1]

    def distances(self, real: Tensor, synthetic: Tensor) -> Tensor:
        """Of a parameter's real gradients of every segment [S, *shape] to the synthetic ones [*shape], [S]."""
        return _row_distances(real, synthetic)

    def seen(self, images: Tensor) -> Tensor:
        """What the network sees of stored images."""
        return images

    def augment(self, images: Tensor, augmentation: Any) -> Tensor:
        """Images of one class, augmented."""
        return plain.augment(images, *augmentation)

    def gradient(
        self, net: nn.Module, rows: Tensor, counts: list[int], drawn: list[tuple[Tensor, str]]
    ) -> tuple[Tensor, Tensor]:
        # Others do not count, and their gradients cost a pass over every activation.
        weights = [p.requires_grad_() for p in self.weights(net)]
        segments, ipc = self._problem.segments(rows), self._problem.config.ipc
        classes = by_class(segments, len(counts), torch.float32)
        gradients, losses = [], []
        per_class = zip(classes, self.images.detach().split(ipc), drawn, strict=True)
        for label, (of_class, images, augmentation) in enumerate(per_class):
            real = self._real_gradients(net, weights, of_class, augmentation, label)
            images = images.clone().requires_grad_()
            seen = self.augment(self.seen(images), augmentation).contiguous(memory_format=torch.channels_last)
            cross_entropy = F.cross_entropy(net(seen), self._labels.new_full((len(seen),), label))
            synthetic = torch.autograd.grad(cross_entropy, weights, create_graph=True)
            distances = sum(self.distances(r, s) for r, s in zip(real, synthetic, strict=True))
            weighted = distances * distances.new_tensor([segment.importance for segment in of_class])
            loss = weighted.max() if segments.worst else weighted.sum()
            gradients += torch.autograd.grad(loss, images)
            losses.append(loss.detach())
        net.requires_grad_(False)
        return torch.cat(gradients), torch.stack(losses).sum()

    def _real_gradients(
        self,
        net: nn.Module,
        weights: list[Tensor],
        segments: list[Segment],
        augmentation: tuple[Tensor, str],
        label: int,
    ) -> list[Tensor]:
        """[S, *shape] of every weight, of the segments of one class."""
        rows, shares = (torch.cat(tensors) for tensors in zip(*((s.rows, s.weights) for s in segments), strict=True))
        images = self.augment(self._real[rows], augmentation).contiguous(memory_format=torch.channels_last)
        labels = rows.new_full((len(rows),), label)
        sizes = [len(segment.rows) for segment in segments]
        of_segments = []
        for segment in zip(*(t.split(sizes) for t in (images, labels, shares)), strict=True):
            sums: list[Tensor] = []
            chunk = len(rows) if images.is_cuda else _CHUNK
            for x, of_x, share in zip(*(t.split(chunk) for t in segment), strict=True):
                cross_entropy = (share * F.cross_entropy(net(x), of_x, reduction="none")).sum()
                grads = torch.autograd.grad(cross_entropy, weights)
                sums = [a.add_(b) for a, b in zip(sums, grads, strict=True)] if sums else list(grads)
            of_segments.append(sums)
        return [torch.stack(of_layer) for of_layer in zip(*of_segments, strict=True)]

    def train(self) -> None:
        """The network's training on the synthetic images between two matching steps, without augmentation."""
        config = self._problem.config
        images = self.images.detach()
        # Not channels-last, in smaller chunks: an epoch of 100 images in 125 ms on 2 cores, where matching's take 130.
        net = self._net.requires_grad_().to(memory_format=torch.contiguous_format)
        sgd = torch.optim.SGD(net.parameters(), lr=config.lr_net, foreach=True)
        for _ in range(config.inner_loop):
            for rows in torch.randperm(len(images), device=images.device).split(config.batch_train):
                sgd.zero_grad()
                for some in rows.split(len(rows) if images.is_cuda else _TRAINING_CHUNK):
                    (F.cross_entropy(net(images[some]), self._labels[some], reduction="sum") / len(rows)).backward()
                sgd.step()
        net.requires_grad_(False).to(memory_format=torch.channels_last)


def _row_distances(r: Tensor, s: Tensor) -> Tensor:
    """Of every segment the sum of 1 - cosine over rows (outputs), [S]: real [S, out, ...], synthetic [out, ...]."""
    r, s = r.flatten(2), s.flatten(1)
    products = torch.einsum("sok,ok->so", r, s)
    norms = torch.linalg.vector_norm(r, dim=2) * torch.linalg.vector_norm(s, dim=1)
    return (1 - products / (norms + 1e-6)).sum(1)
