"""An evaluation as published: its ``reference-loop``, in float64 the truth; and the best plain PyTorch, ``torch``.

What makes the published one slow is kept: a data set read item by item, augmentation parameters built element by
element, the loss and the predictions of every batch sent to the host, and a test set normalised anew in every test.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fastdd.bench.baselines import plain, published
from fastdd.bench.baselines.problem import Problem
from fastdd.data import Split
from fastdd.evaluation import Protocol

_TEST_BATCH = 256
# Plain PyTorch trains faster in small parts on CPUs, whose activations stay in cache.
_CHUNK = 20

# Rows of a batch, the parameter rows of its augmentation, and the operation's name.
Drawn = tuple[Tensor, Tensor, str]


class PublishedEvaluation:
    """A network trained on a problem's synthetic images and tested, as published.

    Args:
        problem: the images, the network and the test set.
        protocol: how.
        dtype: float64 for the truth.
    """

    def __init__(self, problem: Problem, protocol: Protocol, dtype: torch.dtype = torch.float32):
        self._problem, self._protocol, self._dtype = problem, protocol, dtype
        self._images = problem.images.to(problem.device, dtype)
        classes = torch.arange(problem.dataset.num_classes, device=problem.device)
        self._labels = classes.repeat_interleave(problem.config.ipc)
        self.net = problem.network().to(problem.device, dtype).requires_grad_()
        self._sgd: torch.optim.SGD | None = None

    def run(self) -> float:
        """One evaluation from the network as it is; the share of right predictions."""
        sgd, rate = self._optimiser(self._protocol.learning_rate), self._protocol.learning_rate
        for epoch in range(self._protocol.epochs + 1):
            self._epoch(sgd)
            if epoch == self._protocol.epochs // 2 + 1:
                rate *= 0.1
                sgd = self._optimiser(rate)
        return self._test()

    def epoch(self) -> None:
        """The next one, at the first learning rate."""
        if self._sgd is None:
            self._sgd = self._optimiser(self._protocol.learning_rate)
        self._epoch(self._sgd)

    def train(self, batches: Sequence[Drawn]) -> None:
        """One step a batch, of given draws."""
        sgd = self._optimiser(self._protocol.learning_rate)
        for rows, params, operation in batches:
            self._step(sgd, published.augment(self._images[rows], params, operation), self._labels[rows])

    def _optimiser(self, rate: float) -> torch.optim.SGD:
        p = self._protocol
        return torch.optim.SGD(self.net.parameters(), lr=rate, momentum=p.momentum, weight_decay=p.weight_decay)

    def _step(self, sgd: torch.optim.SGD, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        output = self.net(x)
        loss = F.cross_entropy(output, labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        return loss, output

    def _epoch(self, sgd: torch.optim.SGD) -> None:
        self.net.train()
        loader = DataLoader(
            TensorDataset(self._images, self._labels), batch_size=self._protocol.batch, shuffle=True, num_workers=0
        )
        loss_sum, right, count = 0.0, 0, 0
        for images, labels in loader:
            rows, operation = published.draw_each(
                self._protocol.dsa_strategy, len(images), self._problem.dataset.size, images.device
            )
            loss, output = self._step(sgd, published.augment(images, rows, operation), labels)
            guesses = np.argmax(output.cpu().data.numpy(), axis=-1)
            right += np.sum(np.equal(guesses, labels.cpu().data.numpy()))
            loss_sum, count = loss_sum + loss.item() * len(images), count + len(images)

    def _test(self) -> float:
        self.net.eval()
        data, right = self._problem.dataset, 0
        loader = DataLoader(_Items(data.test, data.mean, data.std), batch_size=_TEST_BATCH, num_workers=0)
        for images, labels in loader:  # as published, not under no_grad
            output = self.net(images.to(self._problem.device, self._dtype))
            F.cross_entropy(output, labels.to(output.device)).item()
            right += np.sum(np.equal(np.argmax(output.cpu().data.numpy(), axis=-1), labels.numpy()))
        return float(right) / len(data.test)


class _Items(torch.utils.data.Dataset):
    """A split read image by image, without the decoding through Pillow that published code adds."""

    def __init__(self, split: Split, mean: Sequence[float], std: Sequence[float]):
        self._split = split
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self._split.images[row]).float().div(255)
        return (image - self._mean) / self._std, int(self._split.labels[row])


class PlainEvaluation(PublishedEvaluation):
    """The same in plain PyTorch as anyone would write it for speed: everything where it is used, nothing waited for."""

    def __init__(self, problem: Problem, protocol: Protocol):
        super().__init__(problem, protocol)
        data = problem.dataset
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        pixels = (torch.from_numpy(data.test.images).float().div(255) - mean) / std
        self._pixels = pixels.to(problem.device, memory_format=torch.channels_last)
        self._test_labels = torch.from_numpy(data.test.labels).to(problem.device)

    def train(self, batches: Sequence[Drawn]) -> None:
        sgd = self._optimiser(self._protocol.learning_rate)
        for rows, params, operation in batches:
            self._step(sgd, plain.augment_each(self._images[rows], params, operation), self._labels[rows])

    def _step(self, sgd: torch.optim.SGD, x: Tensor, labels: Tensor) -> None:
        sgd.zero_grad()
        part = len(x) if x.is_cuda else _CHUNK
        for some, own in zip(x.split(part), labels.split(part), strict=True):
            (F.cross_entropy(self.net(some), own, reduction="sum") / len(x)).backward()
        sgd.step()

    def _epoch(self, sgd: torch.optim.SGD) -> None:
        self.net.train()
        for rows in torch.randperm(len(self._images), device=self._images.device).split(self._protocol.batch):
            params, operation = published.draw_each(self._protocol.dsa_strategy, len(rows), self._problem.dataset.size)
            self._step(sgd, plain.augment_each(self._images[rows], params, operation), self._labels[rows])

    @torch.no_grad()
    def _test(self) -> float:
        self.net.eval()
        right = [
            (self.net(images).argmax(1) == labels).sum()
            for images, labels in zip(self._pixels.split(64), self._test_labels.split(64), strict=True)
        ]
        return torch.stack(right).sum().item() / len(self._test_labels)
