"""Steps that match real images: draw, look, compare, update."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fastdd import models, ops
from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys
from fastdd.core.settings import setting
from fastdd.core.text import listed
from fastdd.data import DeviceImages
from fastdd.debias import Batch, Segments, modes_that_need
from fastdd.methods.base import Context, Method, Settings, build_network
from fastdd.methods.parts.draws import SAMPLINGS, Draws, RealSamples
from fastdd.methods.parts.networks import Fresh, Networks, Trained


class RealSettings(Settings):
    """Settings of methods that draw real images."""

    batch_real: int = setting("real images of every class that a step sees", ge=1)
    sampling: SAMPLINGS = setting(
        "how real images are drawn: random (as published), stratified (evenly over groups), or weighted (in "
        "proportion to the weights)",
        "random",
    )
    precision: Literal["fp32", "bf16"] = setting("precision of the real images' pass through the network", "fp32")
    aligned_factor: float | None = setting(
        "lambda of debias biased-dd: how much of the distance to the bias-aligned images is taken off",
        None,
        default_help="by which the minimum is fairdd's",
        ge=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _factor_of_its_mode(self) -> "RealSettings":
        if self.aligned_factor is not None and self.debias != "biased-dd":
            raise ValueError(f"aligned_factor is for debias biased-dd, not {self.debias}")
        return self

    @model_validator(mode="after")
    def _weights_to_draw_by(self) -> "RealSettings":
        if self.sampling == "weighted" and self.mode.needs != "weights":
            able = listed(modes_that_need("weights"), "or")
            raise ValueError(f"sampling weighted is for debias {able}, not {self.debias}")
        return self


class NetworksSettings(RealSettings):
    """Settings of methods whose networks begin at random, or as trained ones are."""

    networks: str | None = setting(
        "folder of trained networks, which are matched on in turn in place of random ones: experts (fastdd experts), "
        "or networks of fastdd train in folders of their own",
        None,
        default_help="random ones",
    )
    networks_epoch: int | None = setting(
        "epoch of the experts' training that networks are of", None, default_help="the last", ge=0
    )

    @model_validator(mode="after")
    def _epoch_of_networks(self) -> "NetworksSettings":
        if self.networks_epoch is not None and self.networks is None:
            raise ValueError(f"networks_epoch {self.networks_epoch} is of trained networks: give networks too")
        return self


class Matching(Method):
    """Steps on real images: a network, a batch, an augmentation, a loss, one update.

    What a step does to a class does not depend on which classes are matched together: on CPUs, with this package's
    kernels, its images have the same bits, elsewhere they are the same to rounding.
    """

    def __init__(self, config: RealSettings, context: Context):
        super().__init__(config, context)
        self._trained = context.networks
        dataset, device = context.dataset, context.device
        self._real = DeviceImages.of(dataset.train.images, dataset.mean, dataset.std, device)
        # Rows are drawn where the images are looked up, so that nothing has to wait for a GPU to know them.
        home = self._real.pixels.device
        self._samples = RealSamples.of(dataset, context.weights, home)
        counts = dataset.train.counts(dataset.num_classes, dataset.num_groups)[self.classes]
        self._draws = Draws(
            self._samples, torch.as_tensor(counts, device=home), self.classes, config.batch_real, config.sampling
        )
        self._synthetic_labels = torch.arange(dataset.num_classes, device=device).repeat_interleave(
            config.ipc * self.formation.per_image
        )
        net = build_network(self._matched_on(), dataset.channels, dataset.num_classes, dataset.size, device)
        self._at_once = models.classes_at_once(
            net,
            self.images,
            config.ipc * self.formation.per_image,
            config.batch_real,
            low_memory=config.memory == "low",
        )
        self._networks = self._make_networks(net)

    def _matched_on(self) -> RealSettings:
        """Settings of the networks that are matched on; the run's by default."""
        return self._config

    def _make_networks(self, net: nn.Module) -> Networks:
        """The networks over time; another one at every step by default."""
        return self._begun(net)

    def _begun(self, net: nn.Module) -> Networks:
        """Networks as they begin: at random, or as trained ones are."""
        if self._trained is None:
            return Fresh(net, self._config.seed)
        epoch = self._config.networks_epoch
        return Trained(net, self._trained, self._trained.epochs if epoch is None else epoch)

    def match(self, number: int) -> Tensor:
        """The matching of step ``number``. Returns its loss."""
        return self._steps(number)

    def keys(self, number: int) -> HostKeys:
        seed = self._config.seed
        own = {name: rng.key(seed, name, number) for name in ("batch", "dsa")}
        return {**super().keys(number), **self._networks.keys(number), **own}

    def phase(self, number: int) -> Hashable | None:
        elsewhere = self._real.pixels.device != self.images.device
        in_parts = self._at_once < len(self.classes)  # of segments whose sizes the device knows
        if elsewhere or in_parts or self._config.mode.waits:
            return None
        return self._networks.phase(number)

    def _do(self, number: int, keys: Keys) -> Tensor:
        return self._match(number, keys)

    def _match(self, number: int, keys: Keys) -> Tensor:
        """The matching of step ``number`` with these keys. Returns its loss."""
        net = self._network(number, keys)
        batch = self._batch(number, net, keys)
        if self._config.aligned_factor is not None:
            batch = replace(batch, aligned_factor=self._config.aligned_factor)
        if self._config.mode.needs == "embeddings":
            batch = replace(batch, embeddings=self._embeddings(net, batch))
        first, last = self.classes.start, self.classes.stop
        lanes = rng.lanes(keys["dsa"], last, self.images.device)[first:]
        params = self._augmentation(lanes)
        images = self.images.detach()[self._rows]
        loss, gradient = self._loss_and_gradient(net, self._config.mode.segments(batch), images, params)
        self._move(gradient, keys)
        return loss

    def _move(self, gradient: Tensor, keys: Keys) -> None:
        """What a step does with the gradient of the stored images of ``classes``."""
        self._update(gradient)

    def _batch(self, number: int, net: nn.Module, keys: Keys | None = None) -> Batch:
        """The real images of step ``number``, which ``net`` is about to see."""
        return self._draws.batch((keys or self.keys(number))["batch"], net)

    @torch.no_grad()
    def _embeddings(self, net: nn.Module, batch: Batch) -> Tensor:
        """What ``net`` sees of a batch as it is, class by class, so that no class's bits depend on others."""
        counts = torch.bincount(batch.classes, minlength=batch.num_classes).tolist()
        return torch.cat([net.embed(self._real.read(rows)) for rows in batch.rows.split(counts) if len(rows)])

    def _augmentation(self, keys: Tensor) -> Tensor:
        """Augmentation parameters (:func:`fastdd.ops.augment_passes`), a row a key."""
        return ops.dsa_params(self._config.dsa_strategy, keys, self._real.size)

    def _network(self, number: int, keys: Keys) -> nn.Module:
        """The network of step ``number``."""
        return self._networks.at(number, keys)

    def _loss_and_gradient(
        self, net: nn.Module, segments: Segments, images: Tensor, params: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of the stored images of ``classes``, under augmentation parameters of each, and its gradient."""
        raise NotImplementedError

    def _all_images(self) -> Tensor:
        """What networks see of all classes' images as they are now, those of other ranks too."""
        if self._gather is not None:
            self._gather()
        return self.formation(self.images.detach())

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **self._networks.state()}
