"""SelecMix: mixing images with others that contradict the bias."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import models
from fastdd.core import rng
from fastdd.core.settings import setting
from fastdd.debias.density.embedding import gsc_loss
from fastdd.training.base import Recipe, Settings
from fastdd.training.failure import LossTables


class SelecMixSettings(Settings):
    """Constants of SelecMix."""

    pool: int = setting("images among which partners are looked for; published 1024, 256 for faces", 1024, ge=2)
    encoder: Literal["small", "resnet18"] = setting("network of the bias embedding; published resnet18", "small")
    encoder_lr: float = setting("its learning rate; published 0.01 for digits, 0.001 for CIFAR", 0.01, gt=0)
    encoder_weight_decay: float = setting("its weight decay", 1e-4, ge=0)
    temperature: float = setting("of its contrastive loss", 0.2, gt=0)
    encoder_q: float = setting("sharpness of its contrastive loss", 0.7, gt=0, le=1)


class SelecMixLffSettings(SelecMixSettings):
    """Constants of SelecMix beside LfF."""

    q: float = setting("of the biased network's generalised cross-entropy: sharper with q", 0.7, gt=0, le=1)
    decay: float = setting("how much of an image's earlier losses counts against the last", 0.7, ge=0, lt=1)
    lambda_mix: float = setting("weight of the mixed images' loss beside LfF's two", 0.1, ge=0)


def partners(similarities: Tensor, labels: Tensor, same: bool) -> Tensor:
    """Whom each image is mixed with, int64 [B]: those whose bias contradicts the label.

    Args:
        similarities: [B, B], of bias embeddings.
        labels: int64 [B].
        same: the least similar image of the same label; else the most similar of another label. An image without one
            has itself. (Published code multiplies similarities by 0 and 1 in place of leaving images out, which errs
            where all are negative.)

    >>> alike = torch.tensor([[1.0, 0.9, -0.2], [0.9, 1.0, 0.1], [-0.2, 0.1, 1.0]])
    >>> partners(alike, torch.tensor([0, 0, 1]), True), partners(alike, torch.tensor([0, 0, 1]), False)
    (tensor([1, 0, 2]), tensor([2, 2, 1]))
    """
    alike = labels[:, None] == labels
    itself = torch.arange(len(labels), device=labels.device)
    if same:
        alike = alike & (itself[:, None] != itself)
        found = similarities.masked_fill(~alike, torch.inf).argmin(1)
        return torch.where(alike.any(1), found, itself)
    found = similarities.masked_fill(alike, -torch.inf).argmax(1)
    return torch.where((~alike).any(1), found, itself)


class SelecMix(Recipe):
    """Images mixed with partners that contradict the bias, under the partner's label alone:

        x~ = lambda x + (1 - lambda) x_j,    lambda = U(0, 1) / 2 an image,    L = mean of CE(f(x~), y_j)

    A fair coin for the whole pool of images says whether j is the least similar image of the same label or the most
    similar of another (:func:`partners`), by an encoder that learns the bias on the way: an Adam step of
    :func:`fastdd.debias.density.embedding.gsc_loss` a batch.
    """

    name = "selecmix"
    about = "images are mixed with others that contradict the bias"
    source = "Hwang et al., NeurIPS 2022"
    Settings = SelecMixSettings

    def __init__(self, *args: Any):
        super().__init__(*args)
        data, config = self.data, self.config
        self._encoder = models.build_encoder(
            config.encoder, data.images.shape[1], key=rng.key(*self._key, "encoder"), device=data.device
        )
        self._adam = torch.optim.Adam(
            self._encoder.parameters(), lr=config.encoder_lr, weight_decay=config.encoder_weight_decay, fused=True
        )
        self._order = self._rows = self._partners = torch.empty(0, dtype=torch.int64)
        self._images = torch.empty(0)
        self._read = self._place = 0
        self._times = torch.zeros(len(data), dtype=torch.int64, device=data.device)

    def order(self, key: tuple) -> Tensor:
        self._order = rng.permutation(rng.key(*key), len(self.data), self.data.device)
        self._partners = self._order[:0]
        self._read = self._place = 0
        self._times.zero_()
        return self._order

    def read(self, rows: Tensor, key: tuple) -> Tensor:
        self._look_ahead(len(rows), key)
        return self._images[self._place : self._place + len(rows)]

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        mixed, labels = self._mixed(rows, images, key)
        return F.cross_entropy(self.net(mixed), labels)

    def _mixed(self, rows: Tensor, images: Tensor, key: tuple) -> tuple[Tensor, Tensor]:
        """The batch's mixed images and their labels; after it the encoder has learned from the batch."""
        self._look_ahead(len(rows), key)
        others = self._partners[self._place : self._place + len(rows)]
        self._place += len(rows)
        share = (rng.uniform(rng.key(*key, "shares"), len(rows), rows.device) / 2).to(images.dtype)[:, None, None, None]
        self._learn(images, self.data.labels[rows])
        return torch.lerp(self._images[others], images, share), self.data.labels[self._rows[others]]

    @torch.no_grad()
    def _look_ahead(self, batch: int, key: tuple) -> None:
        """Once a pool is trained on: images of the next batches of the epoch, in one read, and their partners."""
        if self._place < len(self._partners):
            return
        size = max(1, self.config.pool // batch) * batch
        rows = self._order[self._read : self._read + size]
        self._read, self._place = self._read + len(rows), 0
        self._images = self.data.read_batches(rows.to(self.data.images.pixels.device), batch, key)
        embeddings = torch.cat([self._encoder(some) for some in self._images.split(batch)])
        same = bool(rng.bits_array(rng.key(*key, "coin"), 1)[0] & 1)
        self._rows, self._partners = rows, partners(embeddings @ embeddings.t(), self.data.labels[rows], same)
        self._times.index_add_(0, rows[self._partners], torch.ones_like(rows))

    def _learn(self, images: Tensor, labels: Tensor) -> None:
        config = self.config
        loss = gsc_loss(self._encoder(images), labels, temperature=config.temperature, q=config.encoder_q)
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()

    def image_weights(self) -> dict[str, Tensor]:
        return {"partner": self._times.float()}

    def state(self) -> dict[str, Any]:
        own = {"encoder": self._encoder.state_dict(), "adam": self._adam.state_dict()}
        return super().state() | own

    def bytes(self) -> int:
        own = [*self._encoder.state_dict().values(), *[*self._encoder.parameters()] * 2]  # Adam has two of each
        return super().bytes() + sum(tensor.nbytes for tensor in own)

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._encoder.load_state_dict(state["encoder"])
        self._adam.load_state_dict(state["adam"])


class SelecMixLff(SelecMix):
    """LfF's two networks and losses, and 0.1 of SelecMix's for the debiased one (the form that the papers compare)."""

    name = "selecmix-lff"
    about = "learning from failure, and images mixed with others that contradict the bias"
    Settings = SelecMixLffSettings

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._biased = self._another("biased")
        self.modules = {"biased": self._biased}
        self._tables = LossTables(self.data.labels, self.data.num_classes, self.config.decay)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        total = self._tables.loss(rows, self._biased(images), self.net(images), self.config.q)
        mixed, labels = self._mixed(rows, images, key)
        return total + self.config.lambda_mix * F.cross_entropy(self.net(mixed), labels)

    def image_weights(self) -> dict[str, Tensor]:
        return {"loss": self._tables.weights(), **super().image_weights()}

    def tables(self) -> dict[str, Tensor]:
        return self._tables.tensors()
