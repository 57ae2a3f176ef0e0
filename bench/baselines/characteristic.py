"""Matching of characteristic functions (NCFM): its ``reference-loop`` as published, and the best plain PyTorch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.bench.baselines import plain, published
from fastdd.bench.baselines.problem import TrajectoryProblem
from fastdd.bench.oracles.ncfm import SCALE
from fastdd.bench.oracles.segments import Segment, by_class
from fastdd.core import rng
from fastdd.methods.parts.turns import Turns
from fastdd.ops import idc_params

# Images of a pass on CPUs, whose activations malloc can reuse.
_CHUNK = 16


@dataclass(frozen=True)
class Draws:
    """Of one iteration.

    Attributes:
        rows: int64 [M], the real batch, class-major.
        params: [C, 2, 13], augmentation of every class.
        t: [C, K, D], the frequencies.
        state: the network's parameters.
    """

    rows: Tensor
    params: Tensor
    t: Tensor
    state: dict[str, Tensor]


def apart(real: tuple[Tensor, Tensor], synthetic: tuple[Tensor, Tensor]) -> Tensor:
    """Distance of two characteristic functions, as real and imaginary parts; the published one without the difference
    of nearly equal numbers that spoils its gradient in float32."""
    return 0.5**0.5 * ((real[0] - synthetic[0]).square() + (real[1] - synthetic[1]).square()).sqrt().mean()


class _Steps:
    """What both have: the real images as pixels in [0, 1], the images that are learned, likewise, and the networks."""

    def __init__(self, problem: TrajectoryProblem):
        data, device = problem.dataset, problem.device
        self._problem, self._config = problem, problem.config
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (data.mean, data.std))
        self._mean, self._std = mean, std
        self._real = torch.as_tensor(data.train.images, device=device).float() / 255
        labels = torch.as_tensor(data.train.labels, device=device)
        self._rows = [torch.nonzero(labels == c)[:, 0] for c in range(data.num_classes)]
        self.images = (problem.images.to(device) * std + mean).clamp(0, 1).requires_grad_()
        self._net = problem.network().to(device)
        self._number = 0

    def _between(self, share: float) -> nn.Module:
        """The network at a share of the expert's way back to its beginning."""
        experts = self._problem.experts
        theta = share * experts.at(0, 0) + (1 - share) * experts.at(0, experts.epochs)
        parameters = [*self._net.parameters()]
        with torch.no_grad():
            for parameter, values in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
                parameter.copy_(values.view_as(parameter))
        return self._net

    def _params(self, stream: str) -> Tensor:
        config, data = self._config, self._problem.dataset
        keys = rng.lanes(rng.key(config.seed, stream, self._number), data.num_classes)
        return idc_params(config.dsa_strategy, keys, data.size)

    def _decoded(self, images: Tensor) -> Tensor:
        """The parts of stored images, enlarged."""
        factor, (height, width) = self._config.factor, images.shape[2:]
        h, w = height // factor, width // factor
        parts = [images[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w] for i in range(factor) for j in range(factor)]
        return F.interpolate(torch.cat(parts), size=(height, width), mode="bilinear")

    def _classes(self, rows: Tensor) -> list[list[Segment]]:
        return by_class(self._problem.segments(rows), len(self._rows), torch.float32)

    def _at(self, draws: Draws) -> nn.Module:
        self._net.load_state_dict(draws.state)
        return self._net.to(self._problem.device)


