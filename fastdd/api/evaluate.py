"""``evaluate``: fresh networks, trained on a set, tested on real images."""

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from fastdd import models
from fastdd.api import arguments
from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
from fastdd.api.exchange import load_synthetic
from fastdd.api.progress import shown
from fastdd.api.relabel import labels_of
from fastdd.api.samples import Groups
from fastdd.api.signature import check_known, settings_of, with_keywords
from fastdd.core import files, ranks
from fastdd.data import Dataset, SyntheticSet
from fastdd.debias.density import kde
from fastdd.evaluation import DoubtfulFigures, Evaluation, EvaluationPlan, GroupCounts, plan_evaluation
from fastdd.evaluation.audit import probe_groups
from fastdd.session import Estimate
from fastdd.session import estimate as estimates
from fastdd.session.teachers import network_of_teacher
from fastdd.session.trained import network_file, save_evaluated
from fastdd.training import RECIPES, recipe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import EvaluateSettings, RecipeName

# Sets that are made of a data set; a string that is none of them is a path.
_OF_DATA: tuple[Literal["random", "whole"], ...] = ("random", "whole")
# In place of groups: those that the audit's probe tells.
_PROBE = "probe"


def evaluate(
    what: SyntheticSet | str | os.PathLike,
    data: Dataset,
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
    training: "RecipeName | None" = None,
    constants: Mapping[str, Any] | None = None,
    groups: Groups | None = None,
    teacher: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int, float], None] | bool | None = None,
    keep_nets: str | os.PathLike | None = None,
) -> Evaluation:
    """Train fresh networks on a set and test them on the data set's test split.

    A set's soft labels are what they are trained to; test images are normalised, or whitened, as the set's images are.

    Args:
        what: a synthetic set, or the path of one or of a run folder; "random" for ``ipc`` real images per class,
            "whole" for the whole training split.
        data: the data set to test on (and to draw "random" and "whole" from).
        ipc: for "random".
        nets: networks, each from its own initialisation; by default the protocol's, else 5.
        protocol: a published one by name (:data:`fastdd.evaluation.PROTOCOLS`): dc, fairdd, mtt, idc, ncfm, rded,
            dcbench, ddranking (whose scores :func:`fastdd.rank` gives), or biased-dd, which is of "whole"; sets
            ``nets`` and ``epochs`` where they are not given, and dc and fairdd the augmentation that DC's code has for
            its sets of MNIST and for ConvNetBN where ``dsa_strategy`` is not; idc its own training (CutMix, batch,
            learning rate over time), and rded that to a teacher's labels.
        arch, width, depth: the network; by default the one that the set was distilled with.
        epochs: 1000 by default with augmentation and 300 without, as published; 20 for "whole".
        dsa_strategy: augmentation while training; by default the one that the set was distilled with.
        learning_rate: of the networks; by default the step size learned with the set, if it has one, else 0.01.
        factor: of multi-formation (IDC): the set's own, which decodes its images anyway; another is refused.
        training: the recipe by which networks are trained (:data:`fastdd.training.RECIPES`), with the protocol's own
            optimiser; by default plain training (erm). Groups of a synthetic set's images are those that are given,
            else those of the set (:attr:`fastdd.data.SyntheticSet.groups`), else those of the real images that it
            started from, where it started from single ones. The result says whose it were.
        constants: of the recipe, in place of its defaults.
        groups: of a synthetic set's images, for recipes that look at them: int64 [M] from 0, or the path of such a
            ``.npy``; or "probe", those that the probe of :func:`audit` tells, a network that learns the groups of the
            training images.
        teacher: of protocol rded, a trained network whose labels are learned: a folder or file of
            :func:`train_network`, experts (the first, as it ended), or a file of weights of the set's teacher's network
            (of ``arch`` where no set says it); by default the set's own. Of random images with hard labels it says
            only which network is trained.
        labels: of protocol rded: teacher (the default), hard for the images' classes, or the path of a file of
            :func:`relabel`.
        seed: initialisations, orders and augmentations are functions of it.
        device: auto, cpu or cuda.
        progress: True shows it as :func:`distill` does; a function is called with (networks done, networks, their mean
            accuracy so far).
        keep_nets: folder for the trained networks, ``ARCH-NUMBER.safetensors``, which :func:`load_network` and
            :func:`explain` read; each says how it was trained, and what it got right.

    Returns:
        Counts per class and group of every network; ``.summary()`` has accuracy, DEO_M, DEO_A, WA and BA.

    Raises:
        ValueError: a set whose images or classes do not fit the data, or with values that are not finite, a learned
            step size that is not positive and not replaced, another ``factor`` than the set's, a protocol for whole
            without ``epochs``, a recipe that needs groups, classes or validation images that there are not, settings
            that are not allowed, or a ``keep_nets`` that holds networks of that name.

    Warns:
        RuntimeWarning: networks that diverged or learned nothing, test cells of fewer than 10 images, or a set that may
            have been made from the images that it is tested on (another ``val_split``); they are in ``.warnings`` too.
    """
    check_dataset(data)
    opened, target = _opened(what), pick_device(device)
    plan = planned_evaluation(
        _with_groups(opened, groups, data, training, target),
        data,
        target,
        ipc=ipc,
        nets=nets,
        protocol=protocol,
        arch=arch,
        width=width,
        depth=depth,
        epochs=epochs,
        dsa_strategy=dsa_strategy,
        learning_rate=learning_rate,
        factor=factor,
        training=training,
        constants=constants,
        teacher=teacher,
        labels=labels,
        seed=seed,
    )
    keep = None if keep_nets is None else _keeping(Path(keep_nets), plan, _told(opened, data, ipc))
    if progress is True:
        with shown(f"evaluating on {data.name}") as update:
            update(0, plan.nets, "networks")
            result = plan.evaluate(
                lambda done, nets, mean: update(done, nets, f"networks, accuracy {mean:.1f} so far"), keep
            )
    else:
        result = plan.evaluate(progress or None, keep)
    for line in result.warnings:
        warnings.warn(line, DoubtfulFigures, stacklevel=2)
    return result


