"""``experts``: networks trained on the real data, for trajectory matching."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdd import experts as training
from fastdd import models
from fastdd.api import arguments
from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
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
from fastdd.api.signature import settings_of, with_keywords
from fastdd.core import ranks
from fastdd.core.text import listed
from fastdd.data import Dataset, Zca
from fastdd.debias import mode, modes_that_need
from fastdd.debias.density.embedding import EmbeddingSettings
from fastdd.experts import ExpertProgress, Experts, ExpertSettings
from fastdd.experts.buffers import import_buffers
from fastdd.experts.training import describe_experts
from fastdd.session import Estimate
from fastdd.session import estimate as estimates
from fastdd.training import recipe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import ExpertDebiasName, TrainExpertsSettings


@with_keywords(settings_of(arguments.TrainExpertsSettings))
def train_experts(
    data: Dataset,
    *,
    out: str | os.PathLike,
    debias: "ExpertDebiasName" = "none",
    ipc: int = 10,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    weights: Weights | None = None,
    groups: Groups | None = None,
    progress: Callable[[ExpertProgress], None] | None = None,
    embedding_progress: Callable[[int, int], None] | None = None,
    **settings: "Unpack[TrainExpertsSettings]",
) -> Experts:
    """Train experts for trajectory matching: networks on all real images, stored after every epoch.

    Args:
        data: from :func:`fastdd.data.load`, or built by hand.
        out: folder of the trajectories (:class:`fastdd.experts.Experts`).
        debias: where the bias of trajectory matching enters is the experts' loss. none; fairdd to let every protected
            group of a class count alike in it; kde to let images count by ``weights``.
        ipc: of the distillation that the experts are for, which published settings depend on.
        resume: continue what ``out`` holds; bit-identical to uninterrupted training on the same number of threads.
        device: auto, cpu or cuda.
        processes: that train experts side by side, and share this one's threads.
        weights, groups, embedding_progress: as :func:`distill` takes them.
        progress: called after every epoch of an expert with a :class:`fastdd.experts.ExpertProgress`.
        **settings: any other field of :class:`fastdd.experts.ExpertSettings` (num_experts, epochs, lr_teacher, arch,
            zca, dtype, eval_every, seed ...); what is not given comes from the shipped presets.

    Raises:
        TypeError: data that is not a data set.
        ValueError: settings that are unknown or do not fit the data, or an ``out`` that holds other experts.
        RuntimeError: an expert that diverged, or a GPU that is not there.
        OSError: too little space on the disk.

    >>> import fastdd, tempfile
    >>> data = fastdd.data.load("c-digits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trained = fastdd.train_experts(data, out=folder, debias="fairdd", num_experts=2, epochs=1, width=4)
    >>> trained.number, trained.epochs, trained.manifest["parameters"][0]
    (2, 1, {'name': 'features.0.weight', 'shape': [4, 3, 3, 3]})
    """
    given = {"debias": debias, "ipc": ipc, "weights": weights, "groups": groups, **settings}
    config = check_experts(data, out=out, resume=resume, device=device, **given)
    target, folder = pick_device(device), Path(out)
    training.check_processes(processes)
    given = None if weights is None else read_weights(data, weights)
    embedding = {"seed": config.seed, "device": device, "progress": embedding_progress}
    about: dict[str, Any] = {}
    of_images, of_groups = None, read_groups(data, groups)
    if mode(debias).needs == "weights":
        used = weights_of_run(data, given, folder, resume, **embedding)
        of_images, about["kde"] = used.values, used.about
    if isinstance(groups, str | os.PathLike):
        about["groups"] = Path(groups).name
    method = clustering(groups)
    if method is not None:
        of_groups = clusters_of_run(data, method, folder, resume, **embedding)
    return training.train_experts(
        config,
        data,
        out=folder,
        resume=resume,
        device=target,
        processes=processes,
        weights=of_images,
        groups=of_groups,
        progress=progress,
        about=about,
    )


def check_experts(
    data: Dataset,
    *,
    out: str | os.PathLike,
    resume: bool = False,
    debias: str = "none",
    ipc: int = 10,
    device: str = "auto",
    weights: Weights | None = None,
    groups: Groups | None = None,
    **settings: Any,
) -> ExpertSettings:
    """What :func:`train_experts` checks before any work, and the settings that it trains with; nothing is written."""
    config = _configured(data, debias, ipc, weights, groups, settings)
    pick_device(device)
    folder = Path(out)
    ranks.first(lambda: training.check_experts_out(folder, resume, config))
    found = mode(debias).needs == "weights" or clustering(groups) is not None
    samples = bytes_of_samples(len(data.train)) if found else 0
    ranks.first(lambda: training.check_experts_room(folder, config.model_dump(), data, samples))
    return config


@with_keywords(settings_of(arguments.TrainExpertsSettings))
def estimate_experts(
    data: Dataset,
    *,
    debias: "ExpertDebiasName" = "none",
    ipc: int = 10,
    device: str = "auto",
    weights: Weights | None = None,
    groups: Groups | None = None,
    **settings: "Unpack[TrainExpertsSettings]",
) -> Estimate:
    """What :func:`train_experts` with these arguments will take on this machine, in one process (:func:`estimate`)."""
    config = _configured(data, debias, ipc, weights, groups, settings)
    target = pick_device(device)
    seconds: dict[str, float] = {}
    if (mode(debias).needs == "weights" and weights is None) or clustering(groups):
        seconds["bias embedding"] = estimates.bias_embedding(data, EmbeddingSettings(), target)
    found = read_groups(data, groups)
    if found is None and clustering(groups):  # whatever they are found to be, they cost the same
        found = np.arange(len(data.train)) % 2
    parts, disk = estimates.experts(config, data, target, found)
    return estimates.measured({**seconds, **parts}, disk, target)


def _configured(
    data: Dataset, debias: str, ipc: int, weights: object, groups: object, settings: "TrainExpertsSettings"
) -> ExpertSettings:
    """Settings of expert training; ValueError for those, or weights or groups, that do not fit the data or mode."""
    check_dataset(data)
    config = ExpertSettings.configure(dataset=data.name, ipc=ipc, debias=debias, **settings)
    by_group = recipe(config.training).needs_groups
    for name, given in (("weights", weights), ("groups", groups)):
        if given is not None and mode(debias).needs != name and not (name == "groups" and by_group):
            able = [other for other in modes_that_need(name) if mode(other).in_training is not None]
            raise ValueError(f"{name} are for debias {listed(able, 'or')}, not {debias}")
    if by_group and groups is None and data.num_groups < 2:
        raise ValueError(f"training {config.training} looks at groups, and {data.name} has one")
    models.check(config.arch, data.channels, data.num_classes, data.size, width=config.width, depth=config.depth)
    return config


def import_experts(
    paths: Sequence[str | os.PathLike],
    data: Dataset,
    *,
    out: str | os.PathLike,
    debias: "ExpertDebiasName" = "none",
    training: str = "erm",
    arch: str = "ConvNet",
    width: int | None = None,
    depth: int | None = None,
    zca: bool = False,
    dtype: str = "fp32",
    device: str = "auto",
) -> Experts:
    """Make a folder of trajectories from published buffers (``replay_buffer_*.pt``), bit for bit in fp32.

    Args:
        paths: the files, in the order that their experts shall have.
        data: what the experts were trained on: its classes and image size are checked, as far as parameters show them.
        out: the folder; must be empty or absent.
        debias, training: what the experts were trained with.
        arch, width, depth: their network.
        zca: whether they saw whitened images; the published whitening is fitted on ``data``.
        dtype: fp32, or bf16 for half the space.
        device: where the whitening is fitted.

    Raises:
        ValueError: an ``out`` that is not empty, a file that is no buffer, or one of another network.
        RuntimeError: a damaged file, or one that holds more than tensors, which is not read.
    """
    check_dataset(data)
    target = pick_device(device)
    known = {
        "dataset": data.name,
        "debias": debias,
        "training": training,
        "arch": arch,
        "width": width,
        "depth": depth,
        "zca": zca,
    }
    config = ExpertSettings.configure(**known, dtype=dtype).model_dump()
    # The rest is not in the files.
    config = {name: config[name] if name in known or name == "dtype" else None for name in config}
    manifest = {
        **describe_experts(config, data),
        "dataset_digest": None,
        "imported": [Path(path).name for path in paths],
    }
    return import_buffers(paths, out, manifest, (lambda: Zca.fit(data.train.images, device=target)) if zca else None)
