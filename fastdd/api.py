"""The Python interface: the same words as the commands.

In a script that torchrun started, every rank makes the same calls with the same arguments; the ranks share the work,
and all get the result. Rank 0 writes the files and calls ``progress``.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdd import data as datasets
from fastdd import exchange, models
from fastdd.core import files, ranks
from fastdd.core.files import GROUPS, WEIGHTS
from fastdd.core.version import __version__
from fastdd.data import Dataset, DeviceImages, SyntheticSet, Zca
from fastdd.data.initial import check_ipc, random_set
from fastdd.debias import mode, modes_that_need
from fastdd.debias.density import kde
from fastdd.debias.density.clusters import METHODS as CLUSTERINGS
from fastdd.debias.density.clusters import ClusterSettings
from fastdd.debias.density.clusters import pseudo_groups as _pseudo_groups
from fastdd.debias.density.embedding import EmbeddingSettings, embed, train_embedding
from fastdd.evaluation import Evaluation, Protocol, PublishedProtocol, dc_strategy, published_protocol
from fastdd.evaluation import evaluate as _evaluate
from fastdd.experts import ExpertProgress, ExpertSettings, check_experts_out, describe_experts
from fastdd.experts import train_experts as _train_experts
from fastdd.experts.buffers import import_buffers
from fastdd.experts.store import Experts
from fastdd.methods import METHODS, Settings, configure, methods_that_need_experts, preset
from fastdd.report import preview, result_row
from fastdd.session import Callback, Curve, Estimate, Progress, Report, check_out
from fastdd.session import estimate as estimates
from fastdd.session import run as _run
from fastdd.session.run import check_groups

# Training on everything needs fewer passes than training on a few images.
_NETS = 5
_WHOLE_EPOCHS = 20
# A curve is of many evaluations.
_CURVE_NETS = 2


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is the GPU if there is one; RuntimeError if a GPU is asked for by name and there is none.

    A rank of a job gets a GPU of its own: that of its number on the machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; one of: auto, cpu, cuda, cuda:N") from None
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise RuntimeError(f"device {name} was asked for, but this torch ({torch.__version__}) sees no GPU")
    return device if ranks.world() == 1 else _gpu_of_rank(device)


def _gpu_of_rank(device: torch.device) -> torch.device:
    if device.index is not None:
        raise ValueError(f"device {device} is one GPU, and each of the {ranks.world()} ranks takes its own: give cuda")
    number, there = ranks.local_rank(), torch.cuda.device_count()
    if number >= there:
        raise RuntimeError(
            f"this machine has {there} GPU{'s' if there > 1 else ''}, fewer than ranks: start fewer, or give device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def distill(
    data: Dataset,
    *,
    method: str = "dm",
    debias: str | None = None,
    ipc: int = 10,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    progress: Callable[[Progress], None] | None = None,
    weights: kde.KdeWeights | np.ndarray | torch.Tensor | str | os.PathLike | None = None,
    groups: np.ndarray | str | os.PathLike | None = None,
    experts: Experts | str | os.PathLike | None = None,
    embedding_progress: Callable[[int, int], None] | None = None,
    eval_every: int | None = None,
    eval_nets: int | None = None,
    eval_epochs: int | None = None,
    eval_progress: Callable[[dict[str, Any]], None] | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> SyntheticSet:
    """Condense a data set into a few synthetic images per class.

    Args:
        data: from :func:`fastdd.data.load`, or built by hand.
        method: dm (distribution matching), dc (gradient matching), dsa (the same with Siamese augmentation), or mtt
            (trajectory matching, which needs ``experts``).
        debias: none (the default); fairdd to match every protected group alike (fairdd-iw, fairdd-ldam and
            fairdd-groupdro are the weightings of its ablation); kde to let images count by ``weights``. That of mtt is
            its experts'.
        ipc: synthetic images per class.
        out: run folder, for the set, a preview, metrics and checkpoints; None keeps everything in memory.
        resume: continue the run that ``out`` holds; the result is bit-identical to an uninterrupted run's.
        device: auto, cpu or cuda.
        checkpoint_seconds: least time between two checkpoints.
        progress: called about once a second with a :class:`fastdd.session.Progress`.
        weights: of the training images, for debias kde: from :func:`kde_weights`, an array [N] (at least 0, some above
            0 in every class), or the path of either (``.safetensors``, ``.npy``). None: those in the folder of a run
            that is resumed, else those of :func:`kde_weights` with its defaults.
        groups: in place of the training images' protected attribute: int64 [N] from 0, the path of such a ``.npy``, or
            kmeans or dbscan for those that :func:`pseudo_groups` finds.
        experts: of mtt, trained on ``data``: from :func:`train_experts`, or their folder. The network is theirs.
        embedding_progress: called with (steps done, steps) while a bias embedding is trained for either.
        eval_every: evaluate the set on the way, as :func:`evaluate` does with the run's seed: before the first step,
            after every so many iterations, and at the end. The figures go to ``evaluations.jsonl`` in ``out``, a row an
            evaluation. They are of the data set's test split (of validation images with its option ``val_split``), so
            that the best of them is no result. The set does not depend on them, nor does ``resume``, which goes on
            with other ``eval_`` arguments too.
        eval_nets: networks of each of these evaluations; by default 2.
        eval_epochs: of each network; by default as published. An evaluation takes ``eval_nets`` trainings of so many
            epochs on the set, with the published 1,000 often longer than the steps between two: two networks on 10
            images a class of ``c-digits`` 20 s on a core, as 500 iterations of dm do. :func:`estimate` knows.
        eval_progress: called with each of these rows: ``iteration``, and what :func:`fastdd.report.result_row` has but
            ``seconds``.
        callbacks: further :class:`fastdd.session.Callback`; the set must not depend on them.
        **settings: any other field of :class:`fastdd.methods.Settings` (iterations, arch, batch_real, lr_img,
            dsa_strategy, sampling, seed ...); what is not given comes from the shipped presets.

    Returns:
        The synthetic set: normalised float32 images, labels, and metadata that says how to use them; with mtt also the
        learned step size, soft labels and ZCA where there are any.

    Raises:
        ValueError: settings that are unknown or do not fit the data, or an ``out`` that holds another run.
        RuntimeError: a loss that is not finite, or a GPU that is not there.

    >>> import fastdd
    >>> data = fastdd.data.load("c-digits")
    >>> synthetic = fastdd.distill(data, debias="fairdd", ipc=1, iterations=2, width=8)
    >>> synthetic.images.shape
    torch.Size([10, 3, 16, 16])
    """
    config, experts = _configuration(data, method, debias, ipc, experts, weights, groups, settings)
    curve = _curve(data, config, device, eval_every, eval_nets, eval_epochs, eval_progress)
    target = pick_device(device)
    check_ipc(data, ipc)
    folder = None if out is None else Path(out)
    if folder is not None:
        ranks.first(lambda: check_out(folder, resume))
    embedding = {"seed": config.seed, "device": device, "progress": embedding_progress}
    about: dict[str, Any] = {}
    if METHODS[config.method].takes("weights", config.mode):
        weights, about["kde"] = _training_weights(data, weights, folder and folder / WEIGHTS, resume, **embedding)
    if experts is not None:
        about["experts"] = {"digest": experts.digest(), "number": experts.number, "epochs": experts.epochs}
    if isinstance(groups, str | os.PathLike):
        about["groups"] = Path(groups).name
    groups = _training_groups(data, groups, folder and folder / GROUPS, resume, **embedding)
    synthetic = _run(
        config,
        data,
        out=out,
        resume=resume,
        device=target,
        checkpoint_seconds=checkpoint_seconds,
        weights=weights,
        groups=groups,
        experts=experts,
        about=about,
        callbacks=[*([] if progress is None else [Report(progress)]), *([] if curve is None else [curve]), *callbacks],
    )
    if out is not None:
        ranks.first(lambda: preview(synthetic, Path(out) / "preview.png"))
    return synthetic


def _check_curve(every: int | None, nets: int | None, epochs: int | None) -> None:
    for name, given in (("eval_every", every), ("eval_nets", nets), ("eval_epochs", epochs)):
        if given is not None and every is None:
            raise ValueError(f"{name} {given} is of evaluations on the way: give eval_every too")
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1, not {given}")


def _curve(
    data: Dataset,
    config: Settings,
    device: str,
    every: int | None,
    nets: int | None,
    epochs: int | None,
    progress: Callable[[dict[str, Any]], None] | None,
) -> Curve | None:
    """The evaluations on the way that :func:`distill` is asked for."""
    _check_curve(every, nets, epochs)
    if every is None:
        return None

    def figures(made: SyntheticSet) -> dict[str, Any]:
        found = evaluate(made, data, nets=nets or _CURVE_NETS, epochs=epochs, seed=config.seed, device=device)
        row = result_row(found, dataset=data.name, method=config.method, debias=config.debias, ipc=config.ipc)
        del row["seconds"]  # what is left is the same whenever it is made
        return row

    return Curve(every, figures, progress)


def train_experts(
    data: Dataset,
    *,
    out: str | os.PathLike,
    debias: str = "none",
    ipc: int = 10,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    weights: kde.KdeWeights | np.ndarray | torch.Tensor | str | os.PathLike | None = None,
    groups: np.ndarray | str | os.PathLike | None = None,
    progress: Callable[[ExpertProgress], None] | None = None,
    embedding_progress: Callable[[int, int], None] | None = None,
    **settings: Any,
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
    config = ExpertSettings.configure(dataset=data.name, ipc=ipc, debias=debias, **settings)
    target, folder = pick_device(device), Path(out)
    ranks.first(lambda: check_experts_out(folder, resume))
    for name, given in (("weights", weights), ("groups", groups)):
        if given is not None and mode(debias).needs != name:
            raise ValueError(f"{name} are for debias {' or '.join(modes_that_need(name))}, not {debias}")
    embedding = {"seed": config.seed, "device": device, "progress": embedding_progress}
    about: dict[str, Any] = {}
    if mode(debias).needs == "weights":
        weights, about["kde"] = _training_weights(data, weights, folder / WEIGHTS, resume, **embedding)
    if isinstance(groups, str | os.PathLike):
        about["groups"] = Path(groups).name
    groups = _training_groups(data, groups, folder / GROUPS, resume, **embedding)
    return _train_experts(
        config,
        data,
        out=folder,
        resume=resume,
        device=target,
        processes=processes,
        weights=weights,
        groups=groups,
        progress=progress,
        about=about,
    )


def estimate(
    data: Dataset,
    *,
    method: str = "dm",
    debias: str | None = None,
    ipc: int = 10,
    device: str = "auto",
    weights: object = None,
    groups: np.ndarray | str | os.PathLike | None = None,
    experts: Experts | str | os.PathLike | None = None,
    nets: int = 0,
    epochs: int | None = None,
    eval_every: int | None = None,
    eval_nets: int | None = None,
    eval_epochs: int | None = None,
    **settings: Any,
) -> Estimate:
    """What :func:`distill` with these arguments will take on this machine: some of its steps are done and timed.

    Args:
        data, method, debias, ipc, device, groups, eval_every, eval_nets, eval_epochs, **settings: as :func:`distill`
            takes them.
        experts: likewise; None: they are still to be trained, which is not in the estimate (:func:`estimate_experts`).
        weights: likewise, but only whether there are some: without, debias kde trains a bias embedding.
        nets, epochs: of an evaluation of the result; no networks, no evaluation.

    Returns:
        Seconds of every part, the largest memory, and bytes on the disk. It takes about 20 s, more where a step does.

    Raises:
        ValueError, RuntimeError: as :func:`distill`.

    >>> import fastdd
    >>> taken = fastdd.estimate(fastdd.data.load("c-digits"), ipc=1, iterations=10, width=8)
    >>> list(taken.seconds), taken.disk > 0
    (['distillation'], True)
    """
    config, experts = _configuration(data, method, debias, ipc, experts, weights, groups, settings)
    _check_curve(eval_every, eval_nets, eval_epochs)
    target = pick_device(device)
    check_ipc(data, ipc)
    seconds: dict[str, float] = {}
    clustered = isinstance(groups, str) and groups in CLUSTERINGS
    if clustered or (METHODS[config.method].takes("weights", config.mode) and weights is None):
        seconds["bias embedding"] = estimates.bias_embedding(data, EmbeddingSettings(), target)
    known = None if clustered else _training_groups(data, groups, None, False)
    seconds["distillation"], disk, notes = estimates.distillation(config, data, target, groups=known, experts=experts)
    if nets or eval_every:
        start = random_set(data, ipc, config.seed, None if experts is None else experts.zca)
        made = replace(
            start,
            metadata={**start.metadata, "run": config.model_dump()},
            learning_rate=getattr(config, "lr_teacher", None),
        )
    if eval_every:
        one = _evaluation_seconds(made, data, target, eval_nets or _CURVE_NETS, epochs=eval_epochs)
        seconds["evaluations on the way"] = (1 + math.ceil(config.iterations / eval_every)) * one
    if nets:
        seconds["evaluation"] = _evaluation_seconds(made, data, target, nets, epochs=epochs)
    return estimates.measured(seconds, disk, target, notes)


def estimate_experts(
    data: Dataset,
    *,
    debias: str = "none",
    ipc: int = 10,
    device: str = "auto",
    weights: object = None,
    groups: object = None,
    **settings: Any,
) -> Estimate:
    """What :func:`train_experts` with these arguments will take on this machine, in one process (:func:`estimate`)."""
    config = ExpertSettings.configure(dataset=data.name, ipc=ipc, debias=debias, **settings)
    target = pick_device(device)
    seconds: dict[str, float] = {}
    if (mode(debias).needs == "weights" and weights is None) or (isinstance(groups, str) and groups in CLUSTERINGS):
        seconds["bias embedding"] = estimates.bias_embedding(data, EmbeddingSettings(), target)
    parts, disk = estimates.experts(config, data, target)
    return estimates.measured({**seconds, **parts}, disk, target)


def estimate_evaluation(
    what: SyntheticSet | str | os.PathLike,
    data: Dataset,
    *,
    nets: int | None = None,
    protocol: str | None = None,
    device: str = "auto",
    **settings: Any,
) -> Estimate:
    """What :func:`evaluate` with these arguments will take on this machine (:func:`estimate`)."""
    target = pick_device(device)
    seconds = _evaluation_seconds(
        what, data, target, _networks(nets, protocol), published=_published(protocol), **settings
    )
    return estimates.measured({"evaluation": seconds}, 0, target)


def _evaluation_seconds(
    what: SyntheticSet | str | os.PathLike, data: Dataset, target: torch.device, nets: int, **settings: Any
) -> float:
    images, labels, data, arguments = _training_images(what, data, target=target, **settings)
    return estimates.evaluation(images, labels, data, nets=nets, **arguments)


def import_experts(
    paths: Sequence[str | os.PathLike],
    data: Dataset,
    *,
    out: str | os.PathLike,
    debias: str = "none",
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
        debias: what the experts were trained with.
        arch, width, depth: their network.
        zca: whether they saw whitened images; the published whitening is fitted on ``data``.
        dtype: fp32, or bf16 for half the space.
        device: where the whitening is fitted.

    Raises:
        ValueError: an ``out`` that is not empty, a file that is no buffer, or one of another network.
        RuntimeError: a damaged file, or one that holds more than tensors, which is not read.
    """
    target = pick_device(device)
    known = {"dataset": data.name, "debias": debias, "arch": arch, "width": width, "depth": depth, "zca": zca}
    config = ExpertSettings.configure(**known, dtype=dtype).model_dump()
    # The rest is not in the files.
    config = {name: config[name] if name in known or name == "dtype" else None for name in config}
    manifest = {
        **describe_experts(config, data),
        "dataset_digest": None,
        "imported": [Path(path).name for path in paths],
    }
    return import_buffers(paths, out, manifest, (lambda: Zca.fit(data.train.images, device=target)) if zca else None)


