"""A network's training, checked before any work: what ``fastdd train`` and its ``--dry-run`` do."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdd import models
from fastdd.api import arguments
from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
from fastdd.api.exchange import load_synthetic
from fastdd.api.signature import settings_of, with_keywords
from fastdd.core import ranks
from fastdd.core.settings import parse
from fastdd.data import Dataset, Split, SyntheticSet, load
from fastdd.data.files.store import is_store
from fastdd.data.stand_in import read_fakes, stand_in_of_validation
from fastdd.evaluation import check_fits, in_order_of
from fastdd.exchange import torch_files
from fastdd.models.pretrained import load_weights
from fastdd.session import Estimate
from fastdd.session import estimate as estimates
from fastdd.session.folder import SYNTHETIC
from fastdd.session.loggers import check_loggers
from fastdd.session.trained import NETWORK, TrainedNetwork
from fastdd.session.training import TrainingRun
from fastdd.session.training_folder import check_train_room
from fastdd.training import TrainSettings, fake_counts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import TrainNetworkSettings

# In the place of a path of fake images, and the level of each of their degradations, which no paper has.
STAND_IN, _SEVERITY = "stand-in", 3


class NetworkTraining:
    """The training of a network, checked before any work: to look at its settings, estimate it, and run it.

    Args:
        data, fakes, weights, stages, lr_grid, device, **settings: as :func:`fastdd.train_network` takes them.

    Attributes:
        data: as given, without the validation images that stand-ins are made of.
        settings: all of them, with those of the shipped presets; of a grid of rates those of the first.
        rates: learning rates, each of which is trained with.
        device: where it runs.

    Raises:
        TypeError: data that is not a data set.
        ValueError: several ranks, settings that are unknown or do not fit the data, weights of another network, or
            fake images that lack a class or group.
        RuntimeError: a GPU that is not there, a file that can't be read.

    >>> import fastdd
    >>> training = fastdd.api.NetworkTraining(fastdd.data.load("c-digits"), training="lff", epochs=1, width=4)
    >>> training.settings.batch_train, training.rates
    (64, [0.001])
    >>> training.run().epoch
    1
    """

    @with_keywords(settings_of(arguments.TrainNetworkSettings))
    def __init__(
        self,
        data: Dataset,
        *,
        fakes: Dataset | Split | SyntheticSet | str | os.PathLike | None = None,
        weights: str | os.PathLike | None = None,
        stages: str = "both",
        lr_grid: Sequence[float] | None = None,
        device: str = "auto",
        **settings: "Unpack[TrainNetworkSettings]",
    ) -> None:
        check_dataset(data)
        if ranks.world() > 1:
            raise ValueError(f"a network is trained by one process, not by torchrun's {ranks.world()} ranks")
        config = TrainSettings.configure(dataset=data.name, bias_ratio=_bias_ratio(data), **settings)
        _check_stages(stages, config, weights)
        if lr_grid is not None and not lr_grid:
            raise ValueError("lr_grid has no learning rate")
        if lr_grid is not None and data.validation is None:
            raise ValueError("lr_grid chooses by validation images: data option validation=0.1 holds some out")
        self.device = pick_device(device)
        models.check(config.arch, data.channels, data.num_classes, data.size, width=config.width, depth=config.depth)
        self._of_run: dict[str, Any] = {"stages": stages, "device": self.device, **_weights(weights)}
        severity = _severity(fakes)
        if severity is None:
            self._of_run |= {"fakes": _checked(fakes, data), "fakes_from": _named(fakes)}
        elif config.use != "none":
            wanted = fake_counts(data.train.counts(data.num_classes, data.num_groups), config.use, config.scale)
            data, drawn = stand_in_of_validation(data, wanted, severity, config.seed)
            where = f"stand-in: validation images, degraded at severity {severity}"
            self._of_run |= {"fakes": drawn, "fakes_from": where}
        else:
            raise ValueError("use=none takes no fake images")
        self.data, self._grid = data, lr_grid is not None
        self.rates = [float(rate) for rate in lr_grid] if lr_grid is not None else [config.lr]
        self._each = [parse(TrainSettings, config.model_dump() | {"lr": rate}) for rate in self.rates]
        self.settings = self._each[0]
        names = [_folder_of(rate) for rate in self.rates]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"lr_grid has two learning rates whose folder is {twice}: leave one of them out")
        self._first = TrainingRun(self.settings, data, **self._of_run)

    def folders(self, out: str | os.PathLike | None) -> list[Path]:
        """Where :meth:`run` writes: ``out``, or of a grid of rates a folder ``lr-RATE`` of it each; none without."""
        if out is None:
            return []
        return [Path(out) / _folder_of(rate) for rate in self.rates] if self._grid else [Path(out)]

    def _runs(self) -> Iterator[TrainingRun]:
        """One at a time, as each has a network."""
        yield self._first
        for settings in self._each[1:]:
            yield TrainingRun(settings, self.data, **self._of_run)

    def check(self, *, out: str | os.PathLike | None = None, resume: bool = False, log: Sequence[str] = ()) -> None:
        """What :meth:`run` checks of where it writes; nothing is written.

        Raises:
            ValueError, ImportError, OSError: as :meth:`run`.
        """
        check_loggers(log)
        if log and out is None:
            raise ValueError(f"log {log[0]} goes into the folder of the network: give out too")
        folders = self.folders(out)
        for folder, run in zip(folders, self._runs(), strict=False):
            run.check(folder, resume)
        if folders:  # of all rates, before the first
            check_train_room(folders, self._first.bytes_of_folder())

    def run(
        self,
        *,
        out: str | os.PathLike | None = None,
        resume: bool = False,
        log: Sequence[str] = (),
        progress: Callable[[int, int, dict[str, Any]], None] | None = None,
    ) -> TrainedNetwork:
        """Train, and test; of a grid of rates the network with the best worst group of validation images.

        Args:
            out, resume, log, progress: as :func:`fastdd.train_network` takes them.

        Raises:
            ValueError: an ``out`` that holds something else, loggers without one, or unknown ones.
            ImportError: a logger that is not installed.
            RuntimeError: the network diverged.
            OSError: ``out`` can't be written, or too little space on the disk.
        """
        self.check(out=out, resume=resume, log=log)
        folders = self.folders(out) or [None] * len(self.rates)
        how = {"resume": resume, "log": log, "progress": progress}
        trained = (run.run(folder, **how) for folder, run in zip(folders, self._runs(), strict=True))
        return max(trained, key=_worst_group) if self._grid else next(trained)

    def estimate(self) -> Estimate:
        """What :meth:`run` will take on this machine: some batches are trained on and timed, which takes about 20 s."""
        seconds, disk, notes = estimates.training(self._first, self.device)
        count = len(self.rates)
        return estimates.measured(
            {part: count * one for part, one in seconds.items()}, count * disk, self.device, notes
        )


def _check_stages(stages: str, config: TrainSettings, weights: object) -> None:
    if stages not in ("both", "1", "2"):
        raise ValueError(f"stages must be both, 1 or 2, not {stages!r}")
    if stages != "both" and config.use != "ffr":
        raise ValueError(f"stages {stages} is of use ffr, not {config.use}")
    if stages == "2" and weights is None:
        raise ValueError("stages 2 begins with weights: give those that stage 1 made (--weights)")


def _folder_of(rate: float) -> str:
    return f"lr-{rate:g}"


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
