"""Networks trained alike on a small set, and what they reach on the real test set."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fastdd import models, training
from fastdd.core import ranks, rng
from fastdd.core.messages import Messages
from fastdd.data import Dataset, DeviceImages, Split, Zca
from fastdd.data.pictures import data_uri, escaped, heat_map, html_table
from fastdd.evaluation.doubts import doubt_of_network, doubt_of_test_set
from fastdd.evaluation.metrics import METRICS, GroupCounts, Metrics, interval
from fastdd.evaluation.protocol import Protocol, train, train_side_by_side
from fastdd.evaluation.relabel import Labeller, train_to_labels
from fastdd.training import TrainingImages

_TEST_BATCH = 256


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
        width, depth: of the networks, where they are in place of the name's.
    """

    arch: str
    counts: tuple[GroupCounts, ...]
    seconds: float
    protocol: Protocol
    seed: int
    tested_on: str = "test"
    warnings: tuple[str, ...] = ()
    groups_from: str = ""
    width: int | None = None
    depth: int | None = None

    def __repr__(self) -> str:
        figures = {name: row for name, row in self.summary().items() if row["mean"] is not None}
        shown = ", ".join(f"{name} {row['mean']:.1f} ± {row['std']:.1f}" for name, row in figures.items())
        networks = f"{len(self.counts)} network{'s' * (len(self.counts) != 1)}"
        return f"Evaluation({self.arch}, {networks}, {self.tested_on} set, %: {shown})"

    def _repr_html_(self) -> str:
        """For notebooks: the figures, and a picture of the accuracy of every class (row) and group (column)."""
        lines = [
            [name, "" if row["mean"] is None else f"{row['mean']:.1f} ± {row['std']:.1f}"]
            for name, row in self.summary().items()
        ]
        lines.append(["by class and group", f'<img src="{data_uri(heat_map(self.group_accuracy()))}">'])
        doubts = "".join(f"<p>warning: {escaped(line)}</p>" for line in self.warnings)
        return f"<p><b>{escaped(repr(self))}</b></p>{html_table(['figure', '%'], lines)}{doubts}"

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


@torch.no_grad()
def _predictions_side_by_side(nets: models.SideBySide, images: DeviceImages) -> Tensor:
    """[count, N]; every image is read once."""
    nets.eval()
    rows = torch.arange(len(images.pixels), device=images.pixels.device)
    read = (images.read(some).expand(nets.count, -1, -1, -1, -1) for some in rows.split(_TEST_BATCH))
    return torch.cat([nets(part).argmax(2) for part in read], 1)


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
    side_by_side: int | None = None,
    labeller: Labeller | None = None,
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
        side_by_side: networks that are trained at a time, as one (:class:`fastdd.models.SideBySide`), where the
            protocol allows it; the same figures to rounding. None: on GPUs as many as fit, on CPUs one by itself.
        labeller: of a protocol that relabels, what it trains to.

    Raises:
        ValueError: unknown network, no networks asked for, images that the network can't take, probabilities of other
            than C classes, a ``zca`` of another size, a recipe that needs groups, classes or validation images that
            there are not.

    Cost: nets * passes * ceil(N / batch) training steps and nets passes over the test set. Deterministic on a
    machine and thread count: on any number of ranks, each with as many threads, the same counts; on GPUs to rounding,
    as ranks have other networks side by side.
    """
    _check(nets, labels, dataset, protocol, labeller)
    protocol = protocol or Protocol()
    device = labels.device
    arch = models.canonical_name(arch)
    takes = dataset.channels, dataset.num_classes, dataset.size
    build = partial(models.build, arch, *takes, width=width, depth=depth, device=device)
    net = build()
    init = models.ParameterInit(net)
    trained = TrainingImages(images, labels, dataset.num_classes, groups, dataset.num_groups, protocol.dsa_strategy)
    held_out = None if dataset.validation is None else seen(dataset.validation, dataset, device, zca)
    test = seen(dataset.test, dataset, device, zca)
    start = time.perf_counter()
    ranks.agree("evaluation", dataset.name, tuple(labels.shape), arch, width, depth, nets, protocol, seed)
    results, reports = {}, Messages()
    accuracies: list[float] = []

    def tell() -> None:
        for accuracy in reports.received():
            accuracies.append(accuracy)
            if progress is not None:
                progress(len(accuracies), nets, sum(accuracies) / len(accuracies))

    own = range(ranks.rank(), nets, ranks.world())
    if _goes_side_by_side(protocol, net) and (side_by_side or device.type != "cpu"):
        most = side_by_side or models.networks_at_once(net, images, min(protocol.batch, len(labels)))
        of_own = _trained_side_by_side(net, init, own, most, trained, protocol, test, seed)
    else:
        kept = labeller and labeller.keep(protocol.epochs if len(own) > 1 else 0, len(labels), dataset.num_classes)
        of_own = _trained_in_turn(net, init, own, trained, protocol, test, seed, build, held_out, kept)
    for number, loss, predictor, predictions in of_own:
        counts = GroupCounts.of(predictions, test.labels, test.groups, dataset.num_classes, dataset.num_groups)
        last = _last_loss(loss, predictor)
        doubt = doubt_of_network(number, last, predictions, dataset.class_names, protocol.learning_rate)
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
    seconds = time.perf_counter() - start
    return Evaluation(arch, in_order, seconds, protocol, seed, dataset.tested_on, told, width=width, depth=depth)


def _last_loss(loss: Tensor, net: torch.nn.Module) -> float:
    """The loss; NaN where the network's parameters are not finite."""
    finite = bool(torch.stack([parameter.isfinite().all() for parameter in net.parameters()]).all())
    return loss.item() if finite else math.nan