def _configuration(
    data: Dataset,
    method: str,
    debias: str | None,
    ipc: int,
    experts: Experts | str | os.PathLike | None,
    weights: object,
    groups: object,
    settings: dict[str, Any],
) -> tuple[Settings, Experts | None]:
    """A run's configuration from what :func:`distill` is given, and its experts, opened."""
    if experts is not None:
        if method in METHODS and not METHODS[method].needs_experts:
            raise ValueError(f"experts are for method {' or '.join(methods_that_need_experts())}, not {method}")
        experts = experts if isinstance(experts, Experts) else Experts.open(experts)
        settings, trained = _of_experts(experts, settings)
        debias = debias or trained
    config = configure(dataset=data.name, method=method, debias=debias or "none", ipc=ipc, **settings)
    if METHODS[config.method].needs_experts and (weights is not None or groups is not None):
        raise ValueError(f"{config.method} looks at no real images: weights and groups are for its experts' training")
    if weights is not None and not METHODS[config.method].takes("weights", config.mode):
        raise ValueError(f"weights are for debias {' or '.join(modes_that_need('weights'))}, not {config.debias}")
    check_groups(config, groups)
    return config, experts


def _of_experts(experts: Experts, settings: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Settings with the network and the whitening of the experts where none are given, and the experts' debias mode."""
    trained = experts.manifest["config"]
    own = {"zca": experts.zca is not None}
    if all(settings.get(name) is None for name in ("arch", "width", "depth")):
        own |= {name: trained[name] for name in ("arch", "width", "depth")}
    return {**own, **{name: value for name, value in settings.items() if value is not None}}, trained["debias"]


def _training_weights(
    data: Dataset,
    weights: kde.KdeWeights | np.ndarray | torch.Tensor | str | os.PathLike | None,
    stored: Path | None,
    resume: bool,
    **embedding: Any,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Checked weights of a run, and what they are. They are kept in the run's folder, and read from it to resume."""
    kept = ranks.first(lambda: resume and stored is not None and stored.exists())
    if weights is None:
        weights = stored if kept else kde_weights(data, **embedding)
    if isinstance(weights, str | os.PathLike):
        array, about = kde.load_weights(weights, data), {"source": Path(weights).name}
        if Path(weights).suffix != ".npy":
            weights = kde.KdeWeights.load(weights)
    elif not isinstance(weights, kde.KdeWeights):
        array, about = np.asarray(torch.as_tensor(weights).cpu()), {"source": "array"}
    if isinstance(weights, kde.KdeWeights):
        array, about = weights.weights, weights.metadata
    found = kde.diagnose(array, data.train.labels, data.train.groups if data.num_groups > 1 else None)
    if isinstance(weights, kde.KdeWeights) and stored is not None and not kept:

        def keep() -> None:
            stored.parent.mkdir(parents=True, exist_ok=True)
            weights.save(stored)

        ranks.first(keep)
    return array, {**about, "diagnostics": asdict(found)}


def _training_groups(
    data: Dataset, groups: np.ndarray | str | os.PathLike | None, stored: Path | None, resume: bool, **embedding: Any
) -> np.ndarray | None:
    """Groups of a run in place of the data set's, if any. Those found are kept in its folder, and read to resume."""
    if groups is None or isinstance(groups, np.ndarray):
        return groups
    if groups not in CLUSTERINGS:
        return kde.load_array(Path(groups))
    if ranks.first(lambda: resume and stored is not None and stored.exists()):
        return kde.load_array(stored)
    found, _ = pseudo_groups(data, method=groups, **embedding)

    def keep() -> None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(stored, lambda file: np.save(file, found))

    if stored is not None:
        ranks.first(keep)
    return found


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
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int, float], None] | None = None,
) -> Evaluation:
    """Train fresh networks on a set and test them on the data set's test split.

    A set's soft labels are what they are trained to; test images are normalised, or whitened, as the set's images are.

    Args:
        what: a synthetic set, or the path of one or of a run folder; "random" for ``ipc`` real images per class,
            "whole" for the whole training split.
        data: the data set to test on (and to draw "random" and "whole" from).
        ipc: for "random".
        nets: networks, each from its own initialisation; by default the protocol's, else 5.
        protocol: a published one by name (:data:`fastdd.evaluation.PROTOCOLS`): dc, fairdd, mtt or dcbench; sets
            ``nets`` and ``epochs`` where they are not given, and dc and fairdd the augmentation that DC's code has for
            its sets of MNIST and for ConvNetBN where ``dsa_strategy`` is not.
        arch, width, depth: the network; by default the one that the set was distilled with.
        epochs: 1000 by default with augmentation and 300 without, as published; 20 for "whole".
        dsa_strategy: augmentation while training; by default the one that the set was distilled with.
        learning_rate: of the networks; by default the step size learned with the set, if it has one, else 0.01.
        seed: initialisations, orders and augmentations are functions of it.
        device: auto, cpu or cuda.
        progress: called with (networks done, networks, their mean accuracy so far).

    Returns:
        Counts per class and group of every network; ``.summary()`` has accuracy, DEO_M, DEO_A, WA and BA.

    Raises:
        ValueError: a set whose images or classes do not fit the data, or with values that are not finite, a learned
            step size that is not positive and not replaced, a protocol for whole without ``epochs``, or settings that
            are not allowed.
    """
    images, labels, data, arguments = _training_images(
        what,
        data,
        pick_device(device),
        published=_published(protocol),
        ipc=ipc,
        arch=arch,
        width=width,
        depth=depth,
        epochs=epochs,
        dsa_strategy=dsa_strategy,
        learning_rate=learning_rate,
        seed=seed,
    )
    nets = _networks(nets, protocol)
    return _evaluate(images, labels, data, nets=nets, seed=seed, progress=progress, **arguments)


