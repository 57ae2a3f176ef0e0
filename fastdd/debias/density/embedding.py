"""The bias embedding: an encoder trained to find what is easy, which in a biased data set is the bias."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd import models
from fastdd.core import ranks, rng
from fastdd.core.text import one_of
from fastdd.data import Dataset, DeviceImages
from fastdd.debias.density.kde import check_embeddings, load_embeddings

# What distances are measured in: values, the file of them, or what maps normalised images [n, C, H, W] to [n, D].
Embedding = np.ndarray | Tensor | str | os.PathLike | Callable[[Tensor], Tensor]

_EMBED_BATCH = 256
_SMALLEST_IMAGE = 4


def gsc_loss(embeddings: Tensor, labels: Tensor, *, temperature: float = 0.2, q: float = 0.7) -> Tensor:
    """Generalised supervised contrastive loss (SelecMix: Hwang et al., NeurIPS 2022), the contrastive kin of GCE.

        log p_ij = z_i . z_j / T - log sum_{k != i} exp(z_i . z_k / T)
        loss = - mean_i  1 / max(|P_i|, 1)  sum_{j in P_i} q p_ij^q log p_ij,    P_i: of i's label, without i

    p_ij^q is a constant to the gradient: pairs that are alike already pull most, so what is learned is what makes most
    of a class alike, the bias. That weight grows with learning, so the loss itself may rise. ``q`` 0 in the exponent
    alone would be the plain supervised contrastive loss.

    Args:
        embeddings: [B, D], of unit length.
        labels: int64 [B].
        temperature: T.
        q: sharper with q; at most 1.

    Returns:
        A scalar. An image without another of its label adds nothing.
    """
    similarities = embeddings @ embeddings.t() / temperature
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_p = similarities - similarities.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
    positive = (labels[:, None] == labels[None]) & ~own
    weighted = q * (q * log_p.detach()).exp() * log_p
    of_image = weighted.masked_fill(~positive, 0).sum(1) / positive.sum(1).clamp(min=1)
    return -of_image.mean()


@dataclass(frozen=True)
class EmbeddingSettings:
    """How the encoder is trained: Adam with a rate that falls linearly to 0, random batches, no augmentation.

    Attributes:
        encoder: ``small`` or ``resnet18``, the published one (:class:`fastdd.models.Encoder`).
        steps: of training. Few: with more the encoder learns the classes too, and densities tell less of the bias.
        batch: images a step.
        learning_rate, weight_decay: Adam's, as published for colour-biased digits; the published rate stays the same
            throughout, which leaves a class's figures to the last few steps.
        temperature, q: of :func:`gsc_loss`, as published.

    Raises:
        ValueError: a value out of its range, or an unknown encoder.
    """

    encoder: str = "small"
    steps: int = 60
    batch: int = 256
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    temperature: float = 0.2
    q: float = 0.7

    def __post_init__(self):
        if self.encoder not in models.ENCODERS:
            raise ValueError(f"unknown encoder {self.encoder!r}; {one_of(self.encoder, models.ENCODERS)}")
        for name, least in (("steps", 1), ("batch", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("learning_rate", "temperature", "q"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and above 0, not {getattr(self, name)}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be finite and at least 0, not {self.weight_decay}")


def train_embedding(
    dataset: Dataset,
    settings: EmbeddingSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Train an encoder on the training images and their labels, and embed them: float32 [N, 128], of unit length.

    Groups are not looked at. Images are embedded with the norms' running statistics (published: with those of the
    batch that an image happens to be in, which measured worse).

    Args:
        dataset: its train split is used.
        settings: the defaults if None.
        seed: the initialisation and the batches are functions of it.
        device: cpu or cuda.
        progress: called with (steps done, steps).

    Raises:
        ValueError: images below 4x4, or fewer than 2 of them.
        RuntimeError: embeddings that are not finite; the learning rate is too large.

    Deterministic on a machine and thread count.
    """
    settings = settings or EmbeddingSettings()
    if min(dataset.size) < _SMALLEST_IMAGE:
        raise ValueError(f"images of {dataset.size} are too small for an encoder: at least 4x4")
    n = len(dataset.train)
    if n < 2:
        raise ValueError("an embedding needs at least 2 training images")
    images = DeviceImages.of(dataset.train.images, dataset.mean, dataset.std, device)
    labels = torch.as_tensor(dataset.train.labels, device=device)
    key = rng.key(seed, "bias-encoder")
    net = models.build_encoder(settings.encoder, dataset.channels, key=key, device=device).train()
    rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    adam = torch.optim.Adam(net.parameters(), **rates, fused=labels.is_cuda or None)  # one launch on GPUs
    batch = min(settings.batch, n)
    per_epoch = n // batch
    with models.exact_convolutions():
        for step in range(settings.steps):
            epoch, number = divmod(step, per_epoch)
            if number == 0:
                order = rng.permutation(rng.key(seed, "bias-embedding", epoch), n, images.pixels.device)
            rows = order[number * batch : (number + 1) * batch]
            of_rows = labels[rows.to(labels.device)]
            loss = gsc_loss(net(images.read(rows)), of_rows, temperature=settings.temperature, q=settings.q)
            adam.param_groups[0]["lr"] = settings.learning_rate * (1 - step / settings.steps)
            adam.zero_grad()
            loss.backward()
            adam.step()
            if progress is not None:
                progress(step + 1, settings.steps)
        result = embed(net.eval(), images)
    if not np.isfinite(result).all():
        raise RuntimeError(f"the embedding is not finite; lower its learning rate ({settings.learning_rate})")
    return result


