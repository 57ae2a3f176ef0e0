"""Training a network on images: between the steps of gradient matching, at length in evaluation, and as an expert."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import ops
from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys
from fastdd.data import DeviceImages

Composition = Literal["dsa", "idc"]


def epoch_keys(
    key: tuple, batches: int, *, order: bool = True, cutmix: float = 0.0, size: tuple[int, int] = (0, 0)
) -> HostKeys:
    """What an epoch draws with, by name: keys of its order and of its batches' augmentations, and how each is mixed.

    Args:
        key: run seed, stream and counters.
        batches: how many it has.
        order: whether it draws its order.
        cutmix: probability that a batch is mixed.
        size: of the images that are.
    """
    seed, stream, *counters = key
    keys: dict[str, int | float] = {"order": rng.key(*key)} if order else {}
    for number in range(batches):
        keys[f"batch {number}"] = rng.key(*key, number)
        if cutmix:
            mixing = ops.mixing(rng.key(seed, f"{stream}-cutmix", *counters, number), size, cutmix)
            keys |= {f"mixing {number} {name}": value for name, value in mixing._asdict().items()}
    return keys


def train_epoch(
    net: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    sgd: torch.optim.Optimizer,
    *,
    batch: int,
    dsa_strategy: str,
    key: tuple,
    keys: Keys | None = None,
    weights: Tensor | None = None,
    order: Tensor | None = None,
    composition: Composition = "dsa",
    cutmix: float = 0.0,
    augment: Callable[[Tensor, tuple], Tensor] | None = None,
    read: Callable[[Tensor, tuple], Tensor] | None = None,
    loss_of: Callable[[Tensor, Tensor, tuple], Tensor] | None = None,
) -> Tensor:
    """One pass over the images, in random order if no other is given: one optimiser step a batch.

    Args:
        net: logits of images; trained as it is (``train()`` is the caller's).
        images: the training images; whether they are streamed changes no bit.
        labels: int64 [N] classes, or float32 [N, C] probabilities, on the images' device.
        sgd: over the network's parameters.
        batch: images a step.
        dsa_strategy: augmentation, operations joined by underscores; every image has parameters of its own.
        key: run seed, stream and counters (:func:`fastdd.core.rng.key`); order and augmentation are functions of it.
        keys: what :func:`epoch_keys` has of the key, as far as the epoch draws, where it is on a device already; None:
            made of the key.
        weights: float32 [N], how much each image's loss counts; their mean should be 1, as the batch's sum is divided
            by its size. None: 1 each.
        order: int64 [M], the rows to train on, batch after batch; a row may come several times. None: every row once.
        composition: how many of them an image has: with dsa one a batch, drawn from the list; with idc flip, color and
            cutout, as far as they are named, and one of the others a batch (:func:`fastdd.ops.idc_params`).
        cutmix: probability that a batch is mixed (:func:`fastdd.ops.cutmix`), after its augmentation; its loss is then
            that of the images' own labels, and that of the pasted ones', in proportion to their areas.
        augment: another augmentation, of a batch's normalised images, which it may change; called with them and the
            batch's key.
        read: another way to the images of a batch, of its rows (on the pixels' device) and key, in place of reading and
            augmenting ``images``.
        loss_of: another loss than the cross-entropy of ``net``'s logits: of a batch's rows (on the labels' device),
            images, and key.

    Returns:
        The mean over the rows of the loss that each had in its batch, a scalar on their device.
    """
    draw = ops.idc_params if composition == "idc" else ops.dsa_params
    if keys is None:
        batches = -(-len(labels if order is None else order) // batch)
        keys = epoch_keys(key, batches, order=order is None, cutmix=cutmix, size=images.size)
    total = torch.zeros((), device=labels.device)
    if order is None:
        order = rng.permutation(keys["order"], len(labels), images.pixels.device)
    for number, rows in enumerate(order.to(images.pixels.device).split(batch)):
        here = rows.to(labels.device, non_blocking=True)
        if read is not None:
            x = read(rows, (*key, number))
        else:
            lanes = rng.lanes(keys[f"batch {number}"], len(rows), labels.device)
            x = images.read(rows, draw(dsa_strategy, lanes, images.size, shared_op=True))
        if augment is not None:
            x = augment(x, (*key, number))
        if loss_of is None:
            mixed = _mix(keys, number, len(rows), x.device) if cutmix else None
            loss = _loss(net, x, labels, here, weights, mixed)
        else:
            loss = loss_of(here, x, (*key, number))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        total += loss.detach() * len(rows)
    return total / len(order)


def _mix(keys: Keys, number: int, n: int, device: torch.device) -> ops.CutMix | None:
    """How a batch is mixed; None where it is not, and the host knows."""
    *rectangle, kept, order = (keys[f"mixing {number} {name}"] for name in ops.Mixing._fields)
    if not isinstance(kept, Tensor) and kept == 1:
        return None
    return ops.CutMix(rng.permutation(order, n, device), tuple(rectangle), kept)


def _loss(
    net: nn.Module, images: Tensor, labels: Tensor, rows: Tensor, weights: Tensor | None, mixed: ops.CutMix | None
) -> Tensor:
    """The mean cross-entropy of a batch to the labels of its rows, times their weights; of a mixed one, of both."""
    logits = net(images if mixed is None else mixed.paste(images))

    def to(rows: Tensor) -> Tensor:
        if weights is None:
            return F.cross_entropy(logits, labels[rows])
        return (weights[rows] * F.cross_entropy(logits, labels[rows], reduction="none")).mean()

    return to(rows) if mixed is None else to(rows) * mixed.kept + to(rows[mixed.order]) * (1 - mixed.kept)


class SyntheticTraining:
    """Plain SGD of a network on the synthetic images, in place, epoch after epoch.

    Args:
        net: the network, whose parameters require a gradient while it trains.
        labels: int64 [N], of the images.
        lr: learning rate.
        batch: images a step.
        dsa_strategy: augmentation, as :func:`train_epoch` takes it.
    """

    def __init__(self, net: nn.Module, labels: Tensor, *, lr: float, batch: int, dsa_strategy: str):
        self._net, self._labels, self._strategy = net, labels, dsa_strategy
        self._batch, self._sgd = batch, torch.optim.SGD(net.parameters(), lr=lr)

    def keys(self, key: tuple) -> HostKeys:
        """Of an epoch, whose key is the run's seed, stream and counters."""
        return epoch_keys(key, -(-len(self._labels) // self._batch))

    def epoch(self, images: Tensor, keys: Keys) -> Tensor:
        """One, on the images as they are. Returns its loss, a scalar on the device."""
        self._net.train()
        seen, how = DeviceImages(images), {"batch": self._batch, "dsa_strategy": self._strategy}
        loss = train_epoch(self._net, seen, self._labels, self._sgd, key=(), keys=keys, **how)
        self._sgd.zero_grad()
        return loss
