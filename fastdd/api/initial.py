"""The stored set that a run starts from (``init``): as a user names it, and as the folder of the run keeps it."""

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from fastdd.api.exchange import load_synthetic
from fastdd.core import ranks
from fastdd.core.files import INITIAL
from fastdd.data import Dataset, SyntheticSet, Zca
from fastdd.data.initial import INITS, describe, images_of_set
from fastdd.methods import Settings
from fastdd.session.folder import CONFIG, read_config


def init_text(init: object) -> object:
    """``init`` as settings have it: of a path, its text, which does not look like one of the words.

    A text without a separator is a path where it is none of the words, and there is something of its name.
    """
    if isinstance(init, str) and (init in INITS or not os.path.exists(init)):
        return init
    if not isinstance(init, str | os.PathLike):
        return init
    text = os.fspath(init)
    return text if os.sep in text else os.path.join(os.curdir, text)


def init_of_resumed(init: object, out: str | os.PathLike | None) -> object:
    """``init`` as the run in ``out`` has it, where it is the bare name of what that run began from and is gone.

    The run goes on from the images that it keeps, so that nothing but the spelling is needed of the path.
    """
    if out is None or not isinstance(init, str) or init in INITS or os.sep in init or os.path.exists(init):
        return init
    try:
        began = read_config(Path(out) / CONFIG)["run"].get("init")
    except (OSError, ValueError):  # no run, or a damaged one: told where it is opened
        return init
    return began if isinstance(began, str) and began not in INITS and os.path.basename(began) == init else init


def read_initial(data: Dataset, config: Settings, zca: Zca | None) -> Tensor | None:
    """The images that ``config.init`` names, where it names a stored set that is there.

    Raises:
        ValueError: a set that does not fit the data, the IPC or ``zca``, or another project's.
        RuntimeError: no synthetic set, or a damaged one.
    """
    if config.init in INITS:
        return None
    try:
        return images_of_set(load_synthetic(config.init), data, config.ipc, zca, getattr(config, "factor", 1))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"init {config.init}: {error}") from None


def initial_of_run(
    data: Dataset, config: Settings, given: Tensor | None, zca: Zca | None, folder: Path | None, resume: bool
) -> Tensor | None:
    """The images of a stored set that a run starts from; None where ``config.init`` names none.

    The run's folder keeps them, and a run that is resumed has those, whatever has become of the file.

    Args:
        given: from :func:`read_initial`.

    Raises:
        FileNotFoundError: the file is not there, and no run that is resumed has its images.
    """
    if config.init in INITS:
        return None
    kept = None if folder is None else folder / INITIAL
    if ranks.first(lambda: resume and kept is not None and kept.exists() and (folder / CONFIG).exists()):
        images = SyntheticSet.load(kept).images
        if given is not None and not torch.equal(images, given) and ranks.rank() == 0:
            warnings.warn(
                f"{config.init} has changed since the run in {folder} began; it goes on from what it began with",
                RuntimeWarning,
                stacklevel=3,
            )
        return images
    if given is None:
        raise FileNotFoundError(f"init {config.init}: there is no stored set (a run writes its own when it ends)")
    if kept is not None:
        labels = torch.arange(data.num_classes).repeat_interleave(config.ipc)
        copy = SyntheticSet(given, labels, describe(data, config.ipc, zca, source={"path": config.init}))
        ranks.first(lambda: _keep(copy, kept))
    return given


def _keep(copy: SyntheticSet, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    copy.save(path)
