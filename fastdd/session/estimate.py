"""What a run will take on this machine, from a few of its steps: seconds, memory, disk space."""

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd import models, ops
from fastdd.core import graph, rng
from fastdd.data import Dataset, DeviceImages, Split, Zca
from fastdd.data.initial import first_images
from fastdd.debias.density.embedding import EmbeddingSettings, train_embedding
from fastdd.evaluation import Labeller, Protocol
from fastdd.evaluation import evaluate as _evaluate
from fastdd.experts.settings import ExpertSettings
from fastdd.experts.store import DTYPES, Experts, stored_shape
from fastdd.experts.training import describe_experts
from fastdd.methods import Context, Decoupled, DecoupledSettings, Method, Settings, Teacher, method
from fastdd.session.networks import check_experts, check_networks
from fastdd.session.training import TrainingRun
from fastdd.training import recipe

# A part is measured for so many seconds, in so many calls at least and at most, besides a first one.
_SECONDS, _CALLS, _MOST_CALLS = 6.0, 3, 100
# A call that takes longer than this is measured once, and steps of many classes on a few of them.
_LONG = 5.0
_FEW_CLASSES = 10
_METRICS_LINE = 48  # bytes of a step in metrics.jsonl
# Training is measured on so many batches, and tests on so many images; the rest is proportion.
_BATCHES, _IMAGES = 8, 2048


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: of each part of it, by name.
        memory: largest resident memory of this process, in bytes: measured, so that it has the measurement's parts.
        gpu_memory: largest memory allocated on the GPU, in bytes; None on the CPU.
        disk: bytes that the run's files take.
        notes: how figures came about, one line each.
    """

    seconds: dict[str, float]
    memory: int
    gpu_memory: int | None
    disk: int
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(seconds: dict[str, float], disk: int, device: torch.device, notes: tuple[str, ...] = ()) -> Estimate:
    """The estimate of parts that have been measured: with the memory that this took."""
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Estimate(seconds, peak_memory(), gpu, disk, notes)


def _seconds_of(calls: Sequence[Callable[[int], object]], device: torch.device) -> list[float]:
    """Mean seconds of each of ``calls``, which are done in turn, with 0, 1, ...; the first round is a warm-up, on GPUs
    the first rounds (:mod:`fastdd.core.graph`)."""

    def round_of(number: int) -> list[float]:
        times = []
        for call in calls:
            began = time.perf_counter()
            call(number)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        return times

    settling = graph.settling(device)
    for number in range(settling):
        first = round_of(number)
        if sum(first) > _LONG:
            return first
    rounds: list[list[float]] = []
    while len(rounds) < _CALLS or (len(rounds) < _MOST_CALLS and sum(map(sum, rounds)) < _SECONDS):
        rounds.append(round_of(settling + len(rounds)))
    return [sum(times) / len(rounds) for times in zip(*rounds, strict=True)]


def distillation(
    config: Settings,
    dataset: Dataset,
    device: torch.device,
    *,
    groups: np.ndarray | None = None,
    experts: Experts | None = None,
    networks: Experts | None = None,
    teacher: Teacher | None = None,
) -> tuple[float, int, tuple[str, ...]]:
    """Seconds of a run's beginning and its loop, bytes of its folder, and notes; some of its steps are done, on images
    that are dropped.

    Where experts are needed and not given, stand-ins of the run's network take their place.
    Steps of many classes are measured on ten of them where they take long: their cost is that of their classes.
    """
    kind = method(config.method)
    if kind.by_class:
        return _units(kind, config, dataset, teacher, device, groups)
    if kind.needs_experts and experts is None:
        experts = _untrained(config, dataset)
    check_experts(config, dataset, experts)
    check_networks(config, dataset, networks)
    train = dataset if groups is None else dataset.with_groups(groups)
    images = first_images(dataset, config.ipc, config.seed, "real", None if experts is None else experts.zca)
    weights = torch.ones(len(dataset.train)) if kind.takes("weights", config.mode) else None
    few = min(dataset.num_classes, _FEW_CLASSES) if kind.classes_apart else dataset.num_classes

    def method_on(classes: int) -> Method:
        chosen = None if classes == dataset.num_classes else range(classes)
        return kind(config, Context(train, device, images, weights, experts, chosen, networks=networks))

    notes: tuple[str, ...] = ()
    with models.exact_convolutions():
        began = time.perf_counter()
        measured_on = method_on(few)
        # What a method finds before its first step, such as representative images, it finds class by class.
        beginning = (time.perf_counter() - began) * dataset.num_classes / few
        parts = measured_on.parts()
        times = _seconds_of([part.call for part in parts], device)
        if few < dataset.num_classes:
            share = dataset.num_classes / few
            by_class = [number for number, part in enumerate(parts) if part.by_class]
            if sum(times[number] for number in by_class) * share < _LONG:
                calls = [method_on(dataset.num_classes).parts()[number].call for number in by_class]
                for number, seconds in zip(by_class, _seconds_of(calls, device), strict=True):
                    times[number] = seconds
            else:
                times = [
                    seconds * share if part.by_class else seconds for seconds, part in zip(times, parts, strict=True)
                ]
                notes = (f"steps measured on {few} of {dataset.num_classes} classes",)
    steps = config.iterations * sum(part.times * seconds for part, seconds in zip(parts, times, strict=True))
    state = sum(tensor.nbytes for tensor in measured_on.state().values())
    return beginning + steps, 2 * state + images.nbytes + _METRICS_LINE * config.steps, notes


def _units(
    kind: type[Decoupled],
    config: DecoupledSettings,
    dataset: Dataset,
    teacher: Teacher,
    device: torch.device,
    groups: np.ndarray | None,
) -> tuple[float, int, tuple[str, ...]]:
    """:func:`distillation` of a method that makes units of images; of iterations in them a few are done."""
    few = config
    if "iterations" in type(config).model_fields:
        few = config.model_copy(update={"iterations": min(config.iterations, 2)})
    train = dataset if groups is None else dataset.with_groups(groups)
    weights = torch.ones(len(dataset.train)) if kind.takes("weights", config.mode) else None
    with models.exact_convolutions():
        measured_on = kind(few, train, teacher, device, weights)
        unit = measured_on.units[0]
        (seconds,) = _seconds_of([lambda call: measured_on.make(unit)], device)
    if few is not config:
        seconds *= config.iterations / few.iterations
    images = config.ipc * dataset.num_classes
    share = images / len(unit.rows(config.ipc))
    note = f"measured on one of {len(measured_on.units)} units of images"
    return seconds * share, 4 * images * dataset.channels * math.prod(dataset.size), (note,)


def _untrained(config: Settings, dataset: Dataset) -> Experts:
    """Stand-ins for experts, of random parameters: a student's steps on them take as long."""
    network = {name: getattr(config, name) for name in ("arch", "width", "depth", "debias")}
    manifest = {**describe_experts(network, dataset), "dataset_digest": None}
    size = sum(math.prod(parameter["shape"]) for parameter in manifest["parameters"])
    # As many as a student of trajectory matching needs; beginning and end.
    epochs = getattr(config, "max_start_epoch", 1) + getattr(config, "expert_epochs", 1)
    values = 0.05 * rng.normal(rng.key(config.seed, "stand-in"), epochs * size).view(1, epochs, size)
    return Experts(values, manifest)


