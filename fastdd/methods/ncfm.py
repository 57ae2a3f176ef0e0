"""Matching of neural characteristic functions (NCFM; Wang et al., "Dataset Distillation with Neural Characteristic
Function: A Minmax Perspective", CVPR 2025), for every debias mode.

    L = 300 sum over segments s of mean over k of sqrt( a (|A| - |B|)^2 + p 2 (|A| |B| - Re A conj B) ),
    A = sum_i w_i exp(i t_k . f(A(x_i))),    B = mean_j exp(i t_k . f(A(x~_j))),

with f the features before the classifier, each image's of length 1, of a network between an expert's first and last
parameters, t ~ N(0, I), a = p = 1/2 (then the root is |A - B| / sqrt 2), and j over the enlarged parts of the stored
images of the segment's class. After it a step of calibration: the cross-entropy of the synthetic images under the
expert as it ended. FairDD's form is the sum over a class's groups.

As in the published code on one GPU, which the paper had: images are pixels in [0, 1], put back there before every
iteration; one optimiser steps class by class, first for the distances of all classes, then for their cross-entropies
(:class:`~fastdd.methods.parts.turns.Turns`); its learning rate is halved where the loss no longer falls. On several
GPUs each of the published optimisers has the classes of one of them, and moves them as much less between their own
steps. (The paper says 1,024 frequencies where the code's settings have 4,096.)
Where it is not: real images are drawn anew at every step (published: in random order, all before one again), and every
class is seen as it is then (published: as it was some turns before, as a thread decodes them ahead). The published
network that samples t is off in all of its settings, and is not here.
"""

from collections.abc import Hashable
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from fastdd import models, ops
from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys
from fastdd.core.malloc import give_back_growth
from fastdd.core.settings import setting
from fastdd.debias import Segments
from fastdd.methods.base import Context
from fastdd.methods.dm import real_embeddings, seen_by
from fastdd.methods.matching import Matching, RealSettings
from fastdd.methods.parts.expert_networks import Between
from fastdd.methods.parts.networks import Networks
from fastdd.methods.parts.pixels import InParts
from fastdd.methods.parts.turns import Plateau, Turns

# As published: the factor of the distances.
_SCALE = 300.0
# Frequencies held at a time, in bytes: those of one class of the published setting on CPUs.
_FREQUENCY_BYTES = {"cpu": 2**25, "cuda": 2**30}


class NcfmSettings(RealSettings):
    """Settings of matching characteristic functions; the network is that of the experts."""

    factor: int = setting(
        "parts a side of a synthetic image: factor x factor images, which networks see enlarged", ge=1
    )
    inits: ClassVar[tuple[str, ...]] = (*RealSettings.inits, "mix")
    init: str = setting(
        "what the synthetic images are at first: factor x factor real ones in each (mix), real ones at random (real), "
        "as many of every group (balanced), noise, or those of a stored set (its file or run folder)"
    )
    momentum: float = setting(
        "momentum of the synthetic images' updates; of optimizer adamw the first beta", ge=0, lt=1
    )
    optimizer: Literal["adamw", "sgd"] = setting("optimiser of the synthetic images: adamw or sgd")
    weight_decay: float = setting("decay of the synthetic images' pixels, of optimizer adamw", ge=0)
    patience: int = setting("iterations without a new low of the loss after which lr_img is halved", ge=0)
    frequencies: int = setting("random frequencies at which characteristic functions are compared", ge=1)
    amplitude: float = setting("weight of the difference in amplitude, beside that in phase", ge=0)
    phase: float = setting("weight of the difference in phase, beside that in amplitude", ge=0)
    calibration: float = setting(
        "weight of the synthetic images' cross-entropy under the expert; 0 leaves it out", ge=0
    )

    @model_validator(mode="after")
    def _go_together(self) -> "NcfmSettings":
        if self.optimizer == "sgd" and self.weight_decay:
            raise ValueError(f"weight_decay {self.weight_decay:g} is of optimizer adamw; with sgd it must be 0")
        if self.amplitude == self.phase == 0:
            raise ValueError("amplitude and phase are both 0, so that nothing is matched: raise one of them")
        return self