class PublishedNcfm(_Steps):
    """Iterations of NCFM as published: class by class, a batch of real and synthetic images through one operation after
    another, four products with fresh frequencies, a step of AdamW on all images; then the same with the cross-entropy.
    With FairDD, a loop over groups of each class."""

    def __init__(self, problem: TrajectoryProblem):
        super().__init__(problem)
        config = problem.config
        self._adamw = torch.optim.AdamW([self.images], lr=config.lr_img, weight_decay=config.weight_decay)

    def step(self) -> Tensor:
        """One iteration; returns its loss."""
        config, total = self._config, 0.0
        self.images.data = self.images.data.clamp(0, 1)
        net = self._between(torch.rand(1).item())
        params, calibration = self._params("dsa"), self._params("calibration")
        self._number += 1
        for label, rows in enumerate(self._rows):
            chosen = rows[torch.randperm(len(rows))[: config.batch_real]]
            whole = torch.cat([chosen if c == label else r[:1] for c, r in enumerate(self._rows)])
            total += self._move(self.class_loss(net, label, self._classes(whole)[label], params[label], None))
        net = self._between(0.0)
        for label in range(len(self._rows)):
            seen = self._augmented(self._decoded(self._own(label)), calibration[label])
            labels = torch.full((len(seen),), label, device=seen.device)
            total += self._move(config.calibration * F.cross_entropy(net(seen), labels))
        return torch.tensor(total)

    def gradient(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Gradient of the images and loss of the distances, of given draws."""
        net, classes = self._at(draws), self._classes(draws.rows)
        given = zip(classes, draws.params, draws.t, strict=True)
        loss = sum(self.class_loss(net, label, *each) for label, each in enumerate(given))
        return torch.autograd.grad(loss, self.images)[0], loss.detach()

    def class_loss(
        self, net: nn.Module, label: int, of_class: list[Segment], params: Tensor, t: Tensor | None
    ) -> Tensor:
        """A class's distances; fresh frequencies for None."""
        real = torch.cat([part.rows for part in of_class])
        both = self._augmented(torch.cat([self._real[real], self._decoded(self._own(label))]), params)
        with torch.no_grad():
            of_real = F.normalize(net.embed(both[: len(real)]), dim=1)
        seen = F.normalize(net.embed(both[len(real) :]), dim=1)
        total = seen.new_zeros(())
        for part, features in zip(of_class, of_real.split([len(part.rows) for part in of_class]), strict=True):
            frequencies = torch.randn(self._config.frequencies, seen.shape[1], device=seen.device) if t is None else t
            target = self._means(frequencies, features, part.weights)
            total = total + part.importance * SCALE * apart(target, self._means(frequencies, seen, None))
        return total

    def _means(self, t: Tensor, features: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        cosine, sine = (t @ features.T).cos(), (t @ features.T).sin()
        if weights is None:
            return cosine.mean(1), sine.mean(1)
        return (cosine * weights).sum(1), (sine * weights).sum(1)

    def _own(self, label: int) -> Tensor:
        owners = torch.arange(len(self._rows)).repeat_interleave(self._config.ipc)
        return self.images[owners == label]

    def _augmented(self, images: Tensor, params: Tensor) -> Tensor:
        images = (images - self._mean) / self._std
        for row, operation in ((params[0], "color"), (params[1], "crop"), (params[1], "cutout")):
            images = published.augment(images, row, operation)
        return images

    def _move(self, loss: Tensor) -> float:
        self._adamw.zero_grad()
        loss.backward()
        self._adamw.step()
        return loss.item()


class BatchedNcfm(_Steps):
    """Iterations of NCFM in the best plain PyTorch: images in passes that suit the cache, channels last, one product
    for a class's cosines and sines, its groups as parts of it; classes take turns as ours do."""

    def __init__(self, problem: TrajectoryProblem):
        super().__init__(problem)
        config = problem.config
        self._real = (self._real - self._mean) / self._std
        self._net = self._net.to(memory_format=torch.channels_last)
        lr = torch.tensor(config.lr_img, dtype=torch.float64)
        self._turns = Turns(
            self.images.detach(),
            torch.zeros_like(self.images, requires_grad=False),
            len(self._rows),
            "adamw",
            0.9,
            config.weight_decay,
            lr,
        )

    def step(self) -> Tensor:
        """One iteration; returns its loss."""
        config, count = self._config, len(self._rows)
        done = 2 * self._number * count
        self.images.detach().clamp_(0, 1)
        self._turns.wait(self._turns.growths(done))
        rows = torch.cat([rows[torch.randperm(len(rows))[: config.batch_real]] for rows in self._rows])
        loss = self._loss(self._between(torch.rand(1).item()), rows, self._params("dsa"), None)
        self._turns.step(self._turns.growths(done), torch.autograd.grad(loss, self.images)[0])
        self._turns.wait(self._turns.growths(done + count))
        logits = torch.cat([*self._seen(self._between(0.0), self._params("calibration"))])
        labels = torch.arange(count, device=logits.device).repeat_interleave(len(logits) // count)
        cross_entropy = config.calibration * count * F.cross_entropy(logits, labels)
        self._turns.step(self._turns.growths(done + count), torch.autograd.grad(cross_entropy, self.images)[0])
        self._number += 1
        return loss.detach() + cross_entropy.detach()

    def gradient(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Gradient of the images and loss of the distances, of given draws."""
        loss = self._loss(self._at(draws), draws.rows, draws.params, draws.t)
        return torch.autograd.grad(loss, self.images)[0], loss.detach()

    def _loss(self, net: nn.Module, rows: Tensor, params: Tensor, t: Tensor | None) -> Tensor:
        classes, total = self._classes(rows), []
        seen = F.normalize(torch.cat([*self._seen(net, params, embed=True)]), dim=1).chunk(len(classes))
        for label, (of_class, features) in enumerate(zip(classes, seen, strict=True)):
            with torch.no_grad():
                images = self._augmented(self._real[torch.cat([part.rows for part in of_class])], params[label])
                real = F.normalize(torch.cat([net.embed(x) for x in self._passes(images)]), dim=1)
                shape = self._config.frequencies, real.shape[1]
                frequencies = torch.randn(shape, device=real.device) if t is None else t[label]
                phases = real @ frequencies.T
                cosine, sine = phases.cos(), phases.sin()
                ends = [0, *torch.tensor([len(part.rows) for part in of_class]).cumsum(0).tolist()]
                targets = [
                    (part.weights @ cosine[start:end], part.weights @ sine[start:end])
                    for part, (start, end) in zip(of_class, pairwise(ends), strict=True)
                ]
            phases = features @ frequencies.T
            found = phases.cos().mean(0), phases.sin().mean(0)
            total += [
                part.importance * SCALE * apart(target, found) for part, target in zip(of_class, targets, strict=True)
            ]
        return torch.stack(total).sum()

    def _seen(self, net: nn.Module, params: Tensor, *, embed: bool = False) -> Iterator[Tensor]:
        """What the network says of the synthetic images, or their features, pass by pass."""
        stored = (self.images - self._mean) / self._std
        images = [
            self._augmented(self._decoded(own), row) for own, row in zip(stored.chunk(len(params)), params, strict=True)
        ]
        for some in self._passes(torch.cat(images)):
            yield net.embed(some) if embed else net(some)

    def _passes(self, images: Tensor) -> tuple[Tensor, ...]:
        images = images.contiguous(memory_format=torch.channels_last)
        return images.split(len(images) if images.is_cuda else _CHUNK)

    def _augmented(self, images: Tensor, params: Tensor) -> Tensor:
        for row, operation in ((params[0], "color"), (params[1], "crop"), (params[1], "cutout")):
            images = plain.augment(images, row, operation)
        return images
