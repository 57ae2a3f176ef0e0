"""Training a network on a few images, as gradient matching does between its steps and evaluation does at length."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import ops, rng
from fastdd.data import DeviceImages


def train_epoch(
    net: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    sgd: torch.optim.Optimizer,
    *,
    batch: int,
    dsa_strategy: str,
    key: tuple,
) -> None:
    """One pass over the images in random order: cross-entropy, one optimiser step a batch.

    Args:
        net: logits of images; trained as it is (``train()`` is the caller's).
        images: the training images.
        labels: int64 [N], on the images' device.
        sgd: over the network's parameters.
        batch: images a step.
        dsa_strategy: augmentation: one operation a batch, drawn from this list, parameters an image.
        key: run seed, stream and counters (:func:`fastdd.rng.key`); order and augmentation are functions of it.
    """
    order = rng.permutation(rng.key(*key), len(labels), labels.device)
    for number, rows in enumerate(order.split(batch)):
        lanes = rng.lanes(rng.key(*key, number), len(rows), labels.device)
        params = ops.dsa_params(dsa_strategy, lanes, images.size, shared_op=True)
        loss = F.cross_entropy(net(images.read(rows, params)), labels[rows])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