def _published(protocol: str | None) -> PublishedProtocol | None:
    return None if protocol is None else published_protocol(protocol)


def _networks(nets: int | None, protocol: str | None) -> int:
    """How many were asked for, else the protocol's."""
    if nets is not None:
        return nets
    return _NETS if protocol is None else published_protocol(protocol).nets


def _training_images(
    what: SyntheticSet | str | os.PathLike,
    data: Dataset,
    target: torch.device,
    *,
    published: PublishedProtocol | None = None,
    ipc: int | None = None,
    arch: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    dsa_strategy: str | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
) -> tuple[DeviceImages, torch.Tensor, Dataset, dict[str, Any]]:
    """Images, labels, the data set and other arguments of the evaluation that :func:`evaluate` is asked for."""
    whole = isinstance(what, str) and what == "whole"
    if whole and published is not None and epochs is None:
        raise ValueError("a published protocol is of small sets: for whole, give the epochs too (--epochs)")
    if isinstance(what, str) and what == "random":
        if ipc is None:
            raise ValueError("evaluating random real images needs an IPC")
        what = random_set(data, ipc, seed)
    if whole:
        images = DeviceImages.of(data.train.images, data.mean, data.std, target)
        labels, zca, run, method = torch.as_tensor(data.train.labels), None, {}, "whole"
    else:
        synthetic = what if isinstance(what, SyntheticSet) else load_synthetic(what)
        check_fits(synthetic, data)
        if synthetic.zca is None:
            # Imported images are normalised as other code does it.
            data = replace(data, **{name: tuple(synthetic.metadata[name]) for name in ("mean", "std")})
        images, labels, zca = DeviceImages(synthetic.images.to(target)), synthetic.targets, synthetic.zca
        run, method = synthetic.metadata.get("run", {}), synthetic.metadata.get("method")
        if learning_rate is None:
            learning_rate = synthetic.learning_rate
            if learning_rate is not None and learning_rate <= 0:
                raise ValueError(
                    f"the set's learned step size is {learning_rate:g}, with which nothing trains; "
                    "give another (--lr-net)"
                )
    if not run:
        run = configure(dataset=data.name, ipc=ipc or 1).model_dump()
    if arch is None:
        arch = run["arch"]
        width = run.get("width") if width is None else width
        depth = run.get("depth") if depth is None else depth
    strategy, own = run["dsa_strategy"] if dsa_strategy is None else dsa_strategy, "none"
    if published is not None and published.dc_augmented and (method, strategy, dsa_strategy) == ("dc", "none", None):
        own = dc_strategy(data.name, models.canonical_name(arch))
    if learning_rate is None:
        learning_rate = Protocol.learning_rate
    if epochs is None:
        published = published or published_protocol("dc")
        augmented = (strategy, own) != ("none", "none")
        epochs = _WHOLE_EPOCHS if whole else published.epochs if augmented else published.plain_epochs
    arguments = {
        "arch": arch,
        "width": width,
        "depth": depth,
        "protocol": Protocol(epochs=epochs, learning_rate=learning_rate, dsa_strategy=strategy, dc_strategy=own),
        "zca": zca,
    }
    return images, labels.to(target), data, arguments


