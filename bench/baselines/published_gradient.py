"""Gradient matching as published (DC, DSA, FairDD's DC): its ``reference-loop``.

What makes it slow is kept: gradients of all parameters where those of one dimension do not count, a backward of the
whole batch for every group, distances layer by layer, and one backward through the graphs of all classes, which
computes the network's gradients too.
"""

import copy
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastdd.bench.baselines.problem import Problem
from fastdd.bench.baselines.published import PublishedLoop
from fastdd.bench.oracles import dc
from fastdd.bench.oracles.segments import Segment, by_class, class_loss


class PublishedGradientLoop(PublishedLoop):
    """Matching steps of DC, DSA and FairDD's DC, and the network's training between them, as published.

    One network serves all steps, where published code makes one for every ten or so.

    Args:
        problem, dtype: as those of PublishedLoop.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32):
        super().__init__(problem, dtype)
        self._labels = torch.arange(problem.dataset.num_classes, device=problem.device).repeat_interleave(
            problem.config.ipc
        )
        self._loss_sum = 0.0

    @cached_property
    def net(self) -> nn.Module:
        """The network."""
        return self.network().to(self._problem.device, self._dtype).requires_grad_().train()

    @cached_property
    def _sgd_net(self) -> torch.optim.SGD:
        return torch.optim.SGD(self.net.parameters(), lr=self._problem.config.lr_net)

    def network_of_step(self) -> nn.Module:
        return self.net

    def step(self) -> Tensor:
        """One matching step; returns its loss, which published code waits for."""
        loss = super().step()
        self._loss_sum += loss.item()
        return loss

    def match_loss(self, synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Distance of the synthetic gradients to real ones."""
        return dc.match(synthetic, real, self._problem.config.metric)

    def loss(self, net: nn.Module, rows: Tensor, drawn: Sequence) -> Tensor:
        config, segments = self._problem.config, self._problem.segments(rows)
        classes = by_class(segments, len(drawn), self._dtype)
        loss = torch.zeros((), dtype=self._dtype, device=self._problem.device)
        for label, (of_class, images, of_images) in enumerate(
            zip(classes, self.images.split(config.ipc), drawn, strict=True)
        ):
            real = self.augment(self._real[torch.cat([part.rows for part in of_class])], of_images)
            distances = self.distances(net, of_class, real, self.augment(images, of_images), label)
            loss = loss + class_loss(of_class, distances, segments.worst)
        return loss

    def distances(
        self, net: nn.Module, of_class: Sequence[Segment], real: Tensor, synthetic: Tensor, label: int
    ) -> list[Tensor]:
        """Of every segment of a class, from its augmented real images, segment by segment, and synthetic ones."""
        parameters = [p.requires_grad_() for p in net.parameters()]
        losses = self._cross_entropies(net, real, label)
        mean = self._cross_entropies(net, synthetic, label).mean()
        matched = torch.autograd.grad(mean, parameters, create_graph=True)
        found = []
        for part, own in zip(of_class, losses.split([len(part.rows) for part in of_class]), strict=True):
            # Back through the whole batch, though other groups' losses have no part in it.
            gradients = torch.autograd.grad((part.weights * own).sum(), parameters, retain_graph=len(of_class) > 1)
            found.append(self.match_loss(matched, [g.detach().clone() for g in gradients]))
        return found

    def _cross_entropies(self, net: nn.Module, images: Tensor, label: int) -> Tensor:
        labels = torch.ones(len(images), dtype=torch.long, device=images.device) * label
        return F.cross_entropy(net(images), labels, reduction="none")

    def train(self) -> None:
        """The network's training on the synthetic images between two matching steps, without augmentation."""
        config, device = self._problem.config, self._problem.device
        images, labels = copy.deepcopy(self.images.detach()), copy.deepcopy(self._labels)
        loader = DataLoader(TensorDataset(images, labels), batch_size=config.batch_train, shuffle=True, num_workers=0)
        for _ in range(config.inner_loop):
            loss_sum, right, count = 0.0, 0, 0
            for batch, of_batch in loader:
                batch, of_batch = batch.to(device, self._dtype), of_batch.long().to(device)
                output = self.net(batch)
                loss = F.cross_entropy(output, of_batch)
                guesses = np.argmax(output.cpu().data.numpy(), axis=-1)
                right += np.sum(np.equal(guesses, of_batch.cpu().data.numpy()))
                loss_sum, count = loss_sum + loss.item() * len(batch), count + len(batch)
                self._sgd_net.zero_grad()
                loss.backward()
                self._sgd_net.step()
