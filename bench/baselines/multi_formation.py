"""IDC's matching step: its ``reference-loop``, and the best plain PyTorch."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.baselines import plain, published
from fastdd.bench.baselines.batched_gradient import BatchedGradientSteps
from fastdd.bench.baselines.problem import Problem
from fastdd.bench.baselines.published_gradient import PublishedGradientLoop
from fastdd.bench.oracles.segments import by_class, class_loss

InTurn = list[tuple[Tensor, str]]


def parts(images: Tensor, factor: int) -> Tensor:
    """The factor x factor parts of square images whose side it divides, enlarged; first all upper left ones."""
    side = images.shape[-1] // factor
    cropped = [
        images[:, :, top : top + side, left : left + side]
        for top in range(0, side * factor, side)
        for left in range(0, side * factor, side)
    ]
    return F.interpolate(torch.cat(cropped), size=images.shape[2:], mode="bilinear")


def in_turn(row: Tensor) -> InTurn:
    """The operations that a class's parameter rows [passes, 13] carry out together, one at a time."""
    turns = []
    for of_pass in row:
        for columns in (slice(0, 6), slice(6, 9), slice(9, 13)):
            alone = plain.identity_row(of_pass)
            alone[columns] = of_pass[columns]
            turns.append((alone, published.operation_of(alone)))
    return [(alone, name) for alone, name in turns if not torch.equal(alone, plain.identity_row(alone))]


class _Pixels:
    """Of a problem: how pixels become what networks see."""

    def __init__(self, problem: Problem, dtype: torch.dtype):
        data, device = problem.dataset, problem.device
        self._mean, self._std = (
            torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1) for values in (data.mean, data.std)
        )
        self.factor = problem.config.factor

    def of(self, images: Tensor) -> Tensor:
        return images * self._std + self._mean

    def normalised(self, pixels: Tensor) -> Tensor:
        return (pixels - self._mean) / self._std

    def seen(self, pixels: Tensor) -> Tensor:
        return self.normalised(parts(pixels, self.factor) if self.factor > 1 else pixels)


