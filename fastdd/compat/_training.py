"""Training and testing as distillation scripts do it: epochs over a DataLoader, and the evaluation of a synthetic set.

Names, arguments, results and printed lines are the published ones; figures stay on the device until an epoch ends.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastdd.compat import _random
from fastdd.compat._augment import DiffAugment, DiffAugment_mtt, augment
from fastdd.compat._batches import batches
from fastdd.compat._datasets import TensorDataset, imagenet_labels
from fastdd.core import rng as draws
from fastdd.evaluation.dc_augmentation import DcAugmentation, dc_strategy
from fastdd.exchange.published import NAMES
from fastdd.methods import dc

_MOMENTUM, _WEIGHT_DECAY = 0.9, 5e-4
_LOOPS_OF = (1, 10, 20, 30, 40, 50)
_BATCH_NORMS = ["ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"]
_POOLS = {
    "M": ["MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"],
    "B": _BATCH_NORMS,
    "W": ["ConvNetW32", "ConvNetW64", "ConvNetW128", "ConvNetW256"],
    "D": ["ConvNetD1", "ConvNetD2", "ConvNetD3", "ConvNetD4"],
    "A": ["ConvNetAS", "ConvNetAR", "ConvNetAL", "ConvNetASwish"],
    "P": ["ConvNetNP", "ConvNetMP", "ConvNetAP"],
    "N": ["ConvNetNN", "ConvNetBN", "ConvNetLN", "ConvNetIN", "ConvNetGN"],
}
_POOLS_MTT = {
    **{mode: _POOLS[mode] for mode in "WDPN"},
    "M": ["ConvNet", "AlexNet", "VGG11", "ResNet18_AP", "ResNet18"],
    "A": ["ConvNetAS", "ConvNetAR", "ConvNetAL"],
}


def exit_with(message: str) -> NoReturn:
    """End the script with a message, as published code does where it can't go on."""
    raise SystemExit(message)


def get_time() -> str:
    """The time now, ``[2024-01-31 12:00:00]``."""
    return time.strftime("[%Y-%m-%d %H:%M:%S]", time.localtime())


def get_default_convnet_setting() -> tuple[int, int, str, str, str]:
    """Width, depth, activation, norm and pooling of the network named ConvNet."""
    return 128, 3, "relu", "instancenorm", "avgpooling"


def get_loops(ipc: int) -> tuple[int, int]:
    """Matching steps an iteration and epochs between them, as published for 1, 10, 20, 30, 40 and 50 images a class.

    Raises:
        SystemExit: another number.

    >>> get_loops(10)
    (10, 50)
    """
    if ipc not in _LOOPS_OF:
        exit_with(f"loop hyper-parameters are not defined for {ipc} ipc")
    return dc.loops(ipc)


def get_loops_fairdd(ipc: int) -> tuple[int, int]:
    """:func:`get_loops` as FairDD has it, (100, 10) above 50."""
    return dc.loops(ipc) if ipc > max(_LOOPS_OF) else get_loops(ipc)


def get_daparam(dataset: str, model: str, model_eval: str, ipc: int) -> dict[str, Any]:
    """Augmentation of DC's evaluation: none, but for MNIST and for the network ConvNetBN."""
    return asdict(DcAugmentation(dc_strategy(NAMES.get(dataset, dataset), model_eval)))


def get_eval_pool(eval_mode: str, model: str, model_eval: str) -> list[str]:
    """Names of the networks to evaluate with: a published pool, the network itself (S: without batch norm, SS), or
    ``model_eval``."""
    if eval_mode in _POOLS:
        return list(_POOLS[eval_mode])
    if eval_mode == "S":
        if "BN" in model:
            print(
                "Attention: Here I will replace BN with IN in evaluation, as the synthetic set is too small to measure "
                "BN hyper-parameters."
            )
        return [model.partition("BN")[0]]
    return [model if eval_mode == "SS" else model_eval]


def get_eval_pool_mtt(eval_mode: str, model: str, model_eval: str) -> list[str]:
    """:func:`get_eval_pool` as MTT has it."""
    if eval_mode in _POOLS_MTT:
        return list(_POOLS_MTT[eval_mode])
    if eval_mode == "S":
        return [model.partition("BN")[0]]
    return [model, "ConvNet"] if eval_mode == "C" else [model_eval]


@dataclass
class _Totals:
    """Of every batch: loss and right predictions, still on the device, and size."""

    losses: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.losses.append(loss.detach())
        self.right.append((logits.detach().argmax(-1) == labels).sum())
        self.sizes.append(len(labels))

    def read(self) -> tuple[float, float]:
        """Mean loss and accuracy, a fraction; one transfer."""
        count = sum(self.sizes)
        if not count:
            raise ZeroDivisionError("the DataLoader has no images")
        losses, right = torch.stack([torch.stack(values).double() for values in (self.losses, self.right)]).tolist()
        return sum(loss * size for loss, size in zip(losses, self.sizes, strict=True)) / count, sum(right) / count


