"""FairDD's evaluation: DC's, with the violation of equalised odds."""

import time
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastdd.compat.dc import training as dc
from fastdd.compat.dc.batches import batches
from fastdd.compat.dc.training import *

__all__ = [*dc.__all__, "epoch_Fairness_Metric"]


def get_loops(ipc: int) -> tuple[int, int]:
    """:func:`fastdd.compat.dc.get_loops`, and (100, 10) above 50."""
    if ipc <= max(dc.LOOPS_OF):
        return dc.get_loops(ipc)
    from fastdd.methods.dc import loops

    return loops(ipc)


def epoch_Fairness_Metric(
    mode: str,
    dataloader: DataLoader,
    net: nn.Module,
    criterion: Any,
    args: Namespace,
    aug: bool,
    *,
    rng: str | None = None,
) -> tuple[float, float, float, float]:
    """One pass without training: mean loss, accuracy, and the largest and the mean violation of equalised odds.

    The violation of a class is the range over groups of the accuracy on its images; fractions. A (class, group) without
    images counts as accuracy 0, as published.

    Args:
        args: as of :func:`fastdd.compat.dc.epoch`, with ``num_groups`` and ``num_classes``.
        dataloader: items are (image, label, group).
    """
    dc.set_up(mode, net, criterion, args)
    cells, totals = args.num_groups * args.num_classes, dc.Totals()
    seen, right = [], []
    with torch.no_grad():
        for images, labels, groups in batches(dataloader, args.device, columns=3, keep=mode != "train", rng=rng):
            images, labels, groups = dc.as_published(images), labels.long(), groups.long()
            if aug:
                images = dc.augmented(images, args, rng)
            logits = net(images)
            totals.add(criterion(logits, labels), logits, labels)
            inside = (labels >= 0) & (labels < args.num_classes) & (groups >= 0) & (groups < args.num_groups)
            seen.append(torch.where(inside, groups * args.num_classes + labels, cells))
            right.append(logits.argmax(1) == labels)
        cell, hit = torch.cat(seen), torch.cat(right)
        counts = [torch.bincount(of, minlength=cells + 1)[:cells] for of in (torch.where(hit, cell, cells), cell)]
    hits, images_in = torch.stack(counts).cpu().float().view(2, args.num_groups, args.num_classes)
    accuracy = torch.where(images_in == 0, 0, hits / images_in)
    gaps = accuracy.amax(0) - accuracy.amin(0)
    return *totals.read(), gaps.max().item(), gaps.mean().item()


def evaluate_synset(
    it_eval: int,
    net: nn.Module,
    images_train: Tensor,
    labels_train: Tensor,
    testloader: DataLoader,
    args: Namespace,
    *,
    rng: str | None = None,
) -> tuple[nn.Module, float, float, float, float]:
    """:func:`fastdd.compat.dc.evaluate_synset`: the network, the training accuracy as a fraction and, in percent with
    two decimals, test accuracy and the largest and mean violation of equalised odds."""
    start = time.time()
    loss, acc_train = dc.train(net, images_train, labels_train, args, rng)[-1].read()
    seconds = time.time() - start
    figures = epoch_Fairness_Metric("test", testloader, net, nn.CrossEntropyLoss(), args, False, rng=rng)[1:]
    acc_test, largest, mean = (round(figure * 100, 2) for figure in figures)
    dc.report(
        it_eval,
        args,
        seconds,
        loss,
        f"train acc = {acc_train:.2f}, test acc = {acc_test:.2f}, max_Equalized_Odds = {largest:.2f}, "
        f"mean_Equalized_Odds = {mean:.2f}",
    )
    return net, acc_train, acc_test, largest, mean