def load_synthetic(path: str | os.PathLike) -> SyntheticSet:
    """The synthetic set in a file or in a run folder.

    Raises:
        FileNotFoundError: there is none.
        RuntimeError: the file is not one, or damaged.
        ValueError: it is another project's, which :func:`import_synthetic` reads.
    """
    path = Path(path)
    run = path / "synthetic.safetensors"
    if (path.is_file() or not run.exists()) and path.exists() and exchange.is_foreign(path):
        raise ValueError(f"{path} is another project's: first fastdd import {path} --out FILE.safetensors")
    if path.is_dir():
        path = run
    if not path.exists():
        raise FileNotFoundError(f"no synthetic set at {path} (a run writes it when it ends; --resume continues one)")
    return SyntheticSet.load(path)


def import_synthetic(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    dataset: str | os.PathLike | Dataset | None = None,
    root: str | os.PathLike | None = None,
    data_options: dict[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    method: str | None = None,
    debias: str | None = None,
    arch: str | None = None,
    labels: str = "probabilities",
    learning_rate: float | None = None,
    zca: bool = False,
    device: str = "auto",
    **options: Any,
) -> SyntheticSet:
    """A synthetic set of another project's, or one that :func:`export_synthetic` wrote. Nothing in the file is run.

    What images are normalised with is never guessed: it is in the file, or given by ``dataset`` or by ``mean`` and
    ``std``. Of a data set that published code has, it is that code's; of another, the data set's own.

    Args:
        path: file or folder.
        format: dc (DatasetCondensation, FairDD), mtt (also TESLA, DATM), idc (also DREAM), dcbench, npz, or folder (of
            images); by default what the content looks like.
        dataset: that the set was distilled from: a name (``fastdd.data.available()``), a packed store, or the data set.
        root: folder of the publisher's files, which are read only if published code has no such data set, or to
            fit ``zca``.
        data_options: of the data set, such as ``bias_ratio``; the evaluation uses the same.
        mean, std: one value a channel, for pixels scaled to [0, 1].
        method, debias: what it was distilled with, as far as the file does not tell; debias is none by default.
        arch: network to evaluate it on; by default that in the file's name, or the preset's for the data set.
        labels: what soft labels are: probabilities, or logits whose softmax they are.
        learning_rate: step size learned with the images, in place of the file's.
        zca: the images are whitened: the published ZCA is fitted on ``dataset``.
        device: where ZCA is fitted.
        **options: of the format: experiment (dc: from 0, default the last), iteration (mtt: best or a number), factor
            and decoder (idc: multi-formation), ipc (dcbench).

    Returns:
        The set; ``metadata["source"]`` has the files with their SHA-256, published accuracies, and notes on what was
        chosen.

    Raises:
        FileNotFoundError: no such file, or no files of the data set where they are needed.
        ValueError: normalisation that is not known, content that is not of the format, settings that do not fit.
        RuntimeError: a damaged file, or one that would run code when it is read.
    """
    if (mean is None) != (std is None):
        raise ValueError("mean and std go together: give both or neither")
    data = dataset if isinstance(dataset, Dataset) else None
    name = dataset if data is None else data.name
    if zca and name is None:
        raise ValueError("ZCA is fitted on a data set: give --dataset")
    if name is not None and data is None:
        for option in set(data_options or {}) - set(datasets.options(name)):
            raise ValueError(f"{name} has no {option}: leave it out")
    format, found = exchange.read(path, format, hints={"dataset": name, "method": method}, **options)
    if found.whitened and not zca:
        raise ValueError(f"the images of {path} are whitened: give --zca, and the --dataset that it is fitted on")
    record, published = found.record or {}, exchange.constants(str(name), format)
    # What the file itself says is certain; a name says what is usual.
    constants = (mean, std) if mean is not None else (record.get("mean"), record.get("std"))
    if constants[0] is None and published is not None:
        constants = published.mean, published.std
    if name is not None and data is None and (zca or constants[0] is None):
        data = datasets.load(name, root, **(data_options or {}))
    if constants[0] is None and data is not None:
        constants = data.mean, data.std
    if constants[0] is None and not zca:
        raise exchange.unknown_normalisation(format, found)
    fitted = Zca.fit(data.train.images, device=pick_device(device)) if zca else None
    if isinstance(found.whitened, str) and found.whitened != fitted.digest():
        found.notes.append("ZCA as fitted here is not, bit for bit, that of the images")
    source = {"format": format, "files": exchange.describe_files(found.files), **found.about.pop("source", {})}
    model = found.about.pop("model", None)
    metadata = {**found.about, **record, "source": source, "debias": debias or record.get("debias", "none")}
    metadata["versions"] = {"fastdd": __version__, "torch": torch.__version__}
    if method is not None:
        metadata["method"] = method
    if name is not None:
        metadata["dataset"] = name if data is None else data.name
        chosen = {key: value for key, value in (data_options or {}).items() if value is not None}
        metadata["provenance"] = {"parameters": chosen} if data is None else data.provenance
    known = data or published
    made = exchange.assemble(
        found,
        mean=constants[0],
        std=constants[1],
        class_names=tuple(known.class_names if known else record.get("class_names", ())) or None,
        labels=labels,
        learning_rate=learning_rate,
        zca=fitted,
        metadata=metadata,
    )
    return _described(made, found, model, arch)


def _described(made: SyntheticSet, found: exchange.Found, model: str | None, arch: str | None) -> SyntheticSet:
    """An imported set with its IPC and what it is evaluated with: as published, and on its own network."""
    metadata, source = made.metadata, made.metadata["source"]
    counts = torch.bincount(made.labels, minlength=len(metadata["class_names"]))
    stored = source.get("stored", len(made.labels)) / len(counts)
    if counts.min() == counts.max():
        metadata["ipc"] = round(stored)
    method, dataset = metadata.get("method"), metadata.get("dataset", "")
    run = metadata.get("run")
    if not run:
        shipped = preset(method if method in METHODS else "dm", dataset, max(1, round(stored)), metadata["debias"])
        run = {name: shipped.get(name) for name in ("arch", "width", "depth", "dsa_strategy")}
        if arch is None and model is not None:
            try:
                arch = models.canonical_name(model)
            except ValueError:
                found.notes.append(f"{model}, its network, is not known here: {run['arch']} is evaluated instead")
    if arch is not None:
        run |= {"arch": models.canonical_name(arch), "width": None, "depth": None}
    return replace(made, metadata={**metadata, "run": run, "source": {**source, "notes": found.notes}})


def export_synthetic(
    made: SyntheticSet | str | os.PathLike,
    path: str | os.PathLike,
    *,
    to: str,
    method: str | None = None,
    hard_labels: bool = False,
    force: bool = False,
) -> exchange.Export:
    """Write a synthetic set for another project. What pickled files hold is read by ``torch.load(weights_only=True)``.

    Args:
        made: the set, or the path of one or of a run folder.
        path: a file, or a folder; as the format has it.
        to: dc, mtt, idc, dcbench, folder or npz, as :func:`import_synthetic` reads them. npz holds all that the set
            does; for the others what has no place is in ``fastdd.json`` beside, or in the file itself, for
            :func:`import_synthetic`.
        method: dcbench: under which method to put it; by default its own.
        hard_labels: leave soft labels out.
        force: replace files that are there.

    Returns:
        The files, and notes: what the reader must be told, and what is lost.

    Raises:
        ValueError: a set that the format can't hold, or a path that is taken.
        OSError: a file can't be written.
    """
    made = made if isinstance(made, SyntheticSet) else load_synthetic(made)
    if hard_labels:
        made = replace(made, soft_labels=None)
    return exchange.write(made, path, to, force=force, method=method)


def check_fits(synthetic: SyntheticSet, data: Dataset) -> None:
    """ValueError if there are no images, if they are not finite, or they or the classes are not the data set's."""
    shape, expected = tuple(synthetic.images.shape[1:]), (data.channels, *data.size)
    if shape != expected:
        raise ValueError(f"the synthetic images are {shape}, those of {data.name} are {expected} (channels, H, W)")
    classes = len(synthetic.metadata["class_names"])
    if classes != data.num_classes:
        raise ValueError(f"the synthetic set is of {classes} classes, but {data.name} has {data.num_classes}")
    if not len(synthetic.images):
        raise ValueError("the synthetic set has no images")
    if not synthetic.images.isfinite().all():
        raise ValueError("some values of the synthetic images are not finite: nothing can be trained on them")


Embedding = np.ndarray | torch.Tensor | str | os.PathLike | Callable[[torch.Tensor], torch.Tensor]


def kde_weights(
    data: Dataset,
    *,
    embedding: Embedding | None = None,
    encoder: str = EmbeddingSettings.encoder,
    steps: int = EmbeddingSettings.steps,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> kde.KdeWeights:
    """Weights of the training images against a bias that no one has labelled: how rare an image is in its class.

    An encoder learns what is easy in the data, the bias; a kernel density in its space says how common an image is; the
    weights grow with 1 / density ("Mitigating Bias in Dataset Distillation";
    :func:`fastdd.debias.density.kde.kde_weights` has the formula). Groups are not looked at; where they are
    known, the diagnostics say how much weight is on bias-conflicting images.

    Args:
        data: its training images.
        embedding: what to measure distances in, in place of training an encoder: an array [N, D], the path of one
            (``.npy``) or of saved weights, whose embeddings are used, or a module or another function on normalised
            images [n, C, H, W] -> [n, D] (a module is used in evaluation mode). ``variance`` is meant for rows of unit
            length; rows are used as they are.
        encoder: small, or resnet18, as published.
        steps: of the encoder's training; with many more it learns the classes too.
        seed: every draw is a function of it.
        device: auto, cpu or cuda.
        progress: called with (steps done, steps) of the training.
        **settings: any other of :class:`fastdd.debias.density.kde.KdeSettings`: variance, temperature, score,
            clip, scope, density, k, batch.

    Returns:
        ``.weights`` float32 [N] for :func:`distill`, ``.diagnostics(...)``, ``.save(path)``.

    Raises:
        ValueError: settings out of range, an embedding that does not fit, a class with fewer than 2 images.
        RuntimeError: a GPU that is not there, density knn without FAISS, a damaged file.

    Warns:
        RuntimeWarning: a class whose weights amount to fewer than 5 images.

    >>> import fastdd
    >>> made = fastdd.kde_weights(fastdd.data.load("c-digits"), steps=2)
    >>> made.weights.shape, made.embeddings.shape
    ((1297,), (1297, 128))
    """
    target = pick_device(device)
    chosen = kde.KdeSettings(seed=seed, **settings)
    chosen.check_backend(target)
    kde.check_labels(data.train.labels)
    rows, about = _embeddings(data, embedding, encoder, steps, seed, target, progress)
    made = kde.kde_weights(rows, data.train.labels, class_names=data.class_names, **asdict(chosen))
    found = made.diagnostics(data.train.labels, data.train.groups if data.num_groups > 1 else None)
    return replace(
        made,
        metadata={
            **made.metadata,
            "dataset": data.name,
            "dataset_digest": data.digest(),
            "embedding": about,
            "diagnostics": asdict(found),
        },
    )


def pseudo_groups(
    data: Dataset,
    *,
    embedding: Embedding | None = None,
    encoder: str = EmbeddingSettings.encoder,
    steps: int = EmbeddingSettings.steps,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> tuple[np.ndarray, int]:
    """Groups of the training images where none are known: clusters of a bias embedding, for ``distill(groups=)``.

    Args:
        data: its training images.
        embedding, encoder, steps, seed, device, progress: as in :func:`kde_weights`.
        **settings: any other of :class:`fastdd.debias.density.clusters.ClusterSettings`: method, num_groups, per_class,
            eps, min_samples.

    Returns:
        int64 [N], and the number of groups.

    Raises:
        ValueError: settings out of range, an embedding that does not fit.
        RuntimeError: a GPU that is not there, a damaged file.
    """
    target = pick_device(device)
    chosen = ClusterSettings(seed=seed, **settings)
    rows, _ = _embeddings(data, embedding, encoder, steps, seed, target, progress)
    # k-means may differ with the number of threads.
    return ranks.first(lambda: _pseudo_groups(rows, data.train.labels, **asdict(chosen)))


def _embeddings(
    data: Dataset,
    embedding: Embedding | None,
    encoder: str,
    steps: int,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """float32 [N, D] on the device, and what it came from; rank 0 trains and embeds for all ranks."""
    if embedding is None:
        training = EmbeddingSettings(encoder=encoder, steps=steps)
        rows = ranks.first(lambda: train_embedding(data, training, seed=seed, device=device, progress=progress))
        about: dict[str, Any] = {**asdict(training), "seed": seed}
    elif isinstance(embedding, str | os.PathLike):
        rows, about = kde.load_embeddings(embedding, data), {"source": Path(embedding).name}
    elif isinstance(embedding, np.ndarray | torch.Tensor):
        rows, about = embedding, {"source": "array"}
    elif callable(embedding):
        rows = ranks.first(lambda: _embedded_by(embedding, data, device))
        about = {"source": getattr(embedding, "__name__", type(embedding).__name__)}
    else:
        raise TypeError(f"an embedding is an array, a path, a module or a function, not {type(embedding).__name__}")
    return kde.check_embeddings(rows, len(data.train)).to(device), about


def _embedded_by(embedding: Callable[[torch.Tensor], torch.Tensor], data: Dataset, device: torch.device) -> np.ndarray:
    images = DeviceImages.of(data.train.images, data.mean, data.std, device)
    if not isinstance(embedding, torch.nn.Module):
        return embed(embedding, images)
    training_mode = embedding.training
    try:
        return embed(embedding.to(device).eval(), images)
    finally:
        embedding.train(training_mode)
