"""``train``: one network, on real images that may be biased, and fake ones."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from fastdd.api import arguments
from fastdd.api.network_training import NetworkTraining
from fastdd.api.signature import settings_of, with_keywords
from fastdd.data import Dataset, Split, SyntheticSet
from fastdd.session.trained import TrainedNetwork, read_network

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import TrainNetworkSettings


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
    log: Sequence[str] = (),
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
        log: tensorboard, wandb or both: also log every epoch's figures there, in ``out``.
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
    training = NetworkTraining(
        data, fakes=fakes, weights=weights, stages=stages, lr_grid=lr_grid, device=device, **settings
    )
    return training.run(out=out, resume=resume, log=log, progress=progress)


def load_network(path: str | os.PathLike) -> nn.Module:
    """A network that :func:`train_network` or :func:`evaluate` (``keep_nets``) kept, from its file, or the first of a
    folder: logits of normalised images.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or was not written here.
    """
    return read_network(path).net
