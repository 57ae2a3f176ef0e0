"""Gradient matching as published (DC, DSA, FairDD's DC): its ``reference-loop``, in float64 the truth of its steps.

What makes it slow is kept: gradients of all parameters where those of one dimension do not count, a backward of the
whole batch for every group, distances layer by layer, and one backward through the graphs of all classes, which
computes the network's gradients too.
"""

import copy
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastdd.bench.baselines.published import PublishedLoop
from fastdd.bench.framework.problem import Problem


def match_loss(synthetic: Sequence[Tensor], real: Sequence[Tensor], metric: str) -> Tensor:
    """Distance of two lists of gradients, one a parameter: ``ours``, ``mse`` or ``cos``, as published."""
    if metric == "ours":
        distance = torch.zeros((), dtype=real[0].dtype, device=real[0].device)
        for s, r in zip(synthetic, real, strict=True):
            distance = distance + _row_distance(s, r)
        return distance
    s, r = (torch.cat([gradient.reshape(-1) for gradient in side]) for side in (synthetic, real))
    if metric == "mse":
        return ((s - r) ** 2).sum()
    return 1 - (r * s).sum() / (r.norm() * s.norm() + 1e-6)


def _row_distance(s: Tensor, r: Tensor) -> Tensor:
    """The sum over rows (output channels, channels of a layer norm) of 1 - cosine; nothing for one dimension."""
    if r.dim() == 1:
        return torch.tensor(0, dtype=r.dtype, device=r.device)
    s, r = s.reshape(len(s), -1), r.reshape(len(r), -1)
    return (1 - (r * s).sum(dim=-1) / (r.norm(dim=-1) * s.norm(dim=-1) + 1e-6)).sum()


class PublishedGradientLoop(PublishedLoop):
    """Matching steps of DC, DSA and FairDD's DC, and the network's training between them, as published.

    One network serves all steps, where published code makes one for every ten or so.

    Args:
        problem, dtype: as those of PublishedLoop.
        groups_alone: send every group's images through the network alone, where published code goes back through the
            whole batch for every group: the same gradient (instance norm keeps images apart) in a sixth of the time.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype = torch.float32, groups_alone: bool = False):
        super().__init__(problem, dtype)
        self._groups_alone = groups_alone
        self._labels = torch.arange(problem.dataset.num_classes, device=problem.device).repeat_interleave(
            problem.config.ipc
        )
        weights = problem.weights
        self._weights = None if weights is None else weights.to(problem.device, dtype)
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
        return match_loss(synthetic, real, self._problem.config.metric)

    def loss(self, net: nn.Module, rows_of_classes: Iterable, drawn_of_classes: Iterable) -> Tensor:
        """The loss of given draws: of every class its rows and its augmentation."""
        config = self._problem.config
        parameters = [p.requires_grad_() for p in net.parameters()]
        loss = torch.zeros((), dtype=self._dtype, device=self._problem.device)
        per_class = zip(rows_of_classes, drawn_of_classes, self.images.split(config.ipc), strict=True)
        for label, (rows, drawn, images) in enumerate(per_class):
            real = self.augment(self._real[rows], drawn)
            labels = torch.ones(len(real), dtype=torch.long, device=real.device) * label
            if config.debias == "fairdd":
                output = None if self._groups_alone else net(real)
                synthetic = self._synthetic(net, parameters, images, drawn, label)
                groups = self._groups[rows]
                for group in torch.unique(groups):
                    own = net(real[groups == group]) if self._groups_alone else output[groups == group]
                    cross_entropy = F.cross_entropy(own, labels[groups == group])
                    gradients = torch.autograd.grad(cross_entropy, parameters, retain_graph=True)
                    loss = loss + self.match_loss(synthetic, [g.detach().clone() for g in gradients])
                continue
            output = net(real)
            if self._weights is None:
                cross_entropy = F.cross_entropy(output, labels)
            else:
                weights = self._weights[rows] / self._weights[rows].sum()
                cross_entropy = (weights * F.cross_entropy(output, labels, reduction="none")).sum()
            gradients = torch.autograd.grad(cross_entropy, parameters)
            targets = [g.detach().clone() for g in gradients]
            loss = loss + self.match_loss(self._synthetic(net, parameters, images, drawn, label), targets)
        return loss

    def _synthetic(
        self, net: nn.Module, parameters: list[Tensor], images: Tensor, drawn: object, label: int
    ) -> tuple[Tensor, ...]:
        labels = torch.ones(len(images), dtype=torch.long, device=images.device) * label
        cross_entropy = F.cross_entropy(net(self.augment(images, drawn)), labels)
        return torch.autograd.grad(cross_entropy, parameters, create_graph=True)

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
