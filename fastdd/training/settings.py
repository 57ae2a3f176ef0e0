"""Settings of ``fastdd train``."""

from typing import Any, Literal

from pydantic import field_validator, model_validator

from fastdd import models, ops, presets
from fastdd.core import settings
from fastdd.core.settings import setting
from fastdd.training.recipes import constants, recipe
from fastdd.training.volumes import Use


class TrainSettings(settings.Settings):
    """Settings of the training of a network on real images, and fake ones; :meth:`configure` has the presets."""

    dataset: str = setting("name of the data set")
    training: str = setting("recipe: how the network is trained (fastdd recipes)", "erm")
    constants: dict[str, Any] = setting("constants of the recipe, in place of its defaults", {}, default_help="its own")
    use: Use = setting(
        "what fake images are for: none, usb (they top every class and group up to the largest), asb (as many of each, "
        "beside the real ones) or ffr (as many of each, before the real ones)",
        "none",
    )
    scale: float = setting("how many times as many fake images as usb needs", 1.0, gt=0, le=100)
    arch: str = setting("network to train, such as ConvNet")
    width: int | None = setting("filters of each convolution", None, default_help="the network's own", ge=1)
    depth: int | None = setting("blocks of layers", None, default_help="the network's own", ge=1)
    epochs: int = setting("passes over the training images, of each stage", ge=1)
    batch_train: int = setting("images of a training step", ge=1)
    optimiser: Literal["adam", "sgd"] = setting("how steps are made of gradients")
    lr: float = setting("learning rate", gt=0)
    pretrain_lr: float | None = setting("learning rate on fake images alone (ffr)", None, default_help="lr", gt=0)
    momentum: float = setting("momentum of sgd", 0.9, ge=0, lt=1)
    weight_decay: float = setting("weight decay", ge=0)
    dsa_strategy: str = setting("augmentations in training, joined by _, such as crop_flip; or none")
    freeze_norms: bool = setting("leave batch norms' statistics as the fake images left them (ffr)", False)
    keep: Literal["auto", "best", "last"] = setting(
        "which epoch's network is kept: best (highest worst-group accuracy on validation images), last, or auto: best "
        "where there are validation images",
        "auto",
    )
    seed: int = setting("number that every random draw follows from", 0, ge=0)

    @field_validator("arch")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return models.canonical_name(value)

    @field_validator("training")
    @classmethod
    def _known_recipe(cls, value: str) -> str:
        recipe(value)
        return value

    @field_validator("dsa_strategy")
    @classmethod
    def _known_operations(cls, value: str) -> str:
        return "_".join(ops.parse_strategy(value)) or "none"

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        constants(self.training, self.constants)
        if self.use == "none" and self.scale != 1:
            raise ValueError(f"scale {self.scale:g} is of fake images: give use too (usb, asb or ffr)")
        if self.use != "ffr":
            for name in ("pretrain_lr", "freeze_norms"):
                if getattr(self, name):
                    raise ValueError(f"{name} is for use ffr, not {self.use}")
        return self

    @classmethod
    def configure(cls, *, dataset: str, bias_ratio: float | None = None, **values: Any) -> "TrainSettings":
        """Settings from those given, over the presets of the data set and recipe; what is None counts as not given.

        Args:
            dataset: name of the data set.
            bias_ratio: share of a class's training images in its own group, by which published settings differ; None
                where it is not known.
            **values: fields; of ``constants``, those that are given, over the presets'.
        """
        chosen = settings.given(values)
        about = {name: chosen.get(name, default) for name, default in (("training", "erm"), ("use", "none"))}
        shipped = presets.preset("train", dataset, 1, arch=chosen.get("arch"), bias_ratio=bias_ratio, **about)
        constants = {**shipped.get("constants", {}), **chosen.get("constants", {})}
        parsed = settings.parse(cls, {**shipped, **chosen, "constants": constants, "dataset": dataset})
        usual = cls.model_fields["momentum"].default
        if parsed.optimiser == "adam" and chosen.get("momentum", usual) != usual:
            raise ValueError(f"momentum {parsed.momentum:g} is of optimiser sgd, not adam: leave it out, or take sgd")
        return parsed
