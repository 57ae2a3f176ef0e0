"""Training and testing as distillation scripts do it: epochs over a DataLoader, and the evaluation of a synthetic set.

Names, arguments, results and printed lines are the published ones; figures stay on the device until an epoch ends.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastdd.compat.dc.augmentation import DiffAugment, augment
from fastdd.compat.dc.batches import batches
from fastdd.compat.dc.datasets import TensorDataset
from fastdd.compat.shared.clock import get_time

__all__ = [
    "epoch",
    "evaluate_synset",
    "get_daparam",
    "get_default_convnet_setting",
    "get_eval_pool",
    "get_loops",
]

_MOMENTUM, _WEIGHT_DECAY = 0.9, 5e-4
LOOPS_OF = (1, 10, 20, 30, 40, 50)
_BATCH_NORMS = ["ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"]
POOLS = {
    "M": ["MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"],
    "B": _BATCH_NORMS,
    "W": ["ConvNetW32", "ConvNetW64", "ConvNetW128", "ConvNetW256"],
    "D": ["ConvNetD1", "ConvNetD2", "ConvNetD3", "ConvNetD4"],
    "A": ["ConvNetAS", "ConvNetAR", "ConvNetAL", "ConvNetASwish"],
    "P": ["ConvNetNP", "ConvNetMP", "ConvNetAP"],
    "N": ["ConvNetNN", "ConvNetBN", "ConvNetLN", "ConvNetIN", "ConvNetGN"],
}


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
    if ipc not in LOOPS_OF:
        raise SystemExit(f"loop hyper-parameters are not defined for {ipc} ipc")
    from fastdd.methods import dc

    return dc.loops(ipc)


def get_daparam(dataset: str, model: str, model_eval: str, ipc: int) -> dict[str, Any]:
    """Augmentation of DC's evaluation: none, but for MNIST and for the network ConvNetBN."""
    from fastdd.evaluation.dc_augmentation import DcAugmentation, dc_strategy
    from fastdd.exchange.published import NAMES

    return asdict(DcAugmentation(dc_strategy(NAMES.get(dataset, dataset), model_eval)))


def get_eval_pool(eval_mode: str, model: str, model_eval: str) -> list[str]:
    """Names of the networks to evaluate with: a published pool, the network itself (S: without batch norm, SS), or
    ``model_eval``."""
    if eval_mode in POOLS:
        return list(POOLS[eval_mode])
    if eval_mode == "S":
        if "BN" in model:
            print(
                "Attention: Here I will replace BN with IN in evaluation, as the synthetic set is too small to measure "
                "BN hyper-parameters."
            )
        return [model.partition("BN")[0]]
    return [model if eval_mode == "SS" else model_eval]


@dataclass
class Totals:
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


def augmented(
    images: Tensor, args: Namespace, rng: str | None, diff_augment: Callable[..., Tensor] = DiffAugment
) -> Tensor:
    """DSA's operations with ``args.dsa``, else those of ``args.dc_aug_param``."""
    if args.dsa:
        return diff_augment(images, args.dsa_strategy, param=args.dsa_param, rng=rng)
    # DM's script never sets it, and fails without DSA.
    return augment(images, getattr(args, "dc_aug_param", None), device=args.device, rng=rng)


def as_published(images: Tensor) -> Tensor:
    """In single precision; in double, in scripts that have made it the default."""
    return images.to(torch.promote_types(torch.float32, torch.get_default_dtype()))


def set_up(mode: str, net: nn.Module, criterion: Any, args: Namespace) -> None:
    """Everything on ``args.device``, and the network in the mode's state."""
    net.to(args.device)
    if isinstance(criterion, nn.Module):
        criterion.to(args.device)
    net.train(mode == "train")


def run_pass(
    mode: str,
    dataloader: Iterable,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Any,
    args: Namespace,
    aug: bool,
    rng: str | None,
    *,
    draw_windows: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    relabel: Tensor | None = None,
    diff_augment: Callable[..., Tensor] = DiffAugment,
) -> Totals:
    """A pass over a DataLoader, as :func:`epoch` says.

    Args:
        draw_windows: what trains in place of a batch's images and labels.
        relabel: int64, the label that stands for each of the data set's when testing.
        diff_augment: the family's ``DiffAugment``.
    """
    set_up(mode, net, criterion, args)
    training, totals = mode == "train", Totals()
    with torch.set_grad_enabled(training and torch.is_grad_enabled()):
        for images, labels in batches(dataloader, args.device, keep=not training, rng=rng):
            images, labels = as_published(images), labels.long()
            if draw_windows is not None and training:
                images, labels = draw_windows(images, labels)
            if aug:
                images = augmented(images, args, rng, diff_augment)
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
            (:func:`fastdd.compat.dc.batches.batches`).
        dataloader: items are (image, label, ...).
        net, optimizer, criterion: any.
        args: with ``device`` and, for augmentation, ``dsa``, ``dsa_strategy`` and ``dsa_param``, or ``dc_aug_param``.
        aug: whether to augment: DSA's operations with ``args.dsa``, else DC's.
        rng: where order and augmentation are drawn from (:func:`fastdd.compat.use_rng`).

    The host waits for the device once, at the end.
    """
    return run_pass(mode, dataloader, net, optimizer, criterion, args, aug, rng).read()


def _sgd(net: nn.Module, learning_rate: float) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=learning_rate, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY)


def train(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    args: Namespace,
    rng: str | None,
    **options: Any,
) -> list[Totals]:
    """The published training on a synthetic set; ``options`` of :func:`run_pass`."""
    net.to(args.device)
    learning_rate, epochs = float(args.lr_net), int(args.epoch_eval_train)
    optimizer, criterion = _sgd(net, learning_rate), nn.CrossEntropyLoss()
    dataset = TensorDataset(images.to(args.device), labels.to(args.device))
    loader = DataLoader(dataset, batch_size=args.batch_train, shuffle=True)
    passes = []
    for number in range(epochs + 1):
        passes.append(run_pass("train", loader, net, optimizer, criterion, args, True, rng, **options))
        if number == epochs // 2 + 1:
            learning_rate *= 0.1
            optimizer = _sgd(net, learning_rate)
    return passes


def report(it_eval: int, args: Namespace, seconds: float, loss: float, accuracies: str) -> None:
    """Print the line of an evaluation."""
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
    loss, acc_train = train(net, images_train, labels_train, args, rng)[-1].read()
    seconds = time.time() - start
    _, acc_test = epoch("test", testloader, net, None, nn.CrossEntropyLoss(), args, False, rng=rng)
    report(it_eval, args, seconds, loss, f"train acc = {acc_train:.4f}, test acc = {acc_test:.4f}")
    return net, acc_train, acc_test