class Ncfm(InParts, Matching):
    """Matching of characteristic functions, beside experts: an iteration is a turn of every class, and one more to
    calibrate.

    Raises:
        ValueError: experts of another network, of no epochs, or of whitened images; or classes, as all share one
            optimiser.
    """

    about = "characteristic functions of features, of networks between the first and the last of an expert"
    source = "Wang et al., CVPR 2025"
    Settings = NcfmSettings
    quick = MappingProxyType({"iterations": 100, "batch_real": 128, "frequencies": 1024, "lr_img": 0.01})
    experts = MappingProxyType(
        {
            **{"num_experts": 20, "epochs": 60, "lr_teacher": 0.01, "batch_train": 128},
            **{"momentum": 0.9, "weight_decay": 5e-4},
        }
    )
    needs_experts = True
    classes_apart = False
    _networks: Between

    def __init__(self, config: NcfmSettings, context: Context):
        if context.classes is not None:
            raise ValueError("all classes of ncfm share one optimiser: its steps can't be on some of them")
        if context.experts.zca is not None:
            raise ValueError("the experts were trained on whitened images (ZCA), which ncfm does not: train others")
        if context.experts.epochs < 1:
            raise ValueError("the experts have no epochs, so that they end where they begin: train them for some")
        self._experts = context.experts
        super().__init__(config, context)
        dataset, device = context.dataset, context.device
        self._plateau = Plateau(config.lr_img, config.patience, device)
        self._turns = Turns(
            self.images.detach(),
            self.momentum,
            dataset.num_classes,
            config.optimizer,
            config.momentum,
            config.weight_decay,
            self._plateau.lr,
        )
        self._rounds = 2 if config.calibration else 1
        self._at_hand: Keys  # of the step that is done
        with torch.no_grad():
            probe = torch.zeros(1, dataset.channels, *dataset.size, device=device)
            self._columns = self._networks.net.embed(probe).shape[1]
        of_class = 4 * config.frequencies * self._columns
        self._at_once = max(1, min(self._at_once, _FREQUENCY_BYTES[device.type] // of_class))

    def _make_networks(self, net: nn.Module) -> Networks:
        self._experts.check_network(net, self._config.arch)
        return Between(net, self._experts, self._config.seed)

    def _augmentation(self, keys: Tensor) -> Tensor:
        return ops.idc_params(self._config.dsa_strategy, keys, self._real.size)

    def keys(self, number: int) -> HostKeys:
        keys = {"frequencies": rng.key(self._config.seed, "frequencies", number)}
        if self._config.calibration:
            keys["calibration"] = rng.key(self._config.seed, "calibration", number)
        for round_ in range(self._rounds):
            keys[f"done {round_}"] = (number * self._rounds + round_) * len(self.classes)
        return {**super().keys(number), **keys}

    def phase(self, number: int) -> Hashable | None:
        # As in Dm.phase.
        return None if models.couples_samples(self._networks.net) else super().phase(number)

    def frequencies(self, keys: Keys, classes: range) -> Tensor:
        """Those of the iteration with these keys, [classes, K, D]."""
        lanes = rng.lanes(keys["frequencies"], classes.stop, self.images.device)
        return ops.cf_frequencies(lanes[classes.start :], self._config.frequencies, self._columns)

    def match(self, number: int) -> Tensor:
        return self._match(number, self.keys(number))

    def _do(self, number: int, keys: Keys) -> Tensor:
        loss = self._match(number, keys)
        if self._config.calibration:
            loss = loss + self._calibrate(number, keys)
        self._plateau.see(loss)
        return loss

    @torch.no_grad()
    def _match(self, number: int, keys: Keys) -> Tensor:
        self._at_hand = keys
        self.images.clamp_(0, 1)
        self._turns.wait(keys["done 0"])
        return super()._match(number, keys)

    def _update(self, gradient: Tensor) -> None:
        self._turns.step(self._at_hand["done 0"], gradient)

    def _loss_and_gradient(
        self, net: nn.Module, segments: Segments, images: Tensor, params: Tensor
    ) -> tuple[Tensor, Tensor]:
        config, count, ipc = self._config, len(params), self._config.ipc
        gradient, found = torch.empty_like(images), []
        for first, last, some in segments.by_classes(count, self._at_once):
            own, of_classes = some.to(images.device), params[first:last]
            real = F.normalize(real_embeddings(net, self._real, own, of_classes, config.precision).float(), dim=1)
            t = self.frequencies(self._at_hand, range(first, last))
            with torch.enable_grad():
                leaf = images[first * ipc : last * ipc].detach().requires_grad_()
                seen = F.normalize(seen_by(net, net.embed, leaf, of_classes, self.formation), dim=1)
                weights = {"amplitude": config.amplitude, "phase": config.phase}
                each = ops.cf_match(real, seen, t, own.offsets, own.weights, own.classes, last - first, **weights)
                total = own.total(_SCALE * each)
            found.append(_SCALE * each.detach())
            gradient[first * ipc : last * ipc] = torch.autograd.grad(total, leaf)[0]
            del t, each, total
            give_back_growth()
        return segments.to(images.device).total(torch.cat(found)), gradient

    @torch.no_grad()
    def _calibrate(self, number: int, keys: Keys) -> Tensor:
        """The second round of an iteration. Returns its loss."""
        config, count, ipc = self._config, len(self.classes), self._config.ipc
        self._turns.wait(keys["done 1"])
        net, images = self._networks.last(number, keys), self.images.detach()
        params = self._augmentation(rng.lanes(keys["calibration"], count, images.device))
        gradient, loss = torch.empty_like(images), torch.zeros((), device=images.device)
        for first in range(0, count, self._at_once):
            last = min(first + self._at_once, count)
            with torch.enable_grad():
                leaf = images[first * ipc : last * ipc].requires_grad_()
                logits = seen_by(net, net, leaf, params[first:last], self.formation)
                labels = torch.arange(first, last, device=images.device).repeat_interleave(
                    len(logits) // (last - first)
                )
                total = config.calibration * (last - first) * F.cross_entropy(logits, labels)
            loss += total.detach()
            gradient[first * ipc : last * ipc] = torch.autograd.grad(total, leaf)[0]
        self._turns.step(keys["done 1"], gradient)
        return loss

    def state(self) -> dict[str, Any]:
        second = {} if self._turns.second is None else {"second": self._turns.second}
        return {**super().state(), **second, **self._plateau.state()}