def _first(split: Split, rows: int) -> Split:
    return Split(split.images[:rows], split.labels[:rows], split.groups[:rows])


def _training(
    images: DeviceImages,
    labels: Tensor,
    dataset: Dataset,
    protocol: Protocol,
    zca: Zca | None,
    groups: Tensor | None = None,
    labeller: Labeller | None = None,
    **network: Any,
) -> tuple[float, float]:
    """Seconds of an epoch on the images, and of a test on the data set's test split."""
    part = min(len(labels), _BATCHES * protocol.batch)
    few = replace(images, pixels=images.pixels[:part])
    groups = None if groups is None else groups[:part]

    def seconds(epochs: int, tested: int) -> float:
        small = replace(dataset, test=_first(dataset.test, tested))
        # Passes over the images, of which protocols of one course have as many as they say.
        short = replace(protocol, epochs=epochs if protocol.milestones is not None else epochs - 1)
        how = {"protocol": short, "zca": zca, "groups": groups, "labeller": labeller}
        return _evaluate(few, labels[:part], small, nets=1, **how, **network).seconds

    seconds(2, 1)
    rough = seconds(2, 1)
    more = min(max(_CALLS, math.ceil(2 * _SECONDS / rough)), _MOST_CALLS)
    epoch = max(0.0, seconds(2 + more, 1) - rough) / more
    tested = min(len(dataset.test), _IMAGES)
    test = max(0.0, seconds(2, tested) - rough) * len(dataset.test) / tested
    return epoch * len(labels) / part, test


def evaluation(
    images: DeviceImages,
    labels: Tensor,
    dataset: Dataset,
    *,
    nets: int,
    protocol: Protocol,
    zca: Zca | None = None,
    groups: Tensor | None = None,
    labeller: Labeller | None = None,
    **network: Any,
) -> float:
    """Seconds of :func:`fastdd.evaluation.evaluate` with these arguments."""
    epoch, test = _training(images, labels, dataset, protocol, zca, groups, labeller, **network)
    return nets * (protocol.passes * epoch + test)


