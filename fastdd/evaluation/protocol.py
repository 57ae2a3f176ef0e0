"""The published evaluation: fresh networks trained on a small set, tested on the real test set."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastdd import models, ops, training
from fastdd.core import ranks, rng
from fastdd.core.messages import Messages
from fastdd.data import Dataset, DeviceImages, Split, Zca
from fastdd.evaluation.dc_augmentation import DC_OPS, DcAugmentation, dc_augment
from fastdd.evaluation.doubts import doubt_of_network, doubt_of_test_set
from fastdd.evaluation.metrics import METRICS, GroupCounts, Metrics, interval
from fastdd.methods.parts.training import Composition, train_epoch
from fastdd.training import Recipe, TrainingImages

_TEST_BATCH = 256
Optimizer = Literal["sgd", "adamw"]
# Of AdamW's second moment; PyTorch's default, which is the published setting.
_BETA = 0.999


@dataclass(frozen=True)
class Protocol:
    """How a network is trained for evaluation (defaults: DM and FairDD's published protocol, IPC 1 to 50).

    SGD with momentum 0.9 and weight decay 5e-4; ``epochs + 1`` epochs; after epoch ``epochs // 2 + 1`` the learning
    rate falls to a tenth and the momentum starts again from zero, as the published code does by building a new
    optimiser; one test at the end, never the best of several.

    Attributes:
        epochs: 1000 with augmentation, 300 without, in the published code.
        learning_rate: of the network; trajectory matching is published with its learned step size.
        momentum: of SGD; of AdamW the first beta (the second is 0.999).
        optimizer: sgd or adamw, whose weight decay is apart from the gradient.
        batch: training batch.
        dsa_strategy: augmentation while training: operations joined by underscores, with parameters an image.
        dc_strategy: in its place, DC's own: one operation an image, drawn from this list of crop, scale, rotate and
            noise (:class:`fastdd.evaluation.DcAugmentation`).
        composition: how many operations of ``dsa_strategy`` an image has: with dsa one a batch, with idc flip, color,
            cutout, as far as they are named, and one of the others (:func:`fastdd.ops.idc_params`).
        cutmix: probability that a batch is mixed (:func:`fastdd.ops.cutmix`).
        milestones: in place of DM's course, ``epochs`` epochs with one optimiser, whose learning rate falls after
            these parts of them, rounded down: 2/3 and 5/6 for IDC, every fifth for NCFM.
        gamma: what the learning rate falls to, as a factor.
        training: the recipe by which networks are trained (:data:`fastdd.training.RECIPES`), with this optimiser.
        constants: of the recipe, in place of its defaults.
    """

    epochs: int = 1000
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    dsa_strategy: str = "color_crop_cutout_flip_scale_rotate"
    dc_strategy: str = "none"
    composition: Composition = "dsa"
    cutmix: float = 0.0
    milestones: tuple[Fraction, ...] | None = None
    gamma: float = 0.1
    optimizer: Optimizer = "sgd"
    training: str = "erm"
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        training.constants(self.training, self.constants)
        if self.training != "erm" and self.cutmix:
            raise ValueError(f"training {self.training} has a loss of its own, which CutMix does not mix")
        if self.composition not in get_args(Composition):
            raise ValueError(f"composition must be {' or '.join(get_args(Composition))}, not {self.composition!r}")
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"optimizer must be {' or '.join(get_args(Optimizer))}, not {self.optimizer!r}")
        if not 0 <= self.cutmix <= 1:
            raise ValueError(f"cutmix must be a probability, 0 to 1, not {self.cutmix}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be above 0 and at most 1, not {self.gamma}")
        if any(not 0 < part < 1 for part in self.milestones or ()):
            raise ValueError(f"milestones must be parts of the epochs, between 0 and 1, not {self.milestones}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"the networks' learning rate must be positive, not {self.learning_rate}")
        siamese = ops.parse_strategy(self.dsa_strategy)
        if self.dc_strategy == "none":
            return
        for name in self.dc_strategy.split("_"):
            if name not in DC_OPS:
                raise ValueError(f"dc_strategy {self.dc_strategy!r}: {name!r} is not one of {', '.join(DC_OPS)}")
        if siamese:
            raise ValueError(f"one augmentation: dc_strategy {self.dc_strategy!r} goes with dsa_strategy 'none'")

    @property
    def passes(self) -> int:
        """Over the training images: DM's code has one more than it says."""
        return self.epochs + 1 if self.milestones is None else self.epochs

    @property
    def falls(self) -> list[int]:
        """After how many passes the learning rate falls."""
        if self.milestones is None:
            return [self.epochs // 2 + 2]
        return [int(part * self.epochs) for part in self.milestones]


@dataclass(frozen=True)
class Evaluation:
    """What several networks, trained alike from different initialisations, reach on the test set.

    Attributes:
        arch: the networks' name.
        counts: right predictions per class and group, one a network.
        seconds: training and testing, all networks.
        protocol: how they were trained.
        seed: what their draws are functions of.
        tested_on: ``test``, or ``validation`` for held-out training images (:attr:`fastdd.data.Dataset.tested_on`).
        groups_from: whose groups the recipe looked at, of a set's images, in words; empty for those of real images.
        warnings: why figures may mean nothing, a line each: networks that learned nothing, few test images.
    """

    arch: str
    counts: tuple[GroupCounts, ...]
    seconds: float
    protocol: Protocol
    seed: int
    tested_on: str = "test"
    warnings: tuple[str, ...] = ()
    groups_from: str = ""

    def metrics(self, deo: str = "range") -> list[Metrics]:
        """The figures of every network; ``deo`` as in :meth:`GroupCounts.metrics`."""
        return [counts.metrics(deo) for counts in self.counts]

    def summary(self, deo: str = "range") -> dict[str, dict[str, float | None]]:
        """``{"accuracy": {"mean", "std", "interval"}, "deo_m": ..., "deo_a": ..., "wa": ..., "ba": ...}``, percent.

        The standard deviation is over networks, divided by their number (numpy's, as in published results), the
        interval half of the 95 % interval of the mean over networks (:func:`fastdd.evaluation.interval`), None for one.
        All None where the test set does not define a figure. What may be wrong with them is in :attr:`warnings`.
        """
        runs = self.metrics(deo)
        result: dict[str, dict[str, float | None]] = {}
        for name in METRICS:
            values = torch.tensor([getattr(run, name) for run in runs], dtype=torch.float64)
            mean, std = values.mean().item(), values.std(correction=0).item()
            result[name] = dict.fromkeys(("mean", "std", "interval"))
            if not math.isnan(mean):
                result[name] = {"mean": mean, "std": std, "interval": interval(std, len(runs))}
        return result

    def group_accuracy(self) -> list[list[float | None]]:
        """[C][G] mean accuracy over networks, percent; None where there are no test images."""
        mean = torch.stack([counts.accuracy for counts in self.counts]).mean(0)
        return [[None if math.isnan(value) else value for value in row] for row in mean.tolist()]


def train(
    net: torch.nn.Module,
    images: DeviceImages,
    labels: Tensor,
    protocol: Protocol,
    key: tuple,
    recipe: Recipe | None = None,
) -> Tensor:
    """Train a network as the protocol says; orders and augmentations are functions of ``key`` and the epoch.

    ``recipe``, where it is not plain training, is of this network and these images. Returns the last epoch's loss, a
    scalar on the device.
    """
    parameters = list(net.parameters() if recipe is None else recipe.parameters())

    def new_optimizer(learning_rate: float) -> torch.optim.Optimizer:
        rates = {"lr": learning_rate, "weight_decay": protocol.weight_decay}
        if protocol.optimizer == "adamw":
            return torch.optim.AdamW(parameters, betas=(protocol.momentum, _BETA), **rates)
        return torch.optim.SGD(parameters, momentum=protocol.momentum, **rates)

    augment = None
    if protocol.dc_strategy != "none":
        augment = partial(dc_augment, DcAugmentation(protocol.dc_strategy))
    falls = protocol.falls  # of a few epochs two at a time, or some before the first: as MultiStepLR does it
    learning_rate = protocol.learning_rate * protocol.gamma ** falls.count(0)
    optimizer = new_optimizer(learning_rate)
    net.train()
    if recipe is not None:
        recipe.train()
    for epoch in range(protocol.passes):
        loss = train_epoch(
            net,
            images,
            labels,
            optimizer,
            batch=protocol.batch,
            dsa_strategy=protocol.dsa_strategy,
            key=(*key, epoch),
            composition=protocol.composition,
            cutmix=protocol.cutmix,
            augment=augment,
            order=None if recipe is None else recipe.order((*key, epoch)),
            loss_of=None if recipe is None else recipe.loss,
        )
        if epoch + 1 in falls:
            learning_rate *= protocol.gamma ** falls.count(epoch + 1)
            if protocol.milestones is None:
                optimizer = new_optimizer(learning_rate)
            optimizer.param_groups[0]["lr"] = learning_rate
    return loss


@torch.no_grad()
def count_right(
    net: torch.nn.Module, images: DeviceImages, labels: Tensor, groups: Tensor, dataset: Dataset
) -> GroupCounts:
    """Right predictions of a network per class and group of ``dataset``; the network is left in evaluation mode."""
    return GroupCounts.of(_predictions(net, images), labels, groups, dataset.num_classes, dataset.num_groups)


@torch.no_grad()
def _predictions(net: torch.nn.Module, images: DeviceImages) -> Tensor:
    net.eval()
    rows = torch.arange(len(images.pixels), device=images.pixels.device)
    return torch.cat([net(images.read(some)).argmax(1) for some in rows.split(_TEST_BATCH)])


def evaluate(
    images: DeviceImages,
    labels: Tensor,
    dataset: Dataset,
    *,
    arch: str = "ConvNet",
    width: int | None = None,
    depth: int | None = None,
    nets: int = 5,
    protocol: Protocol | None = None,
    seed: int = 0,
    zca: Zca | None = None,
    groups: Tensor | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    keep: Callable[[int, torch.nn.Module, GroupCounts], None] | None = None,
) -> Evaluation:
    """Train ``nets`` fresh networks on (images, labels) and test each on the data set's test split.

    The ranks of a job take networks in turn, and all of them return the counts of all.

    Args:
        images: the training images: a synthetic set, a random subset, or the whole training split.
        labels: int64 [N], or float32 [N, C] probabilities, on the images' device.
        dataset: its test split is used, with the images' device.
        arch: network name (:func:`fastdd.models.names`).
        width: filters a convolution, in place of the name's.
        depth: blocks, in place of the name's.
        nets: networks.
        protocol: how they are trained; the published one by default.
        seed: initialisations, orders and augmentations are functions of it.
        zca: whitens the test split, where the training images are whitened; None: it is normalised.
        groups: int64 [N], of the training images, for recipes that look at them; None: not known.
        progress: called with (networks done, networks, their mean accuracy so far), on rank 0, after every network.
        keep: called with (number of the network, what predicts, what it got right) after every network, on the rank
            that trained it; the network is trained on for the next one.

    Raises:
        ValueError: unknown network, no networks asked for, images that the network can't take, probabilities of other
            than C classes, a ``zca`` of another size, a recipe that needs groups, classes or validation images that
            there are not.

    Cost: nets * passes * ceil(N / batch) training steps and nets passes over the test set. Deterministic on a
    machine and thread count: on any number of ranks, each with as many threads, the same counts.
    """
    if nets < 1:
        raise ValueError(f"nets must be at least 1, not {nets}")
    if labels.is_floating_point() and labels.shape[1:] != (dataset.num_classes,):
        raise ValueError(
            f"soft labels of shape {list(labels.shape)} do not fit the {dataset.num_classes} classes of {dataset.name}"
        )
    protocol = protocol or Protocol()
    device = labels.device
    arch = models.canonical_name(arch)
    build = partial(
        models.build,
        arch,
        dataset.channels,
        dataset.num_classes,
        dataset.size,
        width=width,
        depth=depth,
        device=device,
    )
    net = build()
    init = models.ParameterInit(net)
    trained = TrainingImages(images, labels, dataset.num_classes, groups, dataset.num_groups, protocol.dsa_strategy)
    held_out = None if dataset.validation is None else _seen(dataset.validation, dataset, device, zca)
    test = _seen(dataset.test, dataset, device, zca)
    start = time.perf_counter()
    ranks.agree("evaluation", dataset.name, tuple(labels.shape), arch, width, depth, nets, protocol, seed)
    results, reports = {}, Messages()
    accuracies: list[float] = []

    def tell() -> None:
        for accuracy in reports.received():
            accuracies.append(accuracy)
            if progress is not None:
                progress(len(accuracies), nets, sum(accuracies) / len(accuracies))

    for number in range(ranks.rank(), nets, ranks.world()):
        init.fill(rng.key(seed, "evaluation-net", number))
        with models.exact_convolutions():
            loss, predictor = _trained(net, trained, protocol, build, held_out, seed, number)
            predictions = _predictions(predictor, test.images)
        counts = GroupCounts.of(predictions, test.labels, test.groups, dataset.num_classes, dataset.num_groups)
        finite = all(bool(parameter.isfinite().all()) for parameter in predictor.parameters())
        doubt = doubt_of_network(
            number, loss.item() if finite else math.nan, predictions, dataset.class_names, protocol.learning_rate
        )
        results[number] = counts, doubt
        if keep is not None:
            keep(number, predictor, counts)
        reports.send(counts.metrics().accuracy)
        tell()
    ranks.meet(meanwhile=tell)
    tell()
    of_all = {number: result for part in ranks.exchange(results) for number, result in part.items()}
    in_order, doubts = zip(*(of_all[number] for number in range(nets)), strict=True)
    of_test = doubt_of_test_set(in_order[0].total, dataset.class_names, dataset.group_names)
    told = tuple(filter(None, (*doubts, of_test)))
    return Evaluation(arch, in_order, time.perf_counter() - start, protocol, seed, dataset.tested_on, told)


def _seen(split: Split, dataset: Dataset, device: torch.device, zca: Zca | None) -> TrainingImages:
    """Images of a split as networks see them, with labels and groups."""
    if zca is None:
        images = DeviceImages.of(split.images, dataset.mean, dataset.std, device)
    else:
        images = zca.read(split.images, device)
    labels, groups = (torch.as_tensor(array, device=device) for array in (split.labels, split.groups))
    return TrainingImages(images, labels, dataset.num_classes, groups, dataset.num_groups)


def _trained(
    net: models.Network,
    of: TrainingImages,
    protocol: Protocol,
    build: Callable[..., models.Network],
    held_out: TrainingImages | None,
    seed: int,
    number: int,
) -> tuple[Tensor, torch.nn.Module]:
    """Train network ``number``; its last loss, and what predicts."""
    key = seed, "evaluation", number
    if protocol.training == "erm":
        return train(net, of.images, of.labels, protocol, key), net

    def another(name: str) -> models.Network:
        return build(key=rng.key(seed, f"evaluation-net-{name}", number))

    recipe = training.start(
        protocol.training, of, net, another, (seed, "evaluation-recipe", number), protocol.constants
    )
    loss = train(net, of.images, of.labels, protocol, key, recipe)
    recipe.finish(held_out)
    return loss, recipe.predictor()
