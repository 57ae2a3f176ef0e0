"""The group probe: a network that learns from real images to tell the group, whatever the class."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.data import Dataset, DeviceImages
from fastdd.evaluation.audit.findings import Probe
from fastdd.methods.parts.training import train_epoch

# A protected attribute is easier than classes, so the network is narrow, and steps are few.
_WIDTH, _BATCH, _LEARNING_RATE = 32, 64, 3e-3
# Parts of the training, in which the learning rate falls from all of it to a tenth.
_PARTS = 10
_HELD_OUT = 5  # of so many images of a class and group one, and where there are two at least one


def train_probe(
    data: Dataset,
    *,
    steps: int,
    needed: float,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[nn.Module, Probe]:
    """A network from normalised images to logits of groups, and how well it tells them.

    A ConvNet of 32 filters. The loss of an image of class y and group g counts N / (cells n_{y,g}), so that every class
    and group counts alike: the class then says nothing of the group. A fifth of every class and group is held out.

    Args:
        data: its training images.
        steps: of Adam, 64 images each.
        needed: percent, the accuracy below which it says nothing.
        seed: every draw is a function of it.
        device: where.
        progress: called with the steps done.

    Cost: a forward and a backward pass of ``64 steps`` images. Two runs on one machine and thread count are bitwise
    equal.
    """
    train = data.train
    cells = train.labels * data.num_groups + train.groups
    held = _held_out(cells, rng.key(seed, "audit-held-out"))
    kept = np.flatnonzero(~held)
    sizes = np.bincount(cells[kept], minlength=data.num_classes * data.num_groups)
    weights = len(kept) / ((sizes > 0).sum() * sizes[cells[kept]])
    images = DeviceImages.of(train.images, data.mean, data.std, device)
    labels = torch.from_numpy(train.groups).to(device)
    of_rows = torch.zeros(len(train))
    of_rows[kept] = torch.from_numpy(weights).float()
    net = models.build(
        "ConvNet",
        data.channels,
        data.num_groups,
        data.size,
        width=_WIDTH,
        key=rng.key(seed, "audit-probe"),
        device=device,
    ).train()
    adam = torch.optim.Adam(net.parameters(), lr=_LEARNING_RATE)
    order, done = _orders(torch.from_numpy(kept), steps * _BATCH, seed), 0
    with models.exact_convolutions():
        for part, rows in enumerate(order.split(-(-steps // _PARTS) * _BATCH)):
            adam.param_groups[0]["lr"] = _LEARNING_RATE * (1 - 0.9 * part / (_PARTS - 1))
            train_epoch(
                net,
                images,
                labels,
                adam,
                batch=_BATCH,
                dsa_strategy="none",
                key=(seed, "audit-probe-steps", part),
                weights=of_rows.to(device),
                order=rows,
            )
            done += len(rows) // _BATCH
            if progress is not None:
                progress(done)
        net.eval()
        rows = torch.from_numpy(np.flatnonzero(held))
        right = (probabilities(net, images, rows).argmax(1) == labels.cpu()[rows]).double()
    of_cells = torch.from_numpy(cells)[rows]
    tested = torch.bincount(of_cells, minlength=int(cells.max()) + 1)
    correct = torch.bincount(of_cells, weights=right, minlength=int(cells.max()) + 1)
    accuracy = float((correct[tested > 0] / tested[tested > 0]).mean()) if len(rows) else 0.0
    groups = len(np.unique(train.groups))
    return net, Probe(100 * accuracy, 100 / groups, needed, len(rows))


@torch.no_grad()
def probabilities(net: nn.Module, images: DeviceImages, rows: Tensor) -> Tensor:
    """The probe's probability of every group, float64 [len(rows), G], on the CPU."""
    chunk = models.chunk_size(net, images)
    parts = [net(images.read(some)).double().softmax(1).cpu() for some in rows.split(chunk)]
    return torch.cat(parts) if parts else torch.zeros(0, 1, dtype=torch.float64)


def _held_out(cells: np.ndarray, key: int) -> np.ndarray:
    """bool [N]: of every cell of two and more images a fifth, at least one."""
    held, lanes = np.zeros(len(cells), bool), rng.lanes(key, int(cells.max()) + 1)
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        count = max(len(rows) // _HELD_OUT, int(len(rows) > 1))
        order = rng.permutation(int(lanes[cell]), len(rows)).numpy()
        held[rows[order[:count]]] = True
    return held


def _orders(rows: Tensor, wanted: int, seed: int) -> Tensor:
    """int64 [wanted]: passes over the rows in random order, one after the other."""
    passes = [
        rows[rng.permutation(rng.key(seed, "audit-probe-order", number), len(rows))]
        for number in range(-(-wanted // len(rows)))
    ]
    return torch.cat(passes)[:wanted]
