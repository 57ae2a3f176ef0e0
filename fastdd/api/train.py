"""``train``: one network, on real images that may be biased, and fake ones."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from fastdd.api import arguments
from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
from fastdd.api.exchange import load_synthetic
from fastdd.api.signature import settings_of, with_keywords
from fastdd.core import ranks
from fastdd.data import Dataset, Split, SyntheticSet, load
from fastdd.data.files.store import is_store
from fastdd.data.stand_in import read_fakes, stand_in_of_validation
from fastdd.evaluation import check_fits, in_order_of
from fastdd.exchange import torch_files
from fastdd.models.pretrained import load_weights
from fastdd.session.folder import SYNTHETIC
from fastdd.session.trained import NETWORK, TrainedNetwork, read_network
from fastdd.session.training import TrainingRun, check_train_out, check_train_room
from fastdd.training import TrainSettings, fake_counts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import TrainNetworkSettings

# In the place of a path of fake images, and the level of each of their degradations, which no paper has.
STAND_IN, _SEVERITY = "stand-in", 3


@with_keywords(settings_of(arguments.TrainNetworkSettings))
def train_network(
    data: Dataset,
    *,
    fakes: Dataset | Split | SyntheticSet | str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    stages: str = "both",
    lr_grid: Sequence[float] | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[int, int, dict[str, Any]], None] | None = None,
    **settings: "Unpack[TrainNetworkSettings]",
) -> TrainedNetwork:
    """Train a network on the data set, by a recipe for biased images, with or without fake ones; and test it.

    Where the data set has validation images (data option ``validation``), the epoch with the highest accuracy of the
    worst group on them is kept.

    Args:
        data: from :func:`fastdd.data.load`, or built by hand.
        fakes: fake images for ``use`` usb, asb or ffr: a data set, whose training images they are, images with labels
            and groups, or for ffr a synthetic set, all of which is trained on; or the path of a packed store, of a run
            or synthetic set, or of folders CLASS/GROUP of images. ``"stand-in"``, or ``"stand-in:5"`` with a severity
            of 1 to 5 (3): as many degraded validation images as ``use`` needs, where there is no generator
            (:func:`fastdd.data.stand_in.stand_in_of_validation`); the others still choose the epoch.
        weights: a file that the network begins with: one of this package's, or a state dict of PyTorch's (torchvision's
            and timm's ResNets fit); a last layer of other classes keeps its random start.
        stages: of ffr, both, 1 (fake images only) or 2 (real images only, from ``weights``).
        lr_grid: learning rates to try; that with the highest worst-group accuracy on validation images is returned.
        out: folder of the network, ``network.safetensors``, and of what it takes to resume; with ``lr_grid`` one of
            folders, ``lr-RATE``.
        resume: continue what ``out`` holds; bit-identical to uninterrupted training on the same number of threads.
        device: auto, cpu or cuda.
        progress: called after every epoch with (epochs done, epochs, the epoch's figures).
        **settings: any other field of :class:`fastdd.training.TrainSettings` (training, constants, use, scale, arch,
            epochs, lr ...); what is not given comes from the shipped presets.

    Raises:
        TypeError: data that is not a data set.
        ValueError: several ranks, settings that are unknown or do not fit the data, weights of another network, fake
            images that lack a class or group, or an ``out`` that holds something else.
        RuntimeError: the network diverged.
        OSError: too little space on the disk.

    >>> import fastdd
    >>> data = fastdd.data.load("c-digits")
    >>> trained = fastdd.train_network(data, training="lff", epochs=1, width=8)
    >>> trained.metrics().accuracy > 20, trained.history[0]["stage"]
    (True, 'real')
    """
    check_dataset(data)
    if ranks.world() > 1:
        raise ValueError(f"a network is trained by one process, not by torchrun's {ranks.world()} ranks")
    config = TrainSettings.configure(dataset=data.name, bias_ratio=_bias_ratio(data), **settings)
    if stages not in ("both", "1", "2"):
        raise ValueError(f"stages must be both, 1 or 2, not {stages!r}")
    if stages != "both" and config.use != "ffr":
        raise ValueError(f"stages {stages} is of use ffr, not {config.use}")
    if stages == "2" and weights is None:
        raise ValueError("stages 2 begins with weights: give those that stage 1 made (--weights)")
    of_run = {"stages": stages, "resume": resume, "device": pick_device(device), "progress": progress}
    severity = _severity(fakes)
    if severity is None:
        of_run |= {"fakes": _checked(fakes, data), "fakes_from": _named(fakes)}
    elif config.use != "none":
        wanted = fake_counts(data.train.counts(data.num_classes, data.num_groups), config.use, config.scale)
        data, drawn = stand_in_of_validation(data, wanted, severity, config.seed)
        of_run |= {"fakes": drawn, "fakes_from": f"stand-in: validation images, degraded at severity {severity}"}
    else:
        raise ValueError("use=none takes no fake images")
    of_run |= _weights(weights)
    if lr_grid is None:
        return TrainingRun(config, data, out=out, **of_run).run()
    if not lr_grid:
        raise ValueError("lr_grid has no learning rate")
    if data.validation is None:
        raise ValueError("lr_grid chooses by validation images: data option validation=0.1 holds some out")
    each = [config.model_copy(update={"lr": rate}) for rate in lr_grid]
    folders = [None if out is None else Path(out) / f"lr-{rate:g}" for rate in lr_grid]
    for folder, of_rate in zip(folders, each, strict=True):
        if folder is not None:
            check_train_out(folder, resume, of_rate)
    if out is not None:  # of all rates, before the first
        size = TrainingRun(each[0], data, **of_run).bytes_of_folder()
        check_train_room([folder for folder in folders if folder is not None], size)
    runs = (TrainingRun(of_rate, data, out=folder, **of_run) for of_rate, folder in zip(each, folders, strict=True))
    return max((run.run() for run in runs), key=_worst_group)


def load_network(path: str | os.PathLike) -> nn.Module:
    """A network that :func:`train_network` or :func:`evaluate` (``keep_nets``) kept, from its file, or the first of a
    folder: logits of normalised images.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or was not written here.
    """
    return read_network(path).net


def _bias_ratio(data: Dataset) -> float | None:
    """The level of bias that the data set was built with, as far as it says so."""
    parameters = data.provenance.get("parameters", {})
    return parameters.get("drop_to", parameters.get("bias_ratio"))


def _worst_group(trained: TrainedNetwork) -> tuple[float, float]:
    kept = next(row for row in reversed(trained.history) if row["epoch"] == trained.epoch)
    return kept["wa"], kept["ba"]


def _severity(fakes: Any) -> int | None:
    """Of the stand-ins that are asked for; None for any other fake images. A path wins where it is more than a name."""
    name, _, severity = fakes.partition(":") if isinstance(fakes, str) else ("", "", "")
    if name != STAND_IN:
        return None
    if severity and not severity.isdecimal():
        raise ValueError(f"fakes {fakes!r} must be {STAND_IN}, or {STAND_IN}: and a severity of 1 to 5")
    return int(severity) if severity else _SEVERITY


def _named(fakes: Any) -> str:
    """Where fake images are from, for the run's record."""
    if fakes is None or isinstance(fakes, str | os.PathLike):
        return "" if fakes is None else os.fspath(fakes)
    return "a synthetic set" if isinstance(fakes, SyntheticSet) else "images in memory"


def _opened(path: str | os.PathLike, data: Dataset) -> Dataset | Split | SyntheticSet:
    """Fake images by their path: a packed store, a run or synthetic set, or folders of classes and groups."""
    path = Path(path)
    if is_store(path):
        return load(path)
    if path.is_file() or (path / SYNTHETIC).exists():
        return load_synthetic(path)
    if data.size[0] != data.size[1]:
        raise ValueError(f"folders of images are read as squares, and those of {data.name} are {data.size}")
    return read_fakes(path, data.class_names, data.group_names, data.size[0], data.channels)


def _checked(
    fakes: Dataset | Split | SyntheticSet | str | os.PathLike | None, data: Dataset
) -> Split | SyntheticSet | None:
    """Fake images, opened, that fit the data set."""
    if isinstance(fakes, str | os.PathLike):
        fakes = _opened(fakes, data)
    if isinstance(fakes, Dataset):
        names = fakes.class_names, fakes.group_names
        if names != (data.class_names, data.group_names):
            raise ValueError(
                f"the fake images' classes and groups {names} are not those of {data.name}: "
                f"{(data.class_names, data.group_names)}"
            )
        fakes = fakes.train
    if isinstance(fakes, SyntheticSet):
        check_fits(fakes, data)
        fakes = in_order_of(data, fakes)
        if fakes.zca is not None:
            raise ValueError("the synthetic set is whitened (ZCA), and real images are not: take one without")
        if (tuple(fakes.metadata["mean"]), tuple(fakes.metadata["std"])) != (data.mean, data.std):
            raise ValueError(f"the synthetic set is normalised otherwise than {data.name}: import it with --dataset")
    elif fakes is not None and fakes.images.shape[1:] != data.train.images.shape[1:]:
        raise ValueError(
            f"fake images of shape {list(fakes.images.shape[1:])} do not fit those of {data.name}, "
            f"{list(data.train.images.shape[1:])}"
        )
    return fakes


def _weights(path: str | os.PathLike | None) -> dict[str, Any]:
    if path is None:
        return {}
    path = Path(path)
    path = path / NETWORK if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"weights": lambda net: load_weights(net, path, torch_files.load), "weights_digest": digest}
