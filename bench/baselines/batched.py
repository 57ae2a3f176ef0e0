"""Steps of DM in the best plain PyTorch: all classes in one batch, channels-last, no loop over classes or groups."""

import copy

import torch
from torch import Tensor, nn

from fastdd.bench.baselines import plain
from fastdd.bench.baselines.problem import Problem
from fastdd.bench.baselines.published import draw

# On CPUs, what stays in cache (2 cores, 2,560 images: 0.88 s in chunks of 16, 0.94 s of 256); on a GPU, all at once.
_CHUNK = 16


class BatchedSteps:
    """Steps whose real images rest as normalised float32.

    Args:
        problem: what to distil.
        real_dtype: of the real side's network and images, which has no gradient; its means are float32.
    """

    def __init__(self, problem: Problem, real_dtype: torch.dtype = torch.float32):
        data, device = problem.dataset, problem.device
        self._problem, self._real_dtype = problem, real_dtype
        self._real = problem.real(torch.float32)
        # Classes of one size, so that a batch of every class is one top-k of random numbers.
        self._table = torch.as_tensor(data.train.labels, device=device).argsort(stable=True).view(data.num_classes, -1)
        self._net = problem.network().to(device, memory_format=torch.channels_last).train()
        self._seed = 0
        self.images = problem.images.to(device, copy=True).requires_grad_()
        config = problem.config
        self._sgd = torch.optim.SGD([self.images], lr=config.lr_img, momentum=config.momentum, foreach=True)

    def network_of_step(self) -> nn.Module:
        """The network that a step matches with: the same one, initialised anew."""
        for layer in self._net.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        return self._net

    def signal(self, net: nn.Module, images: Tensor) -> Tensor:
        """What is matched, [N, D]."""
        return net.embed(images)

    def step(self) -> Tensor:
        """One iteration; returns its loss."""
        config, data = self._problem.config, self._problem.dataset
        net = self.network_of_step()
        count = min(config.batch_real, self._table.shape[1])
        chosen = torch.rand(self._table.shape, device=self._problem.device).topk(count).indices
        rows = self._table.gather(1, chosen).flatten()
        drawn = []
        for _ in range(data.num_classes):
            drawn.append(draw(config.dsa_strategy, self._seed, data.size))
            self._seed += 1
        self.images.grad, loss = self.gradient(net, rows, [count] * data.num_classes, drawn)
        self._sgd.step()
        return loss

    def gradient(
        self, net: nn.Module, rows: Tensor, counts: list[int], drawn: list[tuple[Tensor, str]]
    ) -> tuple[Tensor, Tensor]:
        """Gradient of the images and loss, of given draws: rows class by class, how many of each class, and the
        augmentations."""
        loss = self._loss(net, rows, counts, drawn)
        return torch.autograd.grad(loss, self.images)[0], loss.detach()

    def _loss(self, net: nn.Module, rows: Tensor, counts: list[int], drawn: list[tuple[Tensor, str]]) -> Tensor:
        ipc, segments = self._problem.config.ipc, self._problem.segments(rows)
        if len(segments.rows) > len(rows):  # of a mode that has images twice
            counts = segments.sample_classes.bincount(minlength=len(counts)).tolist()

        def augmented(images: Tensor, sizes: list[int]) -> Tensor:
            pairs = zip(images.split(sizes), drawn, strict=True)
            return torch.cat([plain.augment(part, *of_class) for part, of_class in pairs])

        with torch.no_grad():
            real = augmented(self._real[segments.rows], counts).to(self._real_dtype, memory_format=torch.channels_last)
            own = net if self._real_dtype == torch.float32 else copy.deepcopy(net).to(self._real_dtype)
            embeddings = torch.cat(
                [self.signal(own, x) for x in real.split(len(real) if real.is_cuda else _CHUNK)]
            ).float()
            targets = plain.segment_mean(embeddings, segments.offsets, segments.weights)
        images = augmented(self.images, [ipc] * len(counts)).contiguous(memory_format=torch.channels_last)
        means = self.signal(net, images).view(len(counts), ipc, -1).mean(1)
        # As many segments a class: broadcasting, whose derivative is a sum, where indexing's is a scatter.
        distances = (targets.unflatten(0, (len(counts), -1)) - means[:, None]).square().sum(2).flatten()
        return segments.total(distances * segments.present)