def _keeping(folder: Path, plan: EvaluationPlan, told: dict[str, Any]) -> Callable[[int, nn.Module, GroupCounts], None]:
    """What keeps a network in the folder, which is made; ``told``: what it says that it was trained on."""
    ranks.first(lambda: check_keep_nets(folder, plan.arch))
    ranks.first(lambda: folder.mkdir(parents=True, exist_ok=True))
    arch = models.canonical_name(plan.arch)

    def keep(number: int, net: nn.Module, counts: GroupCounts) -> None:
        save_evaluated(network_file(folder, arch, number), net, counts, plan, number, told)

    return keep


def planned_evaluation(
    what: SyntheticSet | Literal["random", "whole"],
    data: Dataset,
    device: torch.device,
    *,
    teacher: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    **settings: Any,
) -> EvaluationPlan:
    """:func:`fastdd.evaluation.plan_evaluation`, whose teacher and labels are opened.

    Networks on images that are of no set are the teacher's where no ``arch`` is given, as those on its sets are; with
    hard labels that is all that the teacher is for.
    """
    if what == "random" and labels == "hard" and teacher is not None:
        if settings.get("arch") is None:
            settings |= network_of_teacher(teacher)
        teacher = None
    network = {name: settings.get(name) for name in ("arch", "width", "depth")}
    opened = labels_of(what, data, device, settings.get("protocol"), teacher, labels, network)
    if what == "random" and settings.get("arch") is None and opened.get("teacher") is not None:
        settings |= opened["teacher"].network
    return plan_evaluation(what, data, device, **settings, **opened)


def check_keep_nets(folder: Path, arch: str) -> None:
    """ValueError where the folder has networks of this name, OSError where it can't be written; it is not made yet."""
    name = models.canonical_name(arch)
    there = sorted(folder.glob(f"{name}-*.safetensors"))
    if there:
        raise ValueError(f"{folder} already holds networks ({there[0].name}); give another folder to keep these in")
    files.check_folder(folder)
    if folder.is_dir():
        files.check_writable(network_file(folder, name, 0))


def _told(what: SyntheticSet | str, data: Dataset, ipc: int | None) -> dict[str, Any]:
    """What a kept network says that it was trained on."""
    about: dict[str, Any] = {"dataset": data.name, "method": what, "debias": "none", "ipc": ipc}
    if isinstance(what, SyntheticSet):
        about |= {name: what.metadata.get(name) for name in ("method", "debias", "ipc")}
    return about


@with_keywords(settings_of(arguments.EvaluateSettings))
def estimate_evaluation(
    what: SyntheticSet | str | os.PathLike,
    data: Dataset,
    *,
    device: str = "auto",
    **settings: "Unpack[EvaluateSettings]",
) -> Estimate:
    """What :func:`evaluate` with these arguments will take on this machine (:func:`estimate`)."""
    check_dataset(data)
    check_known(settings, estimate_evaluation)
    target, began = pick_device(device), time.perf_counter()
    groups = settings.pop("groups", None)
    told = _with_groups(_opened(what), groups, data, settings.get("training"), target)
    seconds = {"group probe": time.perf_counter() - began} if groups == _PROBE else {}
    plan = planned_evaluation(told, data, target, **settings)
    return estimates.measured({**seconds, "evaluation": evaluation_seconds(plan)}, 0, target)


def _with_groups(
    what: SyntheticSet | Literal["random", "whole"],
    groups: Groups | None,
    data: Dataset,
    training: str | None,
    device: torch.device,
) -> SyntheticSet | Literal["random", "whole"]:
    """A set with the groups of its images; ValueError where they are none, or of real images, whose are known."""
    if groups is None:
        return what
    if not isinstance(what, SyntheticSet):
        raise ValueError(f"groups are of the images of a synthetic set; those of {what} are the data set's")
    if isinstance(groups, str) and groups == _PROBE:
        if training is None or not recipe(training).needs_groups:
            able = ", ".join(name for name, kind in RECIPES.items() if kind.needs_groups)
            raise ValueError(f"groups probe is for a training that looks at groups ({able}), not {training or 'erm'}")
        told, probe = ranks.first(lambda: probe_groups(data, what, device=device))
        source = f"those that a probe tells, whose accuracy is {probe.accuracy:.1f} %"
        return replace(what, groups=told, metadata=what.metadata | {"groups_from": source})
    source = "given"
    if not isinstance(groups, np.ndarray):
        source, groups = f"given, of {Path(groups).name}", kde.load_array(Path(groups))
    if groups.dtype != np.int64:
        raise ValueError(f"groups of the set's images must be int64, not {groups.dtype}")
    return replace(what, groups=torch.from_numpy(groups), metadata=what.metadata | {"groups_from": source})


def evaluation_seconds(plan: EvaluationPlan) -> float:
    """What the plan's evaluation will take."""
    return estimates.evaluation(
        plan.images,
        plan.labels,
        plan.dataset,
        nets=plan.nets,
        protocol=plan.protocol,
        zca=plan.zca,
        groups=plan.groups,
        labeller=plan.labeller,
        **plan.network,
    )


def _opened(what: SyntheticSet | str | os.PathLike) -> SyntheticSet | Literal["random", "whole"]:
    if isinstance(what, SyntheticSet):
        return what
    for name in _OF_DATA:
        if what == name:
            return name
    return load_synthetic(what)
