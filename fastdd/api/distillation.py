"""A distillation as an object: checked once, then estimated, run, or both."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastdd import models
from fastdd.api import arguments
from fastdd.api.checks import check_callbacks, check_curve, check_dataset, check_on_the_way, check_samples
from fastdd.api.device import pick_device
from fastdd.api.evaluate import evaluation_seconds
from fastdd.api.initial import init_text, initial_of_run, read_initial
from fastdd.api.progress import shown
from fastdd.api.samples import (
    Groups,
    Weights,
    bytes_of_samples,
    clustering,
    clusters_of_run,
    read_groups,
    read_weights,
    weights_of_run,
)
from fastdd.api.signature import check_known, settings_of, with_keywords
from fastdd.core import files, plugins, ranks
from fastdd.core.settings import given
from fastdd.core.space import bytes_in, check_room
from fastdd.core.text import listed
from fastdd.data import Dataset, SyntheticSet, Zca
from fastdd.data.initial import check_ipc, describe, first_images
from fastdd.data.pictures import escaped, html_table
from fastdd.debias.density.embedding import EmbeddingSettings
from fastdd.evaluation import plan_evaluation
from fastdd.experts import Experts
from fastdd.methods import METHODS, Settings, check_steps, configure, methods_that_need_experts
from fastdd.report import preview, preview_snapshots, result_row, trained_networks
from fastdd.session import (
    Callback,
    Curve,
    Estimate,
    Progress,
    Report,
    Snapshots,
    check_out,
    run,
    snapshot_files,
    snapshot_iterations,
)
from fastdd.session import estimate as estimates
from fastdd.session.networks import check_experts, check_networks, open_networks, trained_by
from fastdd.session.run import shares
from fastdd.session.teachers import network_of_teacher, open_teacher

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import DebiasName, DistillSettings, MethodName

# A curve is of many evaluations.
_CURVE_NETS = 2


class Distillation:
    """A distillation, checked before any long work: to look at its settings, estimate it, and run it.

    Args:
        data, method, debias, ipc, device, **settings: as :func:`fastdd.distill` takes them; so are all others.

    Attributes:
        data: as given.
        settings: all of them, with those of the shipped presets (:class:`fastdd.methods.Settings`).
        experts: those given, opened.
        teacher: that of the settings, opened; None where the method has none.
        networks: those that the settings name, opened.
        device: where it runs.

    Raises:
        TypeError: data that is not a data set.
        ValueError: settings that are unknown or do not fit the data, weights or groups that change nothing.
        RuntimeError: a GPU that is not there, a file that can't be read.

    >>> import fastdd
    >>> job = fastdd.Distillation(fastdd.data.load("c-digits"), debias="fairdd", ipc=1, iterations=2, width=8)
    >>> job.settings.lr_img, job.settings.width
    (1.0, 8)
    >>> job.run().images.shape
    torch.Size([10, 3, 16, 16])
    """

    @with_keywords(settings_of(arguments.DistillSettings))
    def __init__(
        self,
        data: Dataset,
        *,
        method: MethodName = "dm",
        debias: DebiasName | None = None,
        ipc: int = 10,
        device: str = "auto",
        weights: Weights | None = None,
        groups: Groups | None = None,
        experts: Experts | str | os.PathLike | None = None,
        eval_every: int | None = None,
        eval_nets: int | None = None,
        eval_epochs: int | None = None,
        snapshots: int | None = None,
        **settings: Unpack[DistillSettings],
    ) -> None:
        check_dataset(data)
        check_known(settings.keys() - _registered_settings(method), Distillation, Distillation.run)
        self.data = data
        self.settings, self.experts, self.networks = _configured(data, method, debias, ipc, experts, settings)
        self._kind = METHODS[self.settings.method]
        check_samples(self.settings, weights, groups)
        check_curve(eval_every, eval_nets, eval_epochs)
        self._eval_every, self._eval_nets, self._eval_epochs = eval_every, eval_nets or _CURVE_NETS, eval_epochs
        check_on_the_way(self.settings, eval_every, snapshots)
        self._snapshots = [] if snapshots is None else snapshot_iterations(self.settings.iterations, snapshots)
        self.device, self._device = pick_device(device), device
        network = {"width": self.settings.width, "depth": self.settings.depth}
        models.check(self.settings.arch, data.channels, data.num_classes, data.size, **network)
        if self.experts is not None:
            check_experts(self.settings, data, self.experts)
        check_networks(self.settings, data, self.networks)
        self.teacher, self._initial = None, None
        if self._kind.by_class:
            self.teacher = open_teacher(self.settings.teacher, data, network_of(self.settings), self.device)
            self._kind(self.settings, data, self.teacher, self.device)  # which refuses what does not fit
        else:
            check_ipc(data, ipc, self.settings.init)
            check_steps(self._kind, self.settings, data)
            self._initial = read_initial(data, self.settings, self._zca)
        self._weights = None if weights is None else read_weights(data, weights)
        self._clustering, self._groups = clustering(groups), read_groups(data, groups)
        self._groups_source = Path(groups).name if isinstance(groups, str | os.PathLike) else None

    def __repr__(self) -> str:
        config = self.settings
        what = f"{config.method}, {config.debias}, {self.data.name}, IPC {config.ipc}"
        if "iterations" in type(config).model_fields:
            what += f", {config.iterations:,} iterations"
        return f"Distillation({what}, {config.arch}, {self.device})"

    def _repr_html_(self) -> str:
        """For notebooks: its settings, and the data that it is of."""
        settings = [[escaped(name), escaped(value)] for name, value in self.settings.model_dump().items()]
        table = html_table(["setting", "value"], settings)
        return f"<p><b>{escaped(repr(self))}</b></p>{self.data._repr_html_()}<details>{table}</details>"

    @property
    def _zca(self) -> Zca | None:
        return None if self.experts is None else self.experts.zca

    @property
    def _weighted(self) -> bool:
        return self._kind.takes("weights", self.settings.mode)

    def run(
        self,
        *,
        out: str | os.PathLike | None = None,
        resume: bool = False,
        checkpoint_seconds: float = 30.0,
        progress: Callable[[Progress], None] | bool | None = None,
        embedding_progress: Callable[[int, int], None] | None = None,
        eval_progress: Callable[[dict[str, Any]], None] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> SyntheticSet:
        """Do it, from its start or, with ``resume``, from the checkpoint in ``out``, to its end.

        Args:
            out, resume, checkpoint_seconds, progress, embedding_progress, eval_progress, callbacks: as
                :func:`fastdd.distill` takes them.

        Raises:
            TypeError: a callback that is none.
            ValueError: an ``out`` that holds another run, or none for snapshots, or more ranks than classes.
            RuntimeError: a loss that is not finite.
        """
        check_callbacks(callbacks)
        if isinstance(progress, bool):
            if progress:
                with shown(f"{self.settings.method} {self.settings.debias} {self.data.name}") as update:
                    return self.run(
                        out=out,
                        resume=resume,
                        checkpoint_seconds=checkpoint_seconds,
                        progress=lambda now: update(now.step, now.total, f"loss {now.loss:.4g}"),
                        embedding_progress=embedding_progress or (lambda *at: update(*at, "bias embedding")),
                        eval_progress=eval_progress,
                        callbacks=callbacks,
                    )
            progress = None
        folder = None if out is None else Path(out)
        self.check(out=folder, resume=resume)
        given = {"teacher": self.teacher}
        if not self._kind.by_class:
            initial = initial_of_run(self.data, self.settings, self._initial, self._zca, folder, resume)
            given = {"initial": initial, "experts": self.experts, "networks": self.networks}
            given["checkpoint_seconds"] = checkpoint_seconds
        weights, groups, about = self._samples(folder, resume, embedding_progress)
        written = [] if progress is None else [Report(progress)]
        written += [] if self._eval_every is None else [Curve(self._eval_every, self._figures, eval_progress)]
        written += [Snapshots(self._snapshots)] if self._snapshots else []
        synthetic = run(
            self.settings,
            self.data,
            out=folder,
            resume=resume,
            device=self.device,
            weights=weights,
            groups=groups,
            about=about,
            callbacks=[*written, *callbacks],
            **given,
        )
        if folder is not None:
            ranks.first(lambda: preview(synthetic, folder / "preview.png"))
            if self._snapshots:
                ranks.first(lambda: preview_snapshots(snapshot_files(folder), folder / "snapshots.png"))
        return synthetic

    def check(self, *, out: str | os.PathLike | None = None, resume: bool = False) -> None:
        """What :meth:`run` checks of where and on how many ranks it runs; nothing is written.

        Raises:
            ValueError, OSError: as :meth:`run`.
        """
        folder = None if out is None else Path(out)
        if self._snapshots and folder is None:
            raise ValueError("snapshots are files of the run's folder: give out too")
        if folder is not None:
            ranks.first(lambda: files.check_folder(folder, "run folder"))
            ranks.first(lambda: check_out(folder, resume, self.settings))
            ranks.first(lambda: self._check_room(folder))
        if self._kind.needs_experts:
            check_experts(self.settings, self.data, self.experts)
        if not self._kind.by_class:
            shares(self.settings, self.data)

    def _check_room(self, folder: Path) -> None:
        """TooSmallError where the disk has no space for the run's images, weights and groups.

        For those a bias embedding is trained first. The run knows of more that it needs, but only after that.
        """
        images = self._values
        found = self._weighted or self._clustering is not None
        samples = bytes_of_samples(len(self.data.train)) if found else 0
        a_value = 4 if self._kind.by_class else 16 + 4 * len(self._snapshots)
        check_room(folder, a_value * images + samples - bytes_in(folder), "the run")

    @property
    def _values(self) -> int:
        """Numbers of the synthetic images."""
        return self.settings.ipc * self.data.num_classes * self.data.channels * math.prod(self.data.size)

    def _samples(
        self, folder: Path | None, resume: bool, progress: Callable[[int, int], None] | None
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Weights and groups of the training images, where the run has them, and what the set tells of its origin."""
        records = plugins.used(self.settings.model_dump())
        about: dict[str, Any] = {"plugins": records} if records else {}
        embedding = {"seed": self.settings.seed, "device": self._device, "progress": progress}
        weights, groups = None, self._groups
        if self._weighted:
            used = weights_of_run(self.data, self._weights, folder, resume, **embedding)
            weights, about["kde"] = used.values, used.about
        for what, stored in (("experts", self.experts), ("networks", self.networks)):
            if stored is not None:
                about[what] = {"digest": stored.digest(), "number": stored.number, "epochs": stored.epochs}
        if self.networks is not None:
            about["networks"]["training"] = trained_by(self.networks)
        recipe = None if self.experts is None else self.experts.manifest["config"].get("training")
        if recipe not in (None, "erm"):  # their debias mode is the run's
            about["experts"]["training"] = recipe
        if self._groups_source is not None:
            about["groups"] = self._groups_source
        if self._clustering is not None:
            groups = clusters_of_run(self.data, self._clustering, folder, resume, **embedding)
        return weights, groups, about

    def _figures(self, synthetic: SyntheticSet) -> dict[str, Any]:
        """Of an evaluation on the way."""
        config = self.settings
        plan = plan_evaluation(
            synthetic, self.data, self.device, nets=self._eval_nets, epochs=self._eval_epochs, seed=config.seed
        )
        about = {"dataset": self.data.name, "method": config.method, "debias": config.debias, "ipc": config.ipc}
        about["trained"] = trained_networks(synthetic.metadata)
        row = result_row(plan.evaluate(), **about)
        del row["seconds"]  # what is left is the same whenever it is made
        return row

    def estimate(self, *, nets: int = 0, epochs: int | None = None) -> Estimate:
        """What :meth:`run` will take on this machine: some of its steps are done and timed, which takes about 20 s.

        Args:
            nets, epochs: of an evaluation of the result; no networks, no evaluation.
        """
        config, seconds = self.settings, {}
        if not self._kind.by_class:
            initial_of_run(self.data, config, self._initial, self._zca, None, False)
        if self._clustering is not None or (self._weighted and self._weights is None):
            seconds["bias embedding"] = estimates.bias_embedding(self.data, EmbeddingSettings(), self.device)
        seconds["distillation"], disk, notes = estimates.distillation(
            config,
            self.data,
            self.device,
            groups=self._groups,
            experts=self.experts,
            networks=self.networks,
            teacher=self.teacher,
        )
        disk += 4 * len(self._snapshots) * self._values
        if self._eval_every is not None:
            one = self._evaluation_seconds(self._eval_nets, self._eval_epochs)
            seconds["evaluations on the way"] = (1 + math.ceil(config.iterations / self._eval_every)) * one
        if nets:
            seconds["evaluation"] = self._evaluation_seconds(nets, epochs)
        return estimates.measured(seconds, disk, self.device, notes)

    def _evaluation_seconds(self, nets: int, epochs: int | None) -> float:
        config, zca = self.settings, self._zca
        synthetic = SyntheticSet(
            first_images(self.data, config.ipc, config.seed, "noise"),
            torch.arange(self.data.num_classes).repeat_interleave(config.ipc),
            describe(self.data, config.ipc, zca, method=config.method, run=config.model_dump()),
            learning_rate=getattr(config, "lr_teacher", None),
            zca=zca,
        )
        return evaluation_seconds(plan_evaluation(synthetic, self.data, self.device, nets=nets, epochs=epochs))


