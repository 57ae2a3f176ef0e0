"""Training and testing as IDC and DREAM do it: epochs with CutMix, and the evaluation of a synthetic set.

Names, arguments and results are the published ones; figures stay on the device until an epoch ends.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # which imports its parts where they are first used
import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.compat.idc.augmentation import DiffAug
from fastdd.compat.idc.networks import ResNet, define_model
from fastdd.compat.shared import randomness
from fastdd.compat.shared.clock import get_time
from fastdd.core import rng as keys
from fastdd.core.reading import damage_of

__all__ = [
    "load_ckpt",
    "rand_bbox",
    "random_indices",
    "test_data",
    "train",
    "train_epoch",
    "validate",
]


class _Figures:
    """Top-1 and top-5 accuracy (percent) and mean loss of an epoch."""

    def __init__(self):
        self._sums, self.count = 0, 0

    def add(self, logits: Tensor, target: Tensor, loss: Tensor) -> None:
        best = logits.detach().topk(min(5, logits.shape[1])).indices == target[:, None]
        sums = torch.stack([best[:, 0].sum(), best.sum(), loss.detach() * len(target)])
        self._sums, self.count = self._sums + sums, self.count + len(target)

    def read(self) -> tuple[float, float, float]:
        top1, top5, loss = (self._sums.double() / self.count).tolist()
        return 100 * top1, 100 * top5, loss


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def random_indices(y: Tensor, nclass: int = 10, intraclass: bool = False, device: Any = None) -> Tensor:
    """A random order of a batch; with ``intraclass``, of the members of each class among themselves. ``device``: of the
    result (None: y's)."""
    device = y.device if device is None else device
    if not intraclass:
        return torch.randperm(len(y)).to(device)
    index = torch.arange(len(y), device=device)
    for c in range(nclass):
        members = (y == c).nonzero().flatten().to(device)
        if len(members):
            index[members] = members[torch.randperm(len(members)).to(device)]
    return index


def rand_bbox(size: torch.Size, lam: float) -> tuple[int, int, int, int]:
    """First and last (excluded) row, and likewise column, of CutMix's rectangle: 1 - ``lam`` of the image's area, its
    centre anywhere, cut off at the borders. Returns (first row, first column, last row, last column)."""
    return ops.cutmix_rectangle((size[2], size[3]), 1.0 - lam, np.random.randint(size[2]), np.random.randint(size[3]))


def _cutmix(args: Any, shape: torch.Size, target: Tensor, rng: str | None) -> tuple[Tensor, tuple] | None:
    """Which images the batch is mixed with and in which rectangle, with probability ``args.mix_p``."""
    if randomness.mode(rng) == "legacy":
        if np.random.rand(1) >= args.mix_p:
            return None
        lam = np.random.beta(args.beta, args.beta)
        return random_indices(target, nclass=args.nclass), rand_bbox(shape, lam)
    mix, area, row, column = keys.uniform_array(randomness.next_key("cutmix"), 4).astype(np.float64)
    if mix >= args.mix_p:
        return None
    lam = scipy.special.betaincinv(args.beta, args.beta, area)
    rectangle = ops.cutmix_rectangle((shape[2], shape[3]), 1.0 - lam, int(row * shape[2]), int(column * shape[3]))
    return keys.permutation(randomness.next_key("cutmix-order"), len(target)).to(target.device), rectangle


def train_epoch(
    args: Any,
    train_loader: Iterable,
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    epoch: int = 0,
    logger: Callable[[str], None] | None = None,
    aug: Callable[[Tensor], Tensor] | None = None,
    mixup: str = "vanilla",
    n_data: int = -1,
    *,
    rng: str | None = None,
) -> tuple[float, float, float]:
    """Train for one pass over a loader, or until ``n_data`` images were seen; on the model's device.

    Args:
        args: ``mix_p``, ``beta`` and ``nclass`` for CutMix; with a logger also ``epochs`` and ``epoch_print_freq``.
        train_loader: batches of images and labels, which are left as they are.
        aug: applied to every batch, outside autograd.
        mixup: ``cut`` for CutMix (Yun et al., ICCV 2019); anything else trains without.
        rng: ``legacy`` draws CutMix from the global generators of numpy and torch, as published.

    Returns:
        Top-1 and top-5 accuracy in percent, and the mean loss, as trained. Of mixed batches, accuracy counts the labels
        of the images that were pasted into.
    """
    model.train()
    device, figures = _device_of(model), _Figures()
    for images, target in train_loader:
        images, target = images.to(device), target.to(device)
        if aug is not None:
            with torch.no_grad():
                images = aug(images)
        mixed = None
        if mixup == "cut":
            mixed = _cutmix(args, images.shape, target, rng)
        elif randomness.mode(rng) == "legacy":
            # Drawn in vain by the published code.
            np.random.rand(1)
        if mixed is None:
            logits = model(images)
            loss = criterion(logits, target)
        else:
            order, (top, left, bottom, right) = mixed
            images = images.clone()
            images[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
            kept = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
            logits = model(images)
            loss = criterion(logits, target) * kept + criterion(logits, target[order]) * (1.0 - kept)
        figures.add(logits, target, loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if 0 < n_data <= figures.count:
            break
    top1, top5, mean_loss = figures.read()
    if logger is not None and epoch % args.epoch_print_freq == 0:
        logger(_line("Train", args, epoch, top1, top5, mean_loss))
    return top1, top5, mean_loss


def _line(name: str, args: Any, epoch: int, top1: float, top5: float, loss: float) -> str:
    return f"({name}) [Epoch {epoch}/{args.epochs}] {get_time()} Top1 {top1:.1f}  Top5 {top5:.1f}  Loss {loss:.3f}"


@torch.no_grad()
def validate(
    args: Any,
    val_loader: Iterable,
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    epoch: int,
    logger: Callable[[str], None] | None = None,
) -> tuple[float, float, float]:
    """Top-1 and top-5 accuracy in percent, and the mean loss, over a loader. Reads ``args.epochs`` with a logger."""
    model.eval()
    device, figures = _device_of(model), _Figures()
    for images, target in val_loader:
        images, target = images.to(device), target.to(device)
        logits = model(images)
        figures.add(logits, target, criterion(logits, target))
    top1, top5, loss = figures.read()
    if logger is not None:
        logger(_line("Test ", args, epoch, top1, top5, loss))
    return top1, top5, loss


def train(
    args: Any,
    model: nn.Module,
    train_loader: Iterable,
    val_loader: Iterable,
    plotter: Any = None,
    logger: Callable[[str], None] | None = None,
    *,
    rng: str | None = None,
) -> tuple[float, float]:
    """Train on a synthetic set: SGD, a fifth of the learning rate after two thirds and five sixths of the epochs.

    Reads ``args``: ``lr``, ``momentum``, ``weight_decay``, ``epochs``, ``epoch_print_freq`` (epochs between tests),
    ``mixup`` with ``mix_p``, ``beta`` and ``nclass``, and ``dsa`` with ``dsa_strategy``.

    Returns:
        The best and the last top-1 accuracy in percent, of the epochs that were tested.
    """
    device = torch.device("cuda") if torch.cuda.is_available() else _device_of(model)
    model, criterion = model.to(device), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
    milestones = [2 * args.epochs // 3, 5 * args.epochs // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=milestones, gamma=0.2)
    aug = DiffAug(strategy=args.dsa_strategy, batch=False, rng=rng) if args.dsa else None
    best = last = 0.0
    for epoch in range(1, args.epochs + 1):
        top1, _, loss = train_epoch(
            args, train_loader, model, criterion, optimizer, epoch, logger, aug, mixup=args.mixup, rng=rng
        )
        if epoch % args.epoch_print_freq == 0:
            last, _, loss_val = validate(args, val_loader, model, criterion, epoch, logger)
            best = max(best, last)
            if plotter is not None:
                plotter.update(epoch, top1, last, loss, loss_val)
        scheduler.step()
    return best, last


def resnet10_bn(args: Any, nclass: int, logger: Callable[[str], None] | None = None) -> ResNet:
    """The ResNet-10 with batch norm that synthetic sets are also tested on."""
    return ResNet(args.dataset, 10, nclass, "batch", args.size, nch=args.nch)


def test_data(
    args: Any,
    train_loader: Iterable,
    val_loader: Iterable,
    test_resnet: bool = False,
    model_fn: Callable[..., nn.Module] | None = None,
    repeat: int = 1,
    logger: Callable[[str], None] = print,
    num_val: int = 4,
    *,
    rng: str | None = None,
) -> None:
    """Train ``repeat`` networks on a synthetic set, test each ``num_val`` times, log the mean best and last accuracy.

    ``model_fn`` (args, nclass, logger=...) makes the networks; None: :func:`define_model`, or :func:`resnet10_bn` with
    ``test_resnet``. ``args``: as for both, and :func:`train`; ``epoch_print_freq`` is set.
    """
    args.epoch_print_freq = args.epochs // num_val
    make = model_fn or (resnet10_bn if test_resnet else define_model)
    accuracies = [
        train(args, make(args, args.nclass, logger=logger), train_loader, val_loader, logger=print, rng=rng)
        for _ in range(repeat)
    ]
    best, last = np.mean(accuracies, axis=0)
    logger(f"Repeat {repeat} => Best, last acc: {best:.1f} {last:.1f}\n")


def load_ckpt(model: nn.Module, file_dir: str, verbose: bool = True) -> None:
    """Load a network's parameters from a checkpoint (``state_dict`` or bare, of a DataParallel network or not), which
    can hold no code."""
    from fastdd.exchange import torch_files

    content = torch_files.load(Path(file_dir))
    with damage_of(file_dir, "is not a checkpoint of this network"):
        content = content.get("state_dict", content)
        model.load_state_dict({name.removeprefix("module."): value for name, value in content.items()})
    if verbose:
        print(f"\n=> loaded checkpoint '{file_dir}'")