@torch.no_grad()
def embed(net: Callable[[Tensor], Tensor], images: DeviceImages) -> np.ndarray:
    """What ``net`` makes of normalised images, in batches of 256: float32 [N, D].

    Args:
        net: maps [n, C, H, W] to [n, D]; a module's mode is left as it is.
        images: where they are used.

    Raises:
        ValueError: an output of another shape.
    """
    parts = []
    for rows in torch.arange(images.shape[0], device=images.pixels.device).split(_EMBED_BATCH):
        made = net(images.read(rows))
        if not isinstance(made, Tensor) or made.dim() != 2 or len(made) != len(rows):
            found = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(f"an embedding must map [{len(rows)}, C, H, W] to [{len(rows)}, D], not to {found}")
        parts.append(made.float())
    return torch.cat(parts).cpu().numpy()


def bias_embedding(
    dataset: Dataset,
    embedding: Embedding | None,
    settings: EmbeddingSettings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Embeddings of the training images, float32 [N, D] on the device, and what they came from, JSON-able.

    Args:
        dataset: its train split is used.
        embedding: an array [N, D], the path of one or of saved weights, or a module or another function on normalised
            images; a module is used in evaluation mode. None trains an encoder, as ``settings`` and ``seed`` say.
        device: cpu or cuda.
        progress: called with (steps done, steps) of the training.

    Raises:
        TypeError: an embedding of another type.
        ValueError: embeddings of another number of images, not 2-D or not finite.
        RuntimeError: a file that can't be read.

    Rank 0 of a job trains and embeds for all ranks.
    """
    if embedding is None:
        rows = ranks.first(lambda: train_embedding(dataset, settings, seed=seed, device=device, progress=progress))
        about: dict[str, Any] = {**asdict(settings), "seed": seed}
    elif isinstance(embedding, str | os.PathLike):
        rows, about = load_embeddings(embedding, dataset), {"source": Path(embedding).name}
    elif isinstance(embedding, np.ndarray | Tensor):
        rows, about = embedding, {"source": "array"}
    elif callable(embedding):
        rows = ranks.first(lambda: _embedded_by(embedding, dataset, device))
        about = {"source": getattr(embedding, "__name__", type(embedding).__name__)}
    else:
        raise TypeError(f"an embedding is an array, a path, a module or a function, not {type(embedding).__name__}")
    return check_embeddings(rows, len(dataset.train)).to(device), about


def _embedded_by(embedding: Callable[[Tensor], Tensor], dataset: Dataset, device: torch.device | str) -> np.ndarray:
    images = DeviceImages.of(dataset.train.images, dataset.mean, dataset.std, device)
    if not isinstance(embedding, torch.nn.Module):
        return embed(embedding, images)
    training_mode = embedding.training
    try:
        return embed(embedding.to(device).eval(), images)
    finally:
        embedding.train(training_mode)
