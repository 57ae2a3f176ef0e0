"""Training networks side by side on the same images, with draws of each one's own: :func:`train_epoch` of many."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import models, ops
from fastdd.core import rng
from fastdd.core.graph import Graphs
from fastdd.data import DeviceImages
from fastdd.methods.parts.training import Composition

# Rows of as many epochs are drawn at a time as make up so many numbers.
_ROWS = 1 << 16


class SideBySideTraining:
    """Epochs of several networks, of which each is trained as :func:`fastdd.methods.parts.training.train_epoch` trains
    it by itself, to rounding: with the rows, augmentations and rectangles that its own key gives.

    Args:
        nets: trained as they are (``train()`` is the caller's).
        images, labels, batch, dsa_strategy, weights, composition, cutmix: as :func:`train_epoch` takes them.
        keys: of every network, seed, stream and counters, to which the epoch's number is added.
        optimiser: over the networks' parameters.

    On a GPU a step is a CUDA graph (:class:`fastdd.core.graph.Graphs`), if the images are there.
    """

    def __init__(
        self,
        nets: models.SideBySide,
        images: DeviceImages,
        labels: Tensor,
        optimiser: torch.optim.Optimizer,
        *,
        batch: int,
        dsa_strategy: str,
        keys: Sequence[tuple],
        weights: Tensor | None = None,
        composition: Composition = "dsa",
        cutmix: float = 0.0,
    ):
        self._nets, self._images, self._labels, self._weights = nets, images, labels, weights
        self._optimiser, self._batch, self._keys, self._cutmix = optimiser, batch, keys, cutmix
        self._strategy, self._draw = dsa_strategy, ops.idc_params if composition == "idc" else ops.dsa_params
        self._total = torch.zeros(nets.count, device=labels.device)
        self._ones = torch.ones(nets.count, device=labels.device)
        self._length = len(labels)
        self._course = 0
        self._graphs = Graphs(self._step, self._keys_of, labels.device, "an epoch's step", phase=self._phase)
        self._drawn: tuple[int, Tensor] | None = None

    def learn_by(self, optimiser: torch.optim.Optimizer) -> None:
        """Take another optimiser, or the same with another learning rate, from the next epoch on."""
        self._optimiser = optimiser
        self._course += 1

    def epoch(self, number: int, order: Tensor | None = None) -> Tensor:
        """Do epoch ``number``: one pass over the images, an optimiser step a batch.

        Args:
            number: from 0.
            order: int64 [count, M], the rows of each network, batch after batch; None: every row once, in random order.

        Returns:
            [count], the mean over the rows of the loss that each had in its batch, on the device.
        """
        order = self._drawn_rows(number) if order is None else order
        self._length = order.shape[1]
        self._total.zero_()
        for step, rows in enumerate(order.split(self._batch, 1)):
            self._graphs(number * self._steps + step, rows)
        return self._total / self._length

    @property
    def _steps(self) -> int:
        return -(-self._length // self._batch)

    def _drawn_rows(self, epoch: int) -> Tensor:
        """[count, N], drawn for some epochs at once: keys are sent for all of them."""
        if self._drawn is None or not self._drawn[0] <= epoch < self._drawn[0] + len(self._drawn[1]):
            epochs = max(1, _ROWS // (self._nets.count * len(self._labels)))
            keys = [[rng.key(*key, each) for key in self._keys] for each in range(epoch, epoch + epochs)]
            of_each = torch.tensor(keys).to(self._images.pixels.device)
            self._drawn = epoch, rng.permutation(of_each, len(self._labels))
        first, rows = self._drawn
        return rows[epoch - first]

    def _phase(self, number: int) -> tuple[int, int] | None:
        if self._images.pixels.device != self._labels.device:
            return None
        last = number % self._steps == self._steps - 1
        return self._course, self._length % self._batch if last else 0

    def _keys_of(self, number: int) -> dict[str, int]:
        """What step ``number`` draws by: keys, and rectangles, which the host draws."""
        counters = divmod(number, self._steps)
        found = {f"augmentation {k}": rng.key(*key, *counters) for k, key in enumerate(self._keys)}
        if self._cutmix:
            for k, (seed, stream, *of_net) in enumerate(self._keys):
                key = rng.key(seed, f"{stream}-cutmix", *of_net, *counters)
                *rectangle, _, found[f"order {k}"] = ops.mixing(key, self._images.size, self._cutmix)
                found |= {f"rectangle {k} {side}": value for side, value in enumerate(rectangle)}
        return found

    def _step(self, number: int, keys: Mapping[str, int | Tensor], rows: Tensor) -> None:
        """A step on rows [count, B] of each network."""
        here = rows.to(self._labels.device, non_blocking=True)
        lanes = rng.lanes(self._of_all(keys, "augmentation"), rows.shape[1])
        params = self._draw(self._strategy, lanes, self._images.size, shared_op=True)
        x = self._images.read(rows.flatten(), params.flatten(0, 1)).unflatten(0, rows.shape)
        mixes = None
        if self._cutmix:
            order = rng.permutation(self._of_all(keys, "order"), rows.shape[1])
            mixes = ops.CutMixes(order, self._of_all(keys, "rectangle").view(-1, 4))
            x = mixes.paste(x)
        losses = self._losses(self._nets(x), here, mixes)
        self._optimiser.zero_grad()
        losses.backward(self._ones.to(losses.dtype))
        self._optimiser.step()
        self._total.add_(losses.detach(), alpha=rows.shape[1])

    def _of_all(self, keys: Mapping[str, int | Tensor], what: str) -> Tensor:
        """The keys that are ``what``, in one tensor on the device."""
        found = [key for name, key in keys.items() if name.startswith(f"{what} ")]
        if isinstance(found[0], Tensor):
            return torch.stack(found)
        return torch.tensor(found).to(self._labels.device)

    def _losses(self, logits: Tensor, rows: Tensor, mixes: ops.CutMixes | None) -> Tensor:
        """[count], the mean cross-entropy of each network's batch, as ``train_epoch`` has it."""

        def to(rows: Tensor) -> Tensor:
            labels = self._labels[rows].flatten(0, 1)
            losses = F.cross_entropy(logits.flatten(0, 1), labels, reduction="none").view(rows.shape)
            return losses if self._weights is None else self._weights[rows] * losses

        if mixes is None:
            return to(rows).mean(1)
        kept = mixes.kept(self._images.size).to(logits.dtype)
        return (to(rows) * kept + to(mixes.of_others(rows)) * (1 - kept)).mean(1)