def experts(
    config: ExpertSettings, dataset: Dataset, device: torch.device, groups: np.ndarray | None = None
) -> tuple[dict[str, float], int]:
    """Seconds of the parts of expert training in one process, and bytes of the experts' folder.

    ``groups``: of the training images, in place of the data set's, for recipes that look at them.
    """
    dataset = dataset if groups is None else dataset.with_groups(groups)
    few = min(len(dataset.train), _BATCHES * config.batch_train)
    pixels, zca, seconds = dataset.train.images[:few], None, {}
    if config.zca:
        seconds["whitening"], zca = _whitening(dataset.train.images, device)
    images = zca.read(pixels, device) if zca else DeviceImages.of(pixels, dataset.mean, dataset.std, device)
    labels = torch.as_tensor(dataset.train.labels[:few], device=device)
    protocol = Protocol(
        learning_rate=config.lr_teacher,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        batch=config.batch_train,
        dsa_strategy=config.dsa_strategy,
        training=config.training,
        constants=config.constants,
    )
    network = {name: getattr(config, name) for name in ("arch", "width", "depth")}
    known = torch.as_tensor(dataset.train.groups[:few], device=device) if dataset.num_groups > 1 else None
    epoch, test = _training(images, labels, dataset, protocol, zca, known, **network)
    tests = math.ceil(config.epochs / config.eval_every) if config.eval_every else 0
    seconds["experts"] = config.num_experts * (config.epochs * epoch * len(dataset.train) / few + tests * test)
    shape = stored_shape({**describe_experts(config.model_dump(), dataset), "experts": [None] * config.num_experts})
    disk = math.prod(shape) * DTYPES[config.dtype][1].itemsize
    if zca is not None:
        disk += zca.mean.nbytes + zca.matrix.nbytes
    return seconds, disk


def training(run: TrainingRun, device: torch.device) -> tuple[dict[str, float], int, tuple[str, ...]]:
    """Seconds of the parts of a network's training, bytes of its folder, and notes; some batches are trained on.

    The run is as it was: what is trained are networks that are dropped.
    """
    config, kind = run.config, recipe(run.config.training)
    seconds = dict.fromkeys(f"training on {stage.name} images" for stage in run.stages)
    for number, (name, stage) in enumerate(zip(list(seconds), run.stages, strict=True)):
        few = min(len(stage.data), _BATCHES * config.batch_train)
        trainer = run.trainer(number, few, copy.deepcopy(run.net))
        (epoch,) = _seconds_of([trainer.epoch], device)
        seconds[name] = config.epochs * epoch * len(stage.data) / few
    predictor = trainer.recipe.predictor().eval()
    tests = [("validation", run.validation, config.epochs * len(run.stages)), ("test", run.test, 1)]
    for name, images, times in tests:
        if images is not None:
            few = images.spread(_IMAGES)
            (once,) = _seconds_of([lambda _, few=few: run.count(predictor, few)], device)
            seconds[name] = times * once * len(images) / len(few)
    notes = ("without the fit on held-out images after the last epoch",) if kind.needs_validation else ()
    return seconds, run.bytes_of_folder(), notes


def _whitening(images: np.ndarray, device: torch.device) -> tuple[float, Zca]:
    """Seconds of a fit on all images, from two on some of them, and the last of these."""
    times, rows = [], [min(len(images), n) for n in (_IMAGES, 2 * _IMAGES)]
    for n in rows:
        began = time.perf_counter()
        zca = Zca.fit(images[:n], device=device)
        times.append(time.perf_counter() - began)
    an_image = max(0.0, times[1] - times[0]) / max(1, rows[1] - rows[0])
    return times[1] + an_image * (len(images) - rows[1]), zca


def bias_embedding(dataset: Dataset, settings: EmbeddingSettings, device: torch.device) -> float:
    """Seconds of training an encoder and embedding all training images, and of the density that weights come from."""
    few = min(len(dataset.train), 2 * settings.batch)

    def seconds(rows: int, steps: int) -> float:
        part = replace(dataset, train=_first(dataset.train, rows))
        began = time.perf_counter()
        train_embedding(part, replace(settings, steps=steps), device=device)
        return time.perf_counter() - began

    seconds(few, 1)
    short = seconds(few, 1)
    a_step = max(0.0, seconds(few, 1 + _CALLS) - short) / _CALLS
    # A large encoder's images cost alike, however few are looked at.
    more = min(len(dataset.train), 2 * few if short > _LONG else _IMAGES)
    an_image = max(0.0, seconds(more, 1) - short) / max(1, more - few)
    counts = np.bincount(dataset.train.labels).astype(float)
    rows = rng.normal(rng.key(0, "estimate"), _IMAGES * 128, device).view(-1, 128)
    began = time.perf_counter()
    ops.log_density(rows, bandwidth=math.sqrt(0.1), method="exact")
    density = (time.perf_counter() - began) * float((counts**2).sum()) / _IMAGES**2
    return short + (settings.steps - 1) * a_step + an_image * (len(dataset.train) - few) + density
