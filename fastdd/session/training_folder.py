"""The folder of one network's training: its files, and whether a training may have it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml

from fastdd.core import bounds, files, plugins, reading
from fastdd.core.space import bytes_in, check_room
from fastdd.core.version import __version__
from fastdd.training import TrainSettings

CONFIG, METRICS, CHECKPOINT = "config.yaml", "metrics.jsonl", "checkpoint.pt"
# What every row of the log has.
FIELDS = {"epoch": reading.is_count, "loss": reading.is_number}


def check_train_out(path: str | os.PathLike, resume: bool, config: TrainSettings, inputs: str) -> None:
    """ValueError if the folder ``path`` holds a network that is not to be continued, or files of something else.

    ``inputs``: SHA-256 of what besides the settings decides the network.
    """
    path = Path(path)
    files.check_folder(path, "folder of the network")
    if (path / CONFIG).exists():
        if not resume:
            raise ValueError(f"{path} already holds a network; continue it with --resume or choose another --out")
        _check_same(path, config, inputs)
    elif path.is_dir():
        stray = files.entries(path, (".lock",))
        if stray:
            raise ValueError(f"{path} is not empty and holds no network (it has {stray[0]!r}); give an empty folder")


def read_config(path: Path) -> tuple[TrainSettings, dict[str, Any]]:
    """The settings in a folder, and what else it says of its training; ValueError where it is none."""
    try:
        header = bounds.load_yaml((path / CONFIG).read_text(encoding="utf-8"))
        if isinstance(header, dict):
            plugins.recall(header.get("plugins"))
        config = TrainSettings.model_validate(header["train"])
        if not isinstance(header["inputs"], str) or not isinstance(header["about"], dict):
            raise TypeError("inputs and about are missing")
        return config, header
    except (ValueError, KeyError, TypeError, OSError, yaml.YAMLError) as error:
        text = str(error).splitlines()
        raise ValueError(f"{path / CONFIG} is not the configuration of a training: {text[0] if text else ''}") from None


def _check_same(path: Path, config: TrainSettings, inputs: str) -> None:
    found, header = read_config(path)
    for name, value in config.model_dump().items():
        other = getattr(found, name)
        if other != value:
            raise ValueError(f"{path} holds a network trained with {name}={other}, not {value}; choose another --out")
    plugins.check_same(path, header.get("plugins"), config.model_dump())
    if header["inputs"] != inputs:
        raise ValueError(f"{path} holds a network trained on other images or from other weights; choose another --out")


def check_train_room(folders: Sequence[Path], size: int) -> None:
    """TooSmallError where the disk has no space for so many folders, of ``size`` bytes each at the end."""
    check_room(folders[0], len(folders) * size - sum(map(bytes_in, folders)), "the training")


def open_train_folder(
    path: Path, resume: bool, config: TrainSettings, inputs: str, about: Mapping[str, Any]
) -> TextIO | None:
    """Take the folder of a training that begins, or goes on. Returns what holds it, for as long as it is kept.

    Args:
        path, resume, config, inputs: as :func:`check_train_out` takes them.
        about: of the images, for the record.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = files.hold(path)
    check_train_out(path, resume, config, inputs)
    files.remove_partials(path)
    if not (path / CONFIG).exists():
        about = {"fastdd": __version__, "torch": str(torch.__version__), **about}
        header = {"train": config.model_dump(), "inputs": inputs, "about": about}
        if records := plugins.used(header["train"]):
            header["plugins"] = records
        files.write_text(path / CONFIG, yaml.safe_dump(header, sort_keys=False, allow_unicode=True))
    return lock