def _augmented(
    images: Tensor, args: Namespace, rng: str | None, diff_augment: Callable[..., Tensor] = DiffAugment
) -> Tensor:
    if args.dsa:
        return diff_augment(images, args.dsa_strategy, param=args.dsa_param, rng=rng)
    # DM's script never sets it, and fails without DSA.
    return augment(images, getattr(args, "dc_aug_param", None), device=args.device, rng=rng)


def _set_up(mode: str, net: nn.Module, criterion: Any, args: Namespace) -> None:
    net.to(args.device)
    if isinstance(criterion, nn.Module):
        criterion.to(args.device)
    net.train(mode == "train")


def _pass(
    mode: str,
    dataloader: Iterable,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Any,
    args: Namespace,
    aug: bool,
    rng: str | None,
    *,
    texture: bool = False,
    relabel: Tensor | None = None,
    diff_augment: Callable[..., Tensor] = DiffAugment,
) -> _Totals:
    _set_up(mode, net, criterion, args)
    training, totals = mode == "train", _Totals()
    with torch.set_grad_enabled(training and torch.is_grad_enabled()):
        for images, labels in batches(dataloader, args.device, keep=not training, rng=rng):
            images, labels = images.float(), labels.long()
            if texture and training:
                images, labels = _canvas_samples(images, args, rng), labels.repeat(args.canvas_samples)
            if aug:
                images = _augmented(images, args, rng, diff_augment)
            if relabel is not None and not training:
                labels = relabel.to(labels.device)[labels]
            logits = net(images)
            loss = criterion(logits, labels)
            totals.add(loss, logits, labels)
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return totals


def epoch(
    mode: str,
    dataloader: DataLoader,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Any,
    args: Namespace,
    aug: bool,
    *,
    rng: str | None = None,
) -> tuple[float, float]:
    """One pass over a DataLoader: mean loss and accuracy, a fraction.

    Args:
        mode: ``train``: an optimiser step a batch, the network in training mode; anything else: none, without
            gradients, in evaluation mode. Test sets are decoded once, where they fit into memory
            (:func:`fastdd.compat._batches.batches`).
        dataloader: items are (image, label, ...).
        net, optimizer, criterion: any.
        args: with ``device`` and, for augmentation, ``dsa``, ``dsa_strategy`` and ``dsa_param``, or ``dc_aug_param``.
        aug: whether to augment: DSA's operations with ``args.dsa``, else DC's.
        rng: where order and augmentation are drawn from (:func:`fastdd.compat.use_rng`).

    The host waits for the device once, at the end.
    """
    return _pass(mode, dataloader, net, optimizer, criterion, args, aug, rng).read()


