"""``rank``: the scores of DD-Ranking."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
from fastdd.api.exchange import load_synthetic
from fastdd.api.relabel import teacher_of
from fastdd.data import Dataset, SyntheticSet
from fastdd.data.initial import random_set
from fastdd.data.sets.variants import varied
from fastdd.evaluation import in_order_of, plan_evaluation
from fastdd.evaluation.ranking import RATES, WHOLE_EPOCHS, OwnLabels, Ranking, RankingPlan
from fastdd.methods import METHODS, Teacher, preset

_PROTOCOL, _OF_VIEWS = "ddranking", "rded"
_HELD_OUT = 0.1


def rank(
    what: SyntheticSet | str | os.PathLike,
    data: Dataset,
    *,
    ipc: int | None = None,
    rounds: int | None = None,
    arch: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    whole_epochs: int | None = None,
    dsa_strategy: str | None = None,
    learning_rate: float | None = None,
    rates: Sequence[float] | None = None,
    teacher: str | os.PathLike | None = None,
    labels: Literal["hard", "teacher"] | None = None,
    compat: bool = False,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int, str], None] | None = None,
) -> Ranking:
    """Score a set as DD-Ranking does (HLR, IOR, LRS, ARS): beside the whole training split and random real images.

    In fractions, at the last epoch and at the best, for accuracy and for the worst group, the mean over groups and DEO
    (:mod:`fastdd.evaluation.scores`). Rates and best epochs are chosen on validation images: the data set's, or a tenth
    of every class and group of its training images, which nothing is then trained on; the test images are looked at
    when both are chosen.

    Args:
        what: a synthetic set, or the path of one or of a run folder; "random" for ``ipc`` random real images a class,
            whose IOR is 0 but for chance.
        data: the data set.
        ipc: for "random".
        rounds: networks on each, every time with other random images; by default 5.
        arch, width, depth: the network; by default the one that the set was distilled with.
        epochs: on the set and on random images; by default 300.
        whole_epochs: on the whole training split; by default 200, or ``epochs`` where these are fewer.
        dsa_strategy: augmentation while training, in all but "plain"; by default that of the set, or of the data set's
            preset where that is none.
        learning_rate: of networks on the set with its own labels; by default the step size that was learned with it,
            else the best of ``rates``.
        rates: that are tried where none is known, on random images always; by default 0.001, 0.005, 0.01, 0.05 and 0.1.
        teacher: of sets that hold soft labels, who labels random images: as :func:`evaluate` takes it; by default each
            round's network on the whole training split. Of labels "teacher", by default the set's own.
        labels: what the set's own labels are: by default the soft labels that it holds; else, of methods rded and
            sre2l, a teacher's of every view (teacher), as protocol rded has them; else its classes (hard).
        compat: whether the test images are looked at on the way too, for :meth:`Ranking.compat`, the public package's
            figures.
        seed: every draw is a function of it.
        device: auto, cpu or cuda.
        progress: called with (trainings done, trainings, what the last has found).

    Returns:
        ``.summary()`` and ``.summary("best")`` have mean, deviation and 95 % interval over rounds of every score.

    Raises:
        ValueError: what :func:`evaluate` refuses of a set; rates that are not positive; labels of a teacher that there
            is none of; a data set without test images beside its validation images (option ``val_split``).
    """
    check_dataset(data)
    settings = {"arch": arch, "width": width, "depth": depth, "epochs": epochs, "seed": seed}
    plan = planned_ranking(
        what,
        data,
        ipc=ipc,
        rounds=rounds,
        whole_epochs=whole_epochs,
        dsa_strategy=dsa_strategy,
        learning_rate=learning_rate,
        rates=rates,
        teacher=teacher,
        labels=labels,
        compat=compat,
        device=device,
        **settings,
    )
    return plan.rank(progress)


def planned_ranking(
    what: SyntheticSet | str | os.PathLike,
    data: Dataset,
    *,
    ipc: int | None,
    rounds: int | None,
    whole_epochs: int | None,
    dsa_strategy: str | None,
    learning_rate: float | None,
    rates: Sequence[float] | None,
    teacher: str | os.PathLike | None,
    labels: str | None,
    compat: bool,
    device: str,
    seed: int,
    **network: object,
) -> RankingPlan:
    """What :func:`rank` does, with the same arguments, before it is done."""
    target, data = pick_device(device), _with_validation(data)
    tried = _checked(rates or RATES)
    if what == "random":
        if ipc is None:
            raise ValueError("scores of random real images need an IPC")
        synthetic = random_set(data, ipc, seed)
    else:
        synthetic = what if isinstance(what, SyntheticSet) else load_synthetic(what)
    of_set = plan_evaluation(
        synthetic,
        data,
        target,
        nets=rounds,
        protocol=_PROTOCOL,
        dsa_strategy=dsa_strategy,
        learning_rate=learning_rate,
        seed=seed,
        **network,
    )
    if dsa_strategy is None and of_set.protocol.dsa_strategy == "none":  # or ARS would compare nothing
        usual = preset("dm", data.name, 1)["dsa_strategy"]
        of_set = replace(of_set, protocol=replace(of_set.protocol, dsa_strategy=usual))
    own = _own_labels(synthetic, labels)
    opened = _opened(teacher, own, synthetic, data, target, network)
    known = learning_rate or synthetic.learning_rate
    relabelled = None
    if own == "teacher":
        how = {**of_set.network, "epochs": of_set.protocol.epochs, "learning_rate": learning_rate, "seed": seed}

        def relabelled(one: SyntheticSet):
            return plan_evaluation(one, of_set.dataset, target, protocol=_OF_VIEWS, teacher=opened, **how)

    return RankingPlan(
        in_order_of(data, synthetic).decoded(),
        of_set,
        ipc=synthetic.metadata.get("ipc") or math.ceil(len(synthetic.labels) / data.num_classes),
        labels=own,
        rates=tried,
        own_rates=tried if known is None or own == "teacher" else (known,),
        whole_epochs=whole_epochs or min(WHOLE_EPOCHS, of_set.protocol.epochs),
        relabelled=relabelled,
        teacher=opened,
        by_test=compat,
    )


def _opened(
    teacher: str | os.PathLike | None,
    own: OwnLabels,
    synthetic: SyntheticSet,
    data: Dataset,
    target: torch.device,
    network: Mapping[str, Any],
) -> Teacher | None:
    """The teacher of labels that are its, or None; ValueError where one is given and labels are hard."""
    if own != "hard" and (teacher is not None or own == "teacher"):
        return teacher_of(synthetic, data, target, teacher, network)
    if teacher is not None:
        raise ValueError(
            f"teacher {teacher} is for soft labels, and these are hard: leave it out, or give labels teacher"
        )
    return None


def _own_labels(synthetic: SyntheticSet, labels: str | None) -> OwnLabels:
    if labels not in (None, "hard", "teacher"):
        raise ValueError(
            f"labels of protocol {_PROTOCOL} are hard or teacher, not {labels!r}; a file is for {_OF_VIEWS}"
        )
    if labels is not None:
        return labels
    if synthetic.soft_labels is not None:
        return "soft"
    method = METHODS.get(synthetic.metadata.get("method"))
    return "teacher" if method is not None and method.by_class else "hard"


def _with_validation(data: Dataset) -> Dataset:
    if data.tested_on != "test":
        raise ValueError(
            f"protocol {_PROTOCOL} chooses by held-out images and tests on the test images: leave val_split out"
        )
    return data if data.validation is not None else varied(data, validation=_HELD_OUT)


def _checked(rates: Sequence[float]) -> tuple[float, ...]:
    for value in rates:
        if not 0 < value < math.inf:
            raise ValueError(f"learning rates must be positive, not {value}")
    return tuple(rates)
