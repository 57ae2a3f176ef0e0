"""Training and testing as MTT and TESLA do it: DC's, on windows of larger images and on ImageNet's subsets besides."""

import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastdd.compat.dc import training as dc
from fastdd.compat.dc.training import *
from fastdd.compat.mtt.augmentation import DiffAugment
from fastdd.compat.mtt.subsets import imagenet_labels
from fastdd.compat.shared import randomness
from fastdd.core import rng as draws

# Not in MTT's utils.py: its loops are the script's arguments.
_DCS_ALONE = ("get_loops",)
__all__ = [name for name in dc.__all__ if name not in _DCS_ALONE]

_POOLS = {
    **{mode: dc.POOLS[mode] for mode in "WDPN"},
    "M": ["ConvNet", "AlexNet", "VGG11", "ResNet18_AP", "ResNet18"],
    "A": ["ConvNetAS", "ConvNetAR", "ConvNetAL"],
}


def get_eval_pool(eval_mode: str, model: str, model_eval: str) -> list[str]:
    """:func:`fastdd.compat.dc.get_eval_pool` with MTT's pools; C is the network itself and ConvNet."""
    if eval_mode in _POOLS:
        return list(_POOLS[eval_mode])
    if eval_mode == "S":
        return [model.partition("BN")[0]]
    return [model, "ConvNet"] if eval_mode == "C" else [model_eval]


def epoch(
    mode: str,
    dataloader: DataLoader,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Any,
    args: Namespace,
    aug: bool,
    texture: bool = False,
    *,
    rng: str | None = None,
) -> tuple[float, float]:
    """:func:`fastdd.compat.dc.epoch` as MTT has it: ImageNet's labels are the subset's when testing, and ``texture``
    trains on random windows of a larger image, which continues at its other side (``args.im_size``, ``canvas_size``,
    ``canvas_samples``)."""
    labels = imagenet_labels(getattr(args, "subset", "imagenette")) if args.dataset == "ImageNet" else None
    options = {"draw_windows": _windows(texture, args, rng), "relabel": labels, "diff_augment": DiffAugment}
    return dc.run_pass(mode, dataloader, net, optimizer, criterion, args, aug, rng, **options).read()


def _windows(texture: bool, args: Namespace, rng: str | None) -> Callable[[Tensor, Tensor], tuple] | None:
    """What takes a batch's place with ``texture``."""
    if not texture:
        return None
    return lambda images, labels: (_canvas_samples(images, args, rng), labels.repeat(args.canvas_samples))


def _canvas_samples(images: Tensor, args: Namespace, rng: str | None) -> Tensor:
    height, width = args.im_size[:2]
    n, most = args.canvas_samples * len(images), args.im_size[0] * args.canvas_size
    if randomness.mode(rng) == "legacy":
        shifts = torch.randint(most, (n, 2)).to(images.device)
    else:
        shifts = (draws.uniform(randomness.next_key("texture"), 2 * n, images.device).view(n, 2) * most).long()
    rows = (torch.arange(height, device=images.device) - shifts[:, :1]) % images.shape[2]
    columns = (torch.arange(width, device=images.device) - shifts[:, 1:]) % images.shape[3]
    sources = torch.arange(n, device=images.device) % len(images)
    windows = images[sources[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return windows.permute(0, 3, 1, 2).contiguous()


def evaluate_synset(
    it_eval: int,
    net: nn.Module,
    images_train: Tensor,
    labels_train: Tensor,
    testloader: DataLoader,
    args: Namespace,
    return_loss: bool = False,
    texture: bool = False,
    *,
    rng: str | None = None,
) -> tuple:
    """:func:`fastdd.compat.dc.evaluate_synset` as MTT has it: the network, the training accuracies of all epochs, the
    test accuracy and, with ``return_loss``, the training losses and the test loss."""
    start = time.time()
    options = {"draw_windows": _windows(texture, args, rng), "diff_augment": DiffAugment}
    passes = [totals.read() for totals in dc.train(net, images_train, labels_train, args, rng, **options)]
    losses, accuracies = ([*column] for column in zip(*passes, strict=True))
    loss_test, acc_test = epoch("test", testloader, net, None, nn.CrossEntropyLoss(), args, False, rng=rng)
    seconds = time.time() - start
    dc.report(it_eval, args, seconds, losses[-1], f"train acc = {accuracies[-1]:.4f}, test acc = {acc_test:.4f}")
    return (net, accuracies, acc_test, losses, loss_test) if return_loss else (net, accuracies, acc_test)