def epoch_mtt(
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
    """:func:`epoch` as MTT has it: ImageNet's labels are the subset's when testing, and ``texture`` trains on random
    windows of a larger image, which continues at its other side (``args.im_size``, ``canvas_size``,
    ``canvas_samples``)."""
    labels = imagenet_labels(getattr(args, "subset", "imagenette")) if args.dataset == "ImageNet" else None
    options = {"texture": texture, "relabel": labels, "diff_augment": DiffAugment_mtt}
    return _pass(mode, dataloader, net, optimizer, criterion, args, aug, rng, **options).read()


def _canvas_samples(images: Tensor, args: Namespace, rng: str | None) -> Tensor:
    height, width = args.im_size[:2]
    n, most = args.canvas_samples * len(images), args.im_size[0] * args.canvas_size
    if _random.mode(rng) == "legacy":
        shifts = torch.randint(most, (n, 2)).to(images.device)
    else:
        shifts = (draws.uniform(_random.next_key("texture"), 2 * n, images.device).view(n, 2) * most).long()
    rows = (torch.arange(height, device=images.device) - shifts[:, :1]) % images.shape[2]
    columns = (torch.arange(width, device=images.device) - shifts[:, 1:]) % images.shape[3]
    each = torch.arange(n, device=images.device) % len(images)
    windows = images[each[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return windows.permute(0, 3, 1, 2).contiguous()


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
        args: as of :func:`epoch`, with ``num_groups`` and ``num_classes``.
        dataloader: items are (image, label, group).
    """
    _set_up(mode, net, criterion, args)
    cells, totals = args.num_groups * args.num_classes, _Totals()
    seen, right = [], []
    with torch.no_grad():
        for images, labels, groups in batches(dataloader, args.device, columns=3, keep=mode != "train", rng=rng):
            images, labels, groups = images.float(), labels.long(), groups.long()
            if aug:
                images = _augmented(images, args, rng)
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


def _sgd(net: nn.Module, learning_rate: float) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=learning_rate, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY)


def _train(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    args: Namespace,
    rng: str | None,
    **options: Any,
) -> list[_Totals]:
    """The published training on a synthetic set; ``options`` of :func:`_pass`."""
    net.to(args.device)
    learning_rate, epochs = float(args.lr_net), int(args.epoch_eval_train)
    optimizer, criterion = _sgd(net, learning_rate), nn.CrossEntropyLoss()
    dataset = TensorDataset(images.to(args.device), labels.to(args.device))
    loader = DataLoader(dataset, batch_size=args.batch_train, shuffle=True)
    found = []
    for number in range(epochs + 1):
        found.append(_pass("train", loader, net, optimizer, criterion, args, True, rng, **options))
        if number == epochs // 2 + 1:
            learning_rate *= 0.1
            optimizer = _sgd(net, learning_rate)
    return found


def _report(it_eval: int, args: Namespace, seconds: float, loss: float, accuracies: str) -> None:
    print(
        f"{get_time()} Evaluate_{it_eval:02d}: epoch = {int(args.epoch_eval_train):04d} train time = {int(seconds)} s "
        f"train loss = {loss:.6f} {accuracies}"
    )


def evaluate_synset(
    it_eval: int,
    net: nn.Module,
    images_train: Tensor,
    labels_train: Tensor,
    testloader: DataLoader,
    args: Namespace,
    *,
    rng: str | None = None,
) -> tuple[nn.Module, float, float]:
    """Train a network on a synthetic set and test it: the network, and its accuracies in training and test, fractions.

    SGD with momentum 0.9 and weight decay 5e-4 for ``args.epoch_eval_train + 1`` epochs, in batches of
    ``args.batch_train``, augmented; after epoch ``epoch_eval_train // 2 + 1`` a new optimiser with a tenth of
    ``args.lr_net``. The training accuracy is the last epoch's. Prints one line.
    """
    start = time.time()
    loss, acc_train = _train(net, images_train, labels_train, args, rng)[-1].read()
    seconds = time.time() - start
    _, acc_test = epoch("test", testloader, net, None, nn.CrossEntropyLoss(), args, False, rng=rng)
    _report(it_eval, args, seconds, loss, f"train acc = {acc_train:.4f}, test acc = {acc_test:.4f}")
    return net, acc_train, acc_test


def evaluate_synset_fairdd(
    it_eval: int,
    net: nn.Module,
    images_train: Tensor,
    labels_train: Tensor,
    testloader: DataLoader,
    args: Namespace,
    *,
    rng: str | None = None,
) -> tuple[nn.Module, float, float, float, float]:
    """:func:`evaluate_synset` as FairDD has it: the network, the training accuracy as a fraction and, in percent with
    two decimals, test accuracy and the largest and mean violation of equalised odds."""
    start = time.time()
    loss, acc_train = _train(net, images_train, labels_train, args, rng)[-1].read()
    seconds = time.time() - start
    figures = epoch_Fairness_Metric("test", testloader, net, nn.CrossEntropyLoss(), args, False, rng=rng)[1:]
    acc_test, largest, mean = (round(figure * 100, 2) for figure in figures)
    _report(
        it_eval,
        args,
        seconds,
        loss,
        f"train acc = {acc_train:.2f}, test acc = {acc_test:.2f}, max_Equalized_Odds = {largest:.2f}, "
        f"mean_Equalized_Odds = {mean:.2f}",
    )
    return net, acc_train, acc_test, largest, mean


def evaluate_synset_mtt(
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
    """:func:`evaluate_synset` as MTT has it: the network, the training accuracies of all epochs, the test accuracy and,
    with ``return_loss``, the training losses and the test loss."""
    start = time.time()
    options = {"texture": texture, "diff_augment": DiffAugment_mtt}
    found = [totals.read() for totals in _train(net, images_train, labels_train, args, rng, **options)]
    losses, accuracies = ([*column] for column in zip(*found, strict=True))
    loss_test, acc_test = epoch_mtt("test", testloader, net, None, nn.CrossEntropyLoss(), args, False, rng=rng)
    seconds = time.time() - start
    _report(it_eval, args, seconds, losses[-1], f"train acc = {accuracies[-1]:.4f}, test acc = {acc_test:.4f}")
    return (net, accuracies, acc_test, losses, loss_test) if return_loss else (net, accuracies, acc_test)