def _check(nets: int, labels: Tensor, dataset: Dataset, protocol: Protocol | None, labeller: Labeller | None) -> None:
    """What :func:`evaluate` refuses before anything is built."""
    if nets < 1:
        raise ValueError(f"nets must be at least 1, not {nets}")
    if ((protocol and protocol.relabel) is None) != (labeller is None):
        raise ValueError("a labeller goes with a protocol that relabels (rded), and with no other")
    if labels.is_floating_point() and labels.shape[1:] != (dataset.num_classes,):
        raise ValueError(
            f"soft labels of shape {list(labels.shape)} do not fit the {dataset.num_classes} classes of {dataset.name}"
        )


def seen(split: Split, dataset: Dataset, device: torch.device, zca: Zca | None) -> TrainingImages:
    """Images of a split as networks see them, with labels and groups."""
    if zca is None:
        images = DeviceImages.of(split.images, dataset.mean, dataset.std, device)
    else:
        images = zca.read(split.images, device)
    labels, groups = (torch.as_tensor(array, device=device) for array in (split.labels, split.groups))
    return TrainingImages(images, labels, dataset.num_classes, groups, dataset.num_groups)


def _goes_side_by_side(protocol: Protocol, net: models.Network) -> bool:
    """Whether :func:`train_side_by_side` trains networks as the protocol says: recipes, and the augmentation whose
    rotations the host computes, have a network at a time."""
    plain = protocol.training == "erm" and protocol.dc_strategy == "none" and protocol.relabel is None
    return plain and models.fits_side_by_side(net)


# Number of a network, its last loss, what predicts, and its classes of the test images.
_Trained = tuple[int, Tensor, torch.nn.Module, Tensor]


def _trained_side_by_side(
    net: models.Network,
    init: models.ParameterInit,
    numbers: Sequence[int],
    most: int,
    of: TrainingImages,
    protocol: Protocol,
    test: TrainingImages,
    seed: int,
) -> Iterator[_Trained]:
    """Networks of these numbers, trained and tested at most so many at a time, in as few and as even parts as can be.

    Each is in ``net``, whose parameters ``init`` has, when it is given.
    """
    parts = -(-len(numbers) // most)
    for part in range(parts):
        group = numbers[part::parts]
        nets = models.SideBySide(net, len(group))
        for place, number in enumerate(group):
            init.fill(rng.key(seed, "evaluation-net", number))
            nets.take(place, net)
        with models.exact_convolutions():
            losses = train_side_by_side(
                nets, of.images, of.labels, protocol, [(seed, "evaluation", number) for number in group]
            )
            predictions = _predictions_side_by_side(nets, test.images)
        for place, number in enumerate(group):
            nets.give(place, net)
            yield number, losses[place], net.eval(), predictions[place]


def _trained_in_turn(
    net: models.Network,
    init: models.ParameterInit,
    numbers: Sequence[int],
    of: TrainingImages,
    protocol: Protocol,
    test: TrainingImages,
    seed: int,
    build: Callable[..., models.Network],
    held_out: TrainingImages | None,
    labeller: Labeller | None,
) -> Iterator[_Trained]:
    """Networks of these numbers, trained and tested one after another, all in ``net``."""
    for number in numbers:
        init.fill(rng.key(seed, "evaluation-net", number))
        with models.exact_convolutions():
            loss, predictor = _trained(net, of, protocol, build, held_out, seed, number, labeller)
            predictions = _predictions(predictor, test.images)
        yield number, loss, predictor, predictions


def _trained(
    net: models.Network,
    of: TrainingImages,
    protocol: Protocol,
    build: Callable[..., models.Network],
    held_out: TrainingImages | None,
    seed: int,
    number: int,
    labeller: Labeller | None,
) -> tuple[Tensor, torch.nn.Module]:
    """Train network ``number``; its last loss, and what predicts."""
    key = seed, "evaluation", number
    if labeller is not None:
        names = ("epochs", "batch", "learning_rate", "momentum", "weight_decay")
        how = {name: getattr(protocol, name) for name in names}
        return train_to_labels(net, of.images, of.labels, labeller, **how), net
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
