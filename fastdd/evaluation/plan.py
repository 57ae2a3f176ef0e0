"""What an evaluation is of: from a set, a protocol and what the user overrides, everything that it depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.data import Dataset, DeviceImages, SyntheticSet, Zca
from fastdd.data.class_names import places, renumbered
from fastdd.data.initial import random_set, starting_groups
from fastdd.evaluation.dc_augmentation import dc_strategy
from fastdd.evaluation.label_file import LabelFile
from fastdd.evaluation.metrics import GroupCounts
from fastdd.evaluation.networks import Evaluation, evaluate
from fastdd.evaluation.protocol import Protocol
from fastdd.evaluation.published import PublishedProtocol, published_protocol
from fastdd.evaluation.relabel import Labeller, Relabelling, TeachersLogits, Views
from fastdd.methods import configure, preset
from fastdd.training import recipe

_NETS = 5
# Training on everything needs fewer passes than training on a few images.
_WHOLE_EPOCHS = 20
# Images whose values are looked at at a time: a set may be mapped from a file larger than the memory.
_CHECKED_ROWS = 256


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation before it is done; :func:`plan_evaluation` makes it.

    Attributes:
        images, labels: what networks are trained on, on their device.
        dataset: whose test split they are tested on, normalised as ``images`` are.
        nets: networks.
        seed: what their draws are functions of.
        arch, width, depth: the network.
        protocol: how it is trained.
        zca: what whitened the images, if anything did.
        groups: int64 [N], the images' protected groups, where they are known.
        groups_from: whose they are, in words; empty for those of real images.
        labeller: of a protocol that relabels, what it trains to.
        doubts: why figures may mean nothing whatever the networks reach, a line each.
    """

    images: DeviceImages
    labels: Tensor
    dataset: Dataset
    nets: int
    seed: int
    arch: str
    width: int | None
    depth: int | None
    protocol: Protocol
    zca: Zca | None
    groups: Tensor | None = None
    groups_from: str = ""
    labeller: Labeller | None = None
    doubts: tuple[str, ...] = ()

    @property
    def network(self) -> dict[str, Any]:
        """``arch``, ``width`` and ``depth``."""
        return {"arch": self.arch, "width": self.width, "depth": self.depth}

    @property
    def looks_at(self) -> str:
        """``groups_from``, where the recipe looks at groups; else empty."""
        return self.groups_from if recipe(self.protocol.training).needs_groups else ""

    def evaluate(
        self,
        progress: Callable[[int, int, float], None] | None = None,
        keep: Callable[[int, nn.Module, GroupCounts], None] | None = None,
    ) -> Evaluation:
        """Do it; ``progress`` and ``keep`` as :func:`fastdd.evaluation.evaluate` calls them."""
        result = evaluate(
            self.images,
            self.labels,
            self.dataset,
            nets=self.nets,
            seed=self.seed,
            protocol=self.protocol,
            zca=self.zca,
            groups=self.groups,
            progress=progress,
            keep=keep,
            labeller=self.labeller,
            **self.network,
        )
        return replace(result, groups_from=self.looks_at, warnings=(*self.doubts, *result.warnings))


def check_fits(synthetic: SyntheticSet, data: Dataset) -> None:
    """ValueError if there are no images, if they are not finite, or they or the classes are not the data set's.

    Classes may be in another order (:func:`fastdd.data.class_names.places`).
    """
    shape, expected = tuple(synthetic.images.shape[1:]), (data.channels, *data.size)
    if shape != expected:
        raise ValueError(f"the synthetic images are {shape}, those of {data.name} are {expected} (channels, H, W)")
    classes = len(synthetic.metadata["class_names"])
    if classes != data.num_classes:
        raise ValueError(f"the synthetic set is of {classes} classes, but {data.name} has {data.num_classes}")
    places(synthetic.metadata["class_names"], data.class_names)
    if not len(synthetic.images):
        raise ValueError("the synthetic set has no images")
    if not all(bool(part.isfinite().all()) for part in synthetic.images.split(_CHECKED_ROWS)):
        raise ValueError("some values of the synthetic images are not finite: nothing can be trained on them")


def in_order_of(data: Dataset, synthetic: SyntheticSet) -> SyntheticSet:
    """The set with its classes numbered as the data set's of the same names; itself where they are.

    Raises:
        ValueError: a class that the data set does not have.
    """
    place = places(synthetic.metadata["class_names"], data.class_names)
    if place is None or place == list(range(data.num_classes)):
        return synthetic
    labels, soft = renumbered(synthetic.labels, synthetic.soft_labels, place, data.num_classes)
    metadata = synthetic.metadata | {"class_names": list(data.class_names)}
    return replace(synthetic, labels=labels, soft_labels=soft, metadata=metadata)