def _registered_settings(method: str) -> set[str]:
    """Settings of a user's method, which the generated arguments do not have."""
    if plugins.source(plugins.METHOD, method) is None:
        return set()
    return set(METHODS[method].Settings.model_fields)


def _configured(
    data: Dataset,
    method: str,
    debias: str | None,
    ipc: int,
    experts: Experts | str | os.PathLike | None,
    settings: Mapping[str, Any],
) -> tuple[Settings, Experts | None, Experts | None]:
    """Settings of a run, and its experts and trained networks, opened.

    What is not given of network, whitening and debias mode is theirs.
    """
    settings = {**settings, "init": init_text(settings.get("init"))}
    if settings.get("teacher") is not None:
        teacher = os.fspath(settings["teacher"])
        settings = {**network_of_teacher(teacher), **given(settings), "teacher": teacher}
    networks = None
    if settings.get("networks") is not None:
        networks = open_networks(settings["networks"])
        settings = {**_network(networks, settings), **given(settings), "networks": os.fspath(settings["networks"])}
    if experts is None:
        config = configure(dataset=data.name, method=method, debias=debias or "none", ipc=ipc, **settings)
        return config, None, networks
    if method in METHODS and not METHODS[method].needs_experts:
        raise ValueError(f"experts are for method {listed(methods_that_need_experts(), 'or')}, not {method}")
    experts = experts if isinstance(experts, Experts) else Experts.open(experts)
    trained = experts.manifest["config"]
    kind = METHODS.get(method)
    theirs = {"zca": experts.zca is not None} if kind and "zca" in kind.Settings.model_fields else {}
    settings = {**theirs, **_network(experts, settings), **given(settings)}
    debias = debias or (trained["debias"] if kind and kind.debias_of_experts else "none")
    config = configure(dataset=data.name, method=method, debias=debias, ipc=ipc, **settings)
    return config, experts, networks


def network_of(config: Any) -> dict[str, Any]:
    """``arch``, ``width`` and ``depth`` of settings."""
    return {"arch": config.arch, "width": config.width, "depth": config.depth}


def _network(stored: Experts, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The network of stored ones, where the settings name none."""
    names = ("arch", "width", "depth")
    if any(settings.get(name) is not None for name in names):
        return {}
    return {name: stored.manifest["config"][name] for name in names}
