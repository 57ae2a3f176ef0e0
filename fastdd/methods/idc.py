"""Gradient matching of images that hold several, beside networks that train on real images (IDC; Kim et al., "Dataset
Condensation via Efficient Synthetic-Data Parameterization", ICML 2022), for every debias mode.

    L = sum over segments s of D( sum_i w_i grad l(A(x_i), y_s), mean_j grad l(A(x~_j), y_s) ),

with D the sum of absolute (``l1``) or squared (``mse``) differences, grad with respect to the weights of convolutions,
j over the parts of the stored images of the segment's class, each enlarged (multi-formation), and A the augmentation of
:func:`fastdd.ops.idc_params`. FairDD's form is the sum over a class's groups.

As in the published code: images are pixels in [0, 1], put back there before the first step of a network; one optimiser
steps class by class, so that every class coasts while the others have their turn
(:class:`~fastdd.methods.parts.coasting.Coasting`); the learning rate grows with IPC and area; the network trains on
real images with CutMix, and without cutout then. Where it is not: real images are drawn anew at every step (published:
in random order, all before one again), batches of the network's training are never smaller, and the last training of a
network, which nothing would look at, is left out.
"""

from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys
from fastdd.core.settings import setting
from fastdd.debias import Segments
from fastdd.methods.base import Context, Part
from fastdd.methods.dc import DIVERGED, Dc
from fastdd.methods.matching import NetworksSettings
from fastdd.methods.parts.coasting import Coasting
from fastdd.methods.parts.networks import Networks
from fastdd.methods.parts.pixels import InParts
from fastdd.methods.parts.real_networks import RealTraining, TrainedOnReal

# That the published learning rates are for.
_BASE_IPC = 10
_QUICK = MappingProxyType({"iterations": 1, "outer_loop": 100})


class IdcSettings(NetworksSettings):
    """Settings of gradient matching as IDC does it."""

    lr_img: float = setting(
        "learning rate of the synthetic images at IPC 10 and of base_size; it is multiplied by IPC / 10 and by their "
        "area over that of base_size",
        gt=0,
    )
    base_size: int = setting("side, in pixels, of images that lr_img is for", 32, ge=1)
    factor: int = setting(
        "parts a side of a synthetic image: factor x factor images, which networks see enlarged", ge=1
    )
    inits: ClassVar[tuple[str, ...]] = (*NetworksSettings.inits, "mix")
    init: str = setting(
        "what the synthetic images are at first: factor x factor real ones in each (mix), real ones at random (real), "
        "as many of every group (balanced), noise, or those of a stored set (its file or run folder)"
    )
    metric: Literal["l1", "mse"] = setting(
        "distance between gradients of convolutions: l1 (absolute differences) or mse (squared ones)"
    )
    batch_synthetic: int = setting("parts of a class's synthetic images that a step sees at most", 128, ge=1)
    outer_loop: int = setting("matching steps of every random network", 100, ge=1)
    train_images: int = setting("real images that the network trains on between two matching steps", ge=0)
    batch_train: int = setting("real images of a step of that training", ge=1)
    lr_net: float = setting("learning rate of the network when it trains on real images", gt=0)
    cutmix: float = setting("probability of CutMix when the network trains", ge=0, le=1)
    warm_epochs: int = setting("passes over the real images that a network trains for before it is matched on", 0, ge=0)

    @property
    def steps(self) -> int:
        return self.iterations * self.outer_loop


class Idc(InParts, Dc):
    """Gradient matching of images in parts: an iteration is one network, matched and trained on real images in turns.

    A step is one matching step of every class and, unless it is the iteration's last, the training of the network that
    follows it. Ranks share the classes; all train the network, on the same batches.
    """

    about = "gradient matching of images that hold several, on networks that train on real images"
    source = "Kim et al., ICML 2022"
    Settings = IdcSettings
    quick = _QUICK
    _networks: TrainedOnReal

    def __init__(self, config: IdcSettings, context: Context):
        super().__init__(config, context)
        dataset, of_class = context.dataset, config.ipc * self.formation.per_image
        height, width = dataset.size
        lr = config.lr_img * (config.ipc / _BASE_IPC) * (height * width / config.base_size**2)
        owners = [label for label in self.classes for _ in range(config.ipc)]
        self._coasting = Coasting(owners, dataset.num_classes, lr, config.momentum, context.device)
        self._of_class = of_class if of_class > config.batch_synthetic else None
        self._parts: Tensor | None = None  # of every class, that the step at hand sees

    def _make_networks(self, net: nn.Module) -> Networks:
        config = self._config
        always = ops.parse_strategy(config.dsa_strategy)
        # What CutMix pastes in takes the place of what cutout takes away.
        strategy = "_".join(op for op in always if not (config.cutmix and op == "cutout")) or "none"
        how = RealTraining(
            config.train_images, config.batch_train, config.lr_net, strategy, config.cutmix, config.warm_epochs
        )
        begun, labels = self._begun(net.requires_grad_(True)), self._samples.labels.to(self.images.device)
        return TrainedOnReal(begun, config.seed, config.outer_loop, self._real, labels, how, self._pool)

    def keys(self, number: int) -> HostKeys:
        parts = {"parts": rng.key(self._config.seed, "parts", number)}
        return {**super().keys(number), **(parts if self._of_class is not None else {})}

    @torch.no_grad()
    def _match(self, number: int, keys: Keys) -> Tensor:
        images, momentum = self.images[self._rows], self.momentum[self._rows]
        if number % self._config.outer_loop == 0:
            images.clamp_(0, 1)
        self._coasting.until_own_step(images, momentum)
        if self._of_class is not None:
            lanes = rng.lanes(keys["parts"], self.classes.stop, images.device)
            drawn = rng.permutation(lanes[self.classes.start :], self._of_class)
            self._parts = drawn[:, : self._config.batch_synthetic]
        return super()._match(number, keys)

    @torch.no_grad()
    def _update(self, gradient: Tensor) -> None:
        self._coasting.own_step(self.images[self._rows], self.momentum[self._rows], gradient)

    def _augmentation(self, keys: Tensor) -> Tensor:
        return ops.idc_params(self._config.dsa_strategy, keys, self._real.size)

    def train(self, number: int) -> None:
        loss = self._networks.train(number)
        if loss is not None:
            self._trainings.add(number, loss)

    def parts(self) -> list[Part]:
        steps = self._config.outer_loop
        if steps == 1:
            return super().parts()
        # A network's first step has its warm start, which is a part of its own.
        parts = [Part(lambda count: self.match(count * steps + 1), steps, True), Part(self.train, steps - 1, False)]
        return [*parts, Part(self._networks.warm, 1, False)] if self._config.warm_epochs else parts

    def trouble(self, number: int, loss: float) -> str | None:
        of_network = self._trainings.of(number - 1) if number % self._config.outer_loop else None
        if of_network is not None and not of_network <= DIVERGED:
            cure = f"lower lr_net ({self._config.lr_net:g})"
            return f"the network diverged on the real images (loss {of_network:.4g}); {cure}"
        return super(Dc, self).trouble(number, loss)

    def _loss_and_gradient(
        self, net: nn.Module, segments: Segments, images: Tensor, params: Tensor, **more: Any
    ) -> tuple[Tensor, Tensor]:
        return super()._loss_and_gradient(net, segments, images, params, parameters="conv", parts=self._parts, **more)