class PublishedFormationLoop(PublishedGradientLoop):
    """Matching steps of IDC as published: class by class, both sides augmented in one batch, gradients of all
    parameters of which only the convolutions' count, and a step of the optimiser for every class."""

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        super().__init__(problem, dtype)
        config = problem.config
        self._pixels = _Pixels(problem, dtype)
        self._unit = self._pixels.of(self._real)
        self.images = self._pixels.of(self.images.detach()).requires_grad_()
        self._sgd = torch.optim.SGD([self.images], lr=config.lr_img, momentum=config.momentum)

    def match_loss(self, synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        total = torch.zeros((), dtype=self._dtype, device=self._problem.device)
        for s, r in zip(synthetic, real, strict=True):
            if s.dim() == 4:
                difference = r - s
                total = total + (difference.abs() if self._problem.config.metric == "l1" else difference.pow(2)).sum()
        return total

    def augment(self, x: Tensor, drawn: InTurn) -> Tensor:
        for row, operation in drawn:
            x = published.augment(x, row, operation)
        return x.contiguous()

    def step(self) -> Tensor:
        config, size = self._problem.config, self._problem.dataset.size
        net, total = self.network_of_step(), 0.0
        for label in range(len(self._rows)):
            rows = self.rows_of_class(net, label)
            loss = self._class_loss(net, rows, label, published.draw_in_turn(config.dsa_strategy, self._random, size))
            total += loss.item()
            self._sgd.zero_grad()
            loss.backward()
            self._sgd.step()
        return torch.tensor(total)

    def rows_of_class(self, net: nn.Module, label: int) -> Tensor:
        """The real images of a step."""
        rows = self._random.permutation(self._rows[label])[: self._problem.config.batch_real]
        return torch.as_tensor(rows, device=self._problem.device)

    def loss(self, net: nn.Module, rows: Tensor, drawn: Sequence[InTurn]) -> Tensor:
        labels = torch.as_tensor(self._problem.dataset.train.labels, device=rows.device)[rows]
        return sum(self._class_loss(net, rows[labels == label], label, turns) for label, turns in enumerate(drawn))

    def _class_loss(self, net: nn.Module, rows: Tensor, label: int, drawn: InTurn) -> Tensor:
        """The loss of one class on its real batch, group by group where groups count."""
        segments = self._problem.segments(rows)
        of_class = by_class(segments, self._problem.dataset.num_classes, self._dtype)[label]
        rows = torch.cat([part.rows for part in of_class])
        ipc = self._problem.config.ipc
        synthetic = self._pixels.seen(self.images[label * ipc : (label + 1) * ipc])
        both = self.augment(torch.cat([self._pixels.normalised(self._unit[rows]), synthetic]), drawn)
        distances = self.distances(net, of_class, both[: len(rows)], both[len(rows) :], label)
        return class_loss(of_class, distances, segments.worst)


class BatchedFormationSteps(BatchedGradientSteps):
    """Matching steps of IDC whose classes coast in closed form, with the convolutions' gradients only."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        config, classes = problem.config, problem.dataset.num_classes
        self._pixels, self._random = _Pixels(problem, torch.float32), np.random.RandomState(config.seed)
        self.images = self._pixels.of(self.images.detach()).requires_grad_()
        self._momentum = torch.zeros_like(self.images)
        waits = torch.arange(classes, device=problem.device).repeat_interleave(config.ipc).view(-1, 1, 1, 1)
        m = config.momentum
        self._coasts = [(m**k, m * (1 - m**k) / (1 - m)) for k in (waits, classes - 1 - waits)]

    def weights(self, net: nn.Module) -> list[nn.Parameter]:
        return [p for p in net.parameters() if p.dim() == 4]

    def distances(self, real: Tensor, synthetic: Tensor) -> Tensor:
        difference = (real - synthetic).flatten(1)
        return (difference.abs() if self._problem.config.metric == "l1" else difference.square()).sum(1)

    def seen(self, images: Tensor) -> Tensor:
        return self._pixels.seen(images)

    def augment(self, images: Tensor, augmentation: InTurn) -> Tensor:
        for row, operation in augmentation:
            images = plain.augment(images, row, operation)
        return images

    def rows(self, net: nn.Module) -> Tensor:
        """The real images of a step, class by class."""
        count = min(self._problem.config.batch_real, self._table.shape[1])
        chosen = torch.rand(self._table.shape, device=self._problem.device).topk(count).indices
        return self._table.gather(1, chosen).flatten()

    def step(self) -> Tensor:
        config, data = self._problem.config, self._problem.dataset
        net = self.network_of_step()
        rows = self.rows(net)
        drawn = [published.draw_in_turn(config.dsa_strategy, self._random, data.size) for _ in range(data.num_classes)]
        (decay, way), (decay_after, way_after) = self._coasts
        with torch.no_grad():
            self.images -= config.lr_img * way * self._momentum
            self._momentum *= decay
        gradient, loss = self.gradient(net, rows, [len(rows) // data.num_classes] * data.num_classes, drawn)
        with torch.no_grad():
            self._momentum.mul_(config.momentum).add_(gradient)
            self.images -= config.lr_img * (1 + way_after) * self._momentum
            self._momentum *= decay_after
        return loss


# On CPUs, as in DM's steps.
_CHUNK = 16
# Of k-means in the library that DREAM's code calls: Lloyd from rows at random, at most so many iterations.
_ITERATIONS, _TOLERANCE = 100, 1e-4


def _nearest(embeddings: Tensor, clusters: int, start: Tensor) -> Tensor:
    """Rows nearest to the centroids of a k-means that begins at rows ``start``, int64 [clusters]."""
    centroids = embeddings[start]
    for _ in range(_ITERATIONS):
        owners = torch.cdist(embeddings, centroids).argmin(1)
        sums = torch.zeros_like(centroids).index_add_(0, owners, embeddings)
        counts = torch.bincount(owners, minlength=clusters).clamp(min=1)[:, None]
        moved = sums / counts
        change, centroids = (moved - centroids).square().sum(), moved
        if change <= _TOLERANCE:
            break
    return torch.cdist(centroids, embeddings).argmin(1)


class PublishedRepresentatives(PublishedFormationLoop):
    """Steps of DREAM as published: the images of a class in one batch, k-means of their embeddings, then IDC's."""

    def rows_of_class(self, net: nn.Module, label: int) -> Tensor:
        every, count = torch.as_tensor(self._rows[label], device=self._problem.device), self._problem.config.batch_real
        with torch.no_grad():
            embeddings = net.embed(self._unit[every]).detach()
        start = torch.as_tensor(self._random.permutation(len(every))[:count], device=every.device)
        return every[_nearest(embeddings, count, start)]


class BatchedRepresentatives(BatchedFormationSteps):
    """Steps of DREAM in plain PyTorch: embeddings in chunks that stay in cache."""

    def rows(self, net: nn.Module) -> Tensor:
        count, found = self._problem.config.batch_real, []
        for own in self._table:
            with torch.no_grad():
                pixels = self._pixels.of(self._real[own]).contiguous(memory_format=torch.channels_last)
                chunk = len(own) if pixels.is_cuda else _CHUNK
                embeddings = torch.cat([net.embed(some) for some in pixels.split(chunk)])
            start = torch.randperm(len(own), device=own.device)[:count]
            found.append(own[_nearest(embeddings, count, start)])
        return torch.cat(found)