def plan_evaluation(
    what: SyntheticSet | Literal["random", "whole"],
    data: Dataset,
    device: torch.device,
    *,
    ipc: int | None = None,
    nets: int | None = None,
    protocol: str | None = None,
    arch: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    dsa_strategy: str | None = None,
    learning_rate: float | None = None,
    factor: int | None = None,
    training: str | None = None,
    constants: Mapping[str, Any] | None = None,
    seed: int = 0,
    teacher: TeachersLogits | None = None,
    labels: LabelFile | Literal["teacher", "hard"] = "teacher",
) -> EvaluationPlan:
    """The plan of an evaluation; arguments that are None are the set's or the protocol's.

    Args:
        what: a synthetic set; ``random`` for ``ipc`` real images per class, ``whole`` for the whole training split.
        data: the data set to test on (and to draw from).
        device: where.
        ipc, nets, protocol, arch, width, depth, epochs, dsa_strategy, learning_rate, factor, training,
            constants, seed: as :func:`fastdd.evaluate` takes them.
        teacher: of a protocol that relabels, the labels' source; None with ``labels`` that are hard or stored.
        labels: of such a protocol, whose they are, or where they are stored.

    Raises:
        ValueError: what :func:`fastdd.evaluate` refuses.
    """
    published = None if protocol is None else published_protocol(protocol)
    whole = what == "whole"
    if published is not None:
        _check_protocol(protocol, published, whole, epochs)
    _check_factor(what, factor)
    _check_ipc(what, ipc)
    if what == "random":
        what = random_set(data, ipc, seed)
    part = _whole(data, device) if whole else _of_set(what, data, device, learning_rate)
    run = part.run or configure(dataset=data.name, ipc=ipc or 1).model_dump()
    if arch is None:
        arch = run["arch"]
        width = run.get("width") if width is None else width
        depth = run.get("depth") if depth is None else depth
    augmentation = _augmentation(what, part, data.name, run, published, dsa_strategy, arch)
    if epochs is None:
        augmented = (augmentation["dsa_strategy"], augmentation["dc_strategy"]) != ("none", "none")
        of_whole = whole and published is None
        epochs = _WHOLE_EPOCHS if of_whole else _published_epochs(published, augmented=augmented)
    if nets is None:
        nets = _NETS if published is None else published.nets
    its_rate = None if published is None else published.learning_rate
    known = (learning_rate, its_rate, part.learning_rate, Protocol.learning_rate)
    of_protocol, labeller = augmentation | ({} if published is None else published.training), None
    if published is not None and published.relabels:
        batch = published.batch(data.name, data.num_classes, -(-len(part.labels) // data.num_classes))
        labeller = _labeller(what, part, data, seed, teacher, labels, epochs, batch)
        of_protocol |= {"batch": batch, "relabel": labeller.how}
    trained = Protocol(
        epochs=epochs,
        learning_rate=next(rate for rate in known if rate is not None),
        training=training or Protocol.training,
        constants=constants or {},
        **of_protocol,
    )
    return EvaluationPlan(
        *(part.images, part.labels, part.dataset, nets, seed, arch, width, depth),
        protocol=trained,
        zca=part.zca,
        groups=part.groups,
        groups_from=part.groups_from,
        labeller=labeller,
        doubts=_doubts(what, data),
    )


def _doubts(what: SyntheticSet | str, data: Dataset) -> tuple[str, ...]:
    """A set that may have been made from the images that networks are tested on."""
    if data.tested_on == "test" or isinstance(what, str):
        return ()
    if what.metadata.get("dataset_digest") in (None, data.digest()):
        return ()
    return (
        "networks are tested on images held out of training, and the set was made from another split, which may have "
        "them: evaluate it with the val_split that it was made with",
    )


def _augmentation(
    what: SyntheticSet | str,
    part: "_Trained",
    dataset: str,
    run: dict[str, Any],
    published: PublishedProtocol | None,
    asked: str | None,
    arch: str,
) -> dict[str, Any]:
    """How training images are augmented, as :class:`Protocol` has it: as asked, else the protocol's, else the set's."""
    strategy, cutmix, dc = run["dsa_strategy"], 0.0, "none"
    if published is not None and published.augmentation is not None:
        strategy, cutmix = published.augmentation(dataset, 1 if isinstance(what, str) else what.formation)
    strategy = strategy if asked is None else asked
    if published is not None and part.method in published.dc_augmented and (strategy, asked) == ("none", None):
        dc = dc_strategy(dataset, models.canonical_name(arch))
    return {"dsa_strategy": strategy, "dc_strategy": dc, "cutmix": cutmix}


def relabelling(what: SyntheticSet, data: Dataset, labels: Literal["teacher", "hard"] = "teacher") -> Relabelling:
    """How images of a set are shuffled and cropped: by the mosaic's factor; others are cropped by the factor that
    mosaics of the data set would have."""
    own = what.metadata.get("run", {}).get("factor") if what.metadata.get("method") == "rded" else None
    factor = own or preset("rded", data.name, 1)["factor"]
    return Relabelling(labels, strips=own or 1, smallest=1 / factor)


def _labeller(
    what: SyntheticSet,
    part: "_Trained",
    data: Dataset,
    seed: int,
    teacher: TeachersLogits | None,
    labels: LabelFile | Literal["teacher", "hard"],
    epochs: int,
    batch: int,
) -> Labeller:
    if part.zca is not None:
        raise ValueError("the set is whitened (ZCA), and protocol rded crops images that are not: take another")
    if not isinstance(labels, LabelFile):
        if labels == "teacher" and teacher is None:
            raise ValueError(
                "protocol rded trains to a teacher's labels: give the teacher (--teacher), or --labels hard"
            )
        return Labeller(Views(seed, relabelling(what, data, labels)), None if labels == "hard" else teacher)
    stored = labels
    if stored.about["set"] != what.digest():
        raise ValueError(f"the labels in {stored.path} are of another set: fastdd relabel makes those of this one")
    if stored.classes != data.num_classes or stored.about["batch"] != batch:
        raise ValueError(f"the labels in {stored.path} are of batches of {stored.about['batch']}, not of {batch}")
    if epochs > stored.epochs:
        raise ValueError(
            f"the labels in {stored.path} are of {stored.epochs} epochs, fewer than {epochs}: lower epochs"
        )
    return Labeller(stored.views, stored=stored)


def _check_ipc(what: SyntheticSet | str, ipc: int | None) -> None:
    """ValueError for an IPC that is missing, or not that of what is evaluated; sets of unknown IPC take any."""
    if what == "random" and ipc is None:
        raise ValueError("evaluating random real images needs an IPC")
    if what == "whole" and ipc is not None:
        raise ValueError(f"whole is all training images: ipc {ipc} is for random")
    if isinstance(what, SyntheticSet) and ipc not in (None, what.metadata.get("ipc") or ipc):
        raise ValueError(f"the set has an IPC of {what.metadata['ipc']}: ipc {ipc} is for random")


def _check_protocol(name: str, published: PublishedProtocol, whole: bool, epochs: int | None) -> None:
    """ValueError for a protocol of small sets on the whole training set, unless epochs are given, and the reverse."""
    if whole and not published.of_whole and epochs is None:
        raise ValueError("a published protocol is of small sets: for whole, give the epochs too (--epochs)")
    if published.of_whole and not whole:
        raise ValueError(f"protocol {name} is of networks on the whole training set: fastdd evaluate whole")


def _check_factor(what: SyntheticSet | str, factor: int | None) -> None:
    """ValueError for another factor of multi-formation than that of what is evaluated."""
    own = what.formation if isinstance(what, SyntheticSet) else 1
    if factor not in (None, own):
        raise ValueError(
            f"the images hold {own} x {own} each: factor {factor} is not theirs, leave it out; of a file that does not "
            "say it, fastdd import --factor does"
        )


def _published_epochs(published: PublishedProtocol | None, *, augmented: bool) -> int:
    published = published or published_protocol("dc")
    return published.epochs if augmented else published.plain_epochs


@dataclass(frozen=True)
class _Trained:
    """What networks are trained on, and what it says of itself."""

    images: DeviceImages
    labels: Tensor
    dataset: Dataset
    method: str | None
    run: dict[str, Any]
    zca: Zca | None
    learning_rate: float | None
    groups: Tensor | None
    groups_from: str = ""


def _whole(data: Dataset, device: torch.device) -> _Trained:
    images = DeviceImages.of(data.train.images, data.mean, data.std, device)
    labels, groups = (torch.as_tensor(values).to(device) for values in (data.train.labels, data.train.groups))
    return _Trained(images, labels, data, "whole", {}, None, None, groups if data.num_groups > 1 else None)


def _of_set(synthetic: SyntheticSet, data: Dataset, device: torch.device, replaced_rate: float | None) -> _Trained:
    check_fits(synthetic, data)
    groups, groups_from = _groups_of(synthetic, data)
    synthetic = in_order_of(data, synthetic).decoded()
    metadata, learned = synthetic.metadata, synthetic.learning_rate
    if replaced_rate is None and learned is not None and learned <= 0:
        raise ValueError(
            f"the set's learned step size is {learned:g}, with which nothing trains; give another (--lr-net)"
        )
    if synthetic.zca is None:
        # Imported images are normalised as other code does it.
        data = replace(data, mean=tuple(metadata["mean"]), std=tuple(metadata["std"]))
    return _Trained(
        DeviceImages(synthetic.images.to(device)),
        synthetic.targets.to(device),
        data,
        metadata.get("method"),
        metadata.get("run", {}),
        synthetic.zca,
        learned,
        None if groups is None else groups.to(device),
        groups_from,
    )


def _groups_of(synthetic: SyntheticSet, data: Dataset) -> tuple[Tensor | None, str]:
    """The groups of what networks see of a set's images, and whose they are; None where nothing tells them."""
    if synthetic.groups is not None:
        last = int(synthetic.groups.max())
        if last >= data.num_groups:
            raise ValueError(f"the set's images are of groups up to {last}, and {data.name} has {data.num_groups}")
        return synthetic.decoded().groups, str(synthetic.metadata.get("groups_from", "those that the set has"))
    groups = starting_groups(synthetic, data) if data.num_groups > 1 else None
    return groups, "" if groups is None else "those of the real images that they were at first"
