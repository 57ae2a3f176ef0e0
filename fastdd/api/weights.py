"""What stands in for a protected attribute that no one has labelled: weights, and groups."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from fastdd.api import arguments
from fastdd.api.device import pick_device
from fastdd.api.signature import check_known, settings_of, with_keywords
from fastdd.core import ranks
from fastdd.data import Dataset
from fastdd.debias.density import clusters, kde
from fastdd.debias.density.embedding import Embedding, EmbeddingSettings, bias_embedding
from fastdd.session import Estimate
from fastdd.session import estimate as estimates

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import KdeWeightsSettings, PseudoGroupsSettings


@with_keywords(settings_of(arguments.KdeWeightsSettings))
def kde_weights(
    data: Dataset,
    *,
    embedding: Embedding | None = None,
    encoder: str = EmbeddingSettings.encoder,
    steps: int = EmbeddingSettings.steps,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **settings: "Unpack[KdeWeightsSettings]",
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
            clip, scope, density, k, batch, normalise.

    Returns:
        ``.weights`` float32 [N] for :func:`distill`, ``.diagnostics(...)``, ``.save(path)``.

    Raises:
        ValueError: settings out of range, an embedding that does not fit, a class with fewer than 2 images.
        RuntimeError: a GPU that is not there, density knn without FAISS, a damaged file.

    Warns:
        RuntimeWarning: a class whose weights amount to fewer than 5 images, or weights that are all alike; what is
            said is in ``metadata["warnings"]`` too.

    >>> import fastdd
    >>> made = fastdd.kde_weights(fastdd.data.load("c-digits"), steps=2)
    >>> made.weights.shape, made.embeddings.shape
    ((1297,), (1297, 128))
    """
    check_known(settings, kde_weights)
    target = pick_device(device)
    density = kde.KdeSettings(seed=seed, **settings)
    density.check_backend(target)
    kde.check_labels(data.train.labels)
    training = EmbeddingSettings(encoder=encoder, steps=steps)
    ranks.agree("weights", data.digest(), density, training, _told(embedding), target.type)
    rows, about = bias_embedding(data, embedding, training, seed=seed, device=target, progress=progress)
    weights = kde.kde_weights(rows, data.train.labels, class_names=data.class_names, **asdict(density))
    diagnostics = weights.diagnostics(data.train.labels, data.train.groups if data.num_groups > 1 else None)
    return replace(
        weights,
        metadata={
            **weights.metadata,
            "dataset": data.name,
            "dataset_digest": data.digest(),
            "embedding": about,
            "diagnostics": asdict(diagnostics),
        },
    )


@with_keywords(settings_of(arguments.KdeWeightsSettings))
def estimate_weights(
    data: Dataset,
    *,
    encoder: str = EmbeddingSettings.encoder,
    steps: int = EmbeddingSettings.steps,
    device: str = "auto",
    **settings: "Unpack[KdeWeightsSettings]",
) -> Estimate:
    """What :func:`kde_weights` with these arguments will take on this machine (:func:`estimate`).

    The encoder's training and the embedding of all images; of densities the exact one, whose share is small.
    """
    check_known(settings, estimate_weights)
    target = pick_device(device)
    kde.KdeSettings(**settings)
    seconds = estimates.bias_embedding(data, EmbeddingSettings(encoder=encoder, steps=steps), target)
    return estimates.measured({"weights": seconds}, 0, target)


@with_keywords(settings_of(arguments.PseudoGroupsSettings))
def pseudo_groups(
    data: Dataset,
    *,
    embedding: Embedding | None = None,
    encoder: str = EmbeddingSettings.encoder,
    steps: int = EmbeddingSettings.steps,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **settings: "Unpack[PseudoGroupsSettings]",
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
    check_known(settings, pseudo_groups)
    clustering = clusters.ClusterSettings(seed=seed, **settings)
    training = EmbeddingSettings(encoder=encoder, steps=steps)
    ranks.agree("groups", data.digest(), clustering, training, seed, _told(embedding), target.type)
    rows, _ = bias_embedding(data, embedding, training, seed=seed, device=target, progress=progress)
    # k-means may differ with the number of threads.
    return ranks.first(lambda: clusters.pseudo_groups(rows, data.train.labels, **asdict(clustering)))


def _told(embedding: Embedding | None) -> str:
    """What ranks compare of an embedding: a file by its name, an array by its content, a function by its kind."""
    if embedding is None or isinstance(embedding, str | os.PathLike):
        return str(embedding)
    if isinstance(embedding, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(embedding)).hexdigest()
    return type(embedding).__name__
