"""IDC on representative images (DREAM; Liu et al., "DREAM: Efficient Dataset Distillation by Representative Matching",
ICCV 2023), for every debias mode.

Steps are those of :mod:`fastdd.methods.idc`, but real images are not drawn: every ``interval`` steps k-means clusters
the embeddings of all images of a class, under the network as it is then, into as many clusters as a step sees images,
and until the next time the step's images are those nearest the centroids. The first synthetic images are such ones too
(``init=kmean``).

Constants are those of the public code (squared or absolute differences by data set; FairDD's paper names squared ones
for DREAM). It clusters classes, so that protected groups of few images may have no representative, and FairDD's sum has
no term for them then; with ``cluster_by=group`` every group is clustered by itself.
"""

from collections.abc import Hashable
from typing import ClassVar

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fastdd.core import rng
from fastdd.core.graph import HostKeys, Keys
from fastdd.core.settings import setting
from fastdd.data.initial import mosaics
from fastdd.debias import Batch
from fastdd.methods.base import Context, Part
from fastdd.methods.idc import Idc, IdcSettings
from fastdd.methods.parts.representatives import CLUSTER_BY, Representatives


class DreamSettings(IdcSettings):
    """Settings of IDC, and of how representative images are found."""

    inits: ClassVar[tuple[str, ...]] = (*IdcSettings.inits, "kmean")
    init: str = setting(
        "what the synthetic images are at first: factor x factor real ones in each, at random (mix) or representative "
        "(kmean), real ones at random (real), as many of every group (balanced), noise, or those of a stored set (its "
        "file or run folder)"
    )
    interval: int = setting("matching steps between two clusterings of the real images", 10, ge=1)
    cluster_by: CLUSTER_BY = setting(
        "what is clustered by itself: each class (as published), or each group of a class, so that none is left out",
        "class",
    )

    @model_validator(mode="after")
    def _no_draws(self) -> "DreamSettings":
        if self.sampling != "random":
            raise ValueError(
                f"dream draws no real images that could be {self.sampling}; cluster_by=group has images of every group"
            )
        return self


class Dream(Idc):
    """Gradient matching as IDC's, of the real images that represent their classes."""

    about = "gradient matching as idc does it, of real images that represent their classes (k-means)"
    source = "Liu et al., ICCV 2023"
    Settings = DreamSettings

    def __init__(self, config: DreamSettings, context: Context):
        super().__init__(config, context)
        dataset = context.dataset
        self._found = Representatives(dataset, self._samples, self._real, config.cluster_by)
        home = self._real.pixels.device
        # Of all classes, as a checkpoint has those of all ranks; a class of fewer images has -1 after them.
        self._representatives = torch.full((dataset.num_classes, config.batch_real), -1, device=home)
        counts = torch.tensor([self._found.count(label, config.batch_real) for label in self.classes])
        self._owners = torch.arange(len(counts)).repeat_interleave(counts).to(home)
        there = torch.arange(config.batch_real) < counts[:, None]
        self._places = there.flatten().nonzero()[:, 0].to(home)
        if config.init == "kmean":
            self._begin_with_representatives()

    @torch.no_grad()
    def _begin_with_representatives(self) -> None:
        config, net = self._config, self._networks.untrained(0)
        wanted = torch.arange(config.ipc * self.formation.per_image)
        for label in self.classes:
            key = rng.key(config.seed, "first-representatives", label)
            rows = self._found.find(net, label, len(wanted), key)
            images = self._real.read(rows[(wanted % len(rows)).to(rows.device)])
            of_class = slice(label * config.ipc, (label + 1) * config.ipc)
            self.images[of_class] = self.formation.store(mosaics(images, config.factor))

    def find_representatives(self, number: int) -> None:
        """Those of step ``number``, of the network as it is now."""
        net = self._networks.net
        for label in self.classes:
            key = rng.key(self._config.seed, "representatives", number, label)
            rows = self._found.find(net, label, self._config.batch_real, key)
            self._representatives[label, : len(rows)] = rows

    def keys(self, number: int) -> HostKeys:
        return {name: key for name, key in super().keys(number).items() if name != "batch"}

    def phase(self, number: int) -> Hashable | None:
        # The host looks at clusters as they are made.
        return None if self._refreshes(number) else super().phase(number)

    def _refreshes(self, number: int) -> bool:
        return number % self._config.outer_loop % self._config.interval == 0

    def _batch(self, number: int, net: nn.Module, keys: Keys | None = None) -> Batch:
        if self._refreshes(number):
            self.find_representatives(number)
        rows = self._representatives[self.classes.start : self.classes.stop].flatten()[self._places]
        return self._draws.of_rows(rows, self._owners)

    def parts(self) -> list[Part]:
        steps, interval = self._config.outer_loop, self._config.interval
        if 1 in (steps, interval):  # every step that is measured finds them
            return super().parts()
        return [Part(self.find_representatives, -(-steps // interval), True), *super().parts()]

    def of_classes(self) -> list[Tensor]:
        return [*super().of_classes(), self._representatives]

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "representatives": self._representatives}
