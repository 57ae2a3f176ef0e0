"""Disentangled feature augmentation: bias features of one image beside intrinsic features of another."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd import models
from fastdd.core import rng
from fastdd.core.settings import setting
from fastdd.models.network import Network
from fastdd.training.base import Recipe, Settings
from fastdd.training.failure import LossTables, generalised_cross_entropy


class DfaSettings(Settings):
    """Constants of DFA."""

    q: float = setting("of the biased head's generalised cross-entropy: sharper with q", 0.7, gt=0, le=1)
    decay: float = setting("how much of an image's earlier losses counts against the last", 0.7, ge=0, lt=1)
    swap_from: int = setting("steps before bias features are swapped; published 10,000 of 50,000", 10000, ge=0)
    halve_every: int = setting(
        "steps after which fastdd train halves the learning rate, from swap_from on, again and again", 10000, ge=1
    )
    lambda_dis: float = setting(
        "weight of the biased head's loss; published 10 for digits, 1 or 5 for CIFAR", 1.0, ge=0
    )
    lambda_swap_bias: float = setting("the same, where bias features are swapped", 1.0, ge=0)
    lambda_swap: float = setting("weight of all that is swapped; published 1, 0.1 for faces", 1.0, ge=0)


class Disentangled(nn.Module):
    """The network that predicts: the intrinsic head on both encoders' features."""

    def __init__(self, intrinsic: nn.Module, bias: nn.Module, head: nn.Linear):
        super().__init__()
        self.intrinsic, self.bias, self.head = intrinsic, bias, head

    def embed(self, images: Tensor) -> Tensor:
        """What the last layer sees, [N, embedding_dim of both]."""
        return torch.cat([self.intrinsic.embed(images), self.bias.embed(images)], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.embed(images))


class Dfa(Recipe):
    """Two encoders, intrinsic i and bias b, and a linear head on [z_i; z_b] for each; sg stops the gradient:

        L_dis  = mean of w CE(C_i[z_i; sg z_b], y) + lambda_dis mean of GCE(C_b[sg z_i; z_b], y)
        L_swap = mean of w CE(C_i[z_i; sg z~], y) + lambda_swap_bias mean of GCE(C_b[sg z_i; z~], y~)
        L = L_dis + lambda_swap L_swap, the latter from step ``swap_from``

    (z~, y~) are z_b and y of the batch in another order; w is LfF's, of the two cross-entropies in L_dis. C_i predicts.
    The encoders are networks up to their last layer, which is not used. Published: Adam, batch 256, 50,000 steps; the
    learning rate falls by half every ``halve_every`` steps once features are swapped (:meth:`rate`).
    """

    name = "dfa"
    about = "disentangled features: bias features of one image beside intrinsic features of another"
    source = "Lee et al., NeurIPS 2021"
    Settings = DfaSettings
    net_predicts = False

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._bias = self._another("bias")
        features = self.net.embedding_dim + self._bias.embedding_dim

        def head(name: str) -> nn.Linear:
            return models.initialised(
                lambda: nn.Linear(features, self.data.num_classes), rng.key(*self._key, name), self.data.device
            )

        self._intrinsic_head, self._bias_head = head("intrinsic-head"), head("bias-head")
        self.modules = {"bias": self._bias, "intrinsic_head": self._intrinsic_head, "bias_head": self._bias_head}
        self._tables = LossTables(self.data.labels, self.data.num_classes, self.config.decay)
        self._steps = 0

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        config, labels = self.config, self.data.labels[rows]
        intrinsic, bias = self.net.embed(images), self._bias.embed(images)
        logits, of_bias = self._heads(intrinsic, bias)
        losses = F.cross_entropy(logits, labels, reduction="none")
        weights = self._tables.updated(rows, F.cross_entropy(of_bias, labels, reduction="none"), losses)
        total = (weights * losses).mean() + config.lambda_dis * self._biased(of_bias, labels)
        if self._steps >= config.swap_from:
            order = rng.permutation(rng.key(*key, "swap"), len(rows), rows.device)
            logits, of_bias = self._heads(intrinsic, bias[order])
            swapped = (weights * F.cross_entropy(logits, labels, reduction="none")).mean()
            swapped = swapped + config.lambda_swap_bias * self._biased(of_bias, labels[order])
            total = total + config.lambda_swap * swapped
        self._steps += 1
        return total

    def rate(self) -> float:
        return 0.5 ** (max(int(self._steps) - self.config.swap_from, 0) // self.config.halve_every)

    def _heads(self, intrinsic: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        of_intrinsic = self._intrinsic_head(torch.cat([intrinsic, bias.detach()], 1))
        return of_intrinsic, self._bias_head(torch.cat([intrinsic.detach(), bias], 1))

    def _biased(self, logits: Tensor, labels: Tensor) -> Tensor:
        return generalised_cross_entropy(logits, labels, self.config.q).mean()

    def predictor(self) -> nn.Module:
        return Disentangled(self.net, self._bias, self._intrinsic_head)

    @classmethod
    def network_of(cls, predictor: Disentangled) -> nn.Module:
        """The encoder of intrinsic features, whose last layer is as it began."""
        return predictor.intrinsic

    @classmethod
    def empty_predictor(cls, make: Callable[[], Network], num_classes: int) -> nn.Module:
        intrinsic, bias = make(), make()
        return Disentangled(intrinsic, bias, nn.Linear(intrinsic.embedding_dim + bias.embedding_dim, num_classes))

    def image_weights(self) -> dict[str, Tensor]:
        return {"loss": self._tables.weights()}

    def tables(self) -> dict[str, Tensor]:
        return self._tables.tensors()

    def state(self) -> dict[str, Any]:
        state = super().state()
        state["tables"]["steps"] = torch.tensor(self._steps)
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._steps = int(state["tables"]["steps"])
