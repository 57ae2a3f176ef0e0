"""Settings of expert training."""

from typing import Any, Literal

from pydantic import field_validator, model_validator

from fastdd import debias, models, ops, presets
from fastdd.core import settings
from fastdd.core.settings import setting
from fastdd.core.text import listed
from fastdd.debias.loss_weights import check_mode
from fastdd.training import RECIPES, constants, recipe


class ExpertSettings(settings.Settings):
    """Settings of expert training. :meth:`configure` fills what is not given from the presets.

    The learning rate's decay is as published: after epoch ``epochs // 2 + 1`` it falls to a tenth, and the momentum
    starts again from zero, as a new optimiser is built. A recipe is trained with the same optimiser, which its other
    networks have too; its ``net`` is the expert.
    """

    dataset: str = setting("name of the data set")
    debias: str = setting("how images count in the loss (fastdd modes)", "none")
    training: str = setting("recipe by which they are trained (fastdd recipes), with plain SGD as any", "erm")
    constants: dict[str, Any] = setting("constants of the recipe, in place of its defaults", {}, default_help="its own")
    arch: str = setting("network to train, such as ConvNet")
    width: int | None = setting("filters of each convolution", None, default_help="the network's own", ge=1)
    depth: int | None = setting("blocks of layers", None, default_help="the network's own", ge=1)
    num_experts: int = setting("networks to train, each from its own random start; published 100", ge=1)
    epochs: int = setting("passes over the training images; published 50", ge=1)
    lr_teacher: float = setting("learning rate", gt=0)
    batch_train: int = setting("images of a training step", ge=1)
    momentum: float = setting("momentum of SGD", ge=0, lt=1)
    weight_decay: float = setting("weight decay of SGD", ge=0)
    decay: bool = setting("learn at a tenth of the learning rate in the second half")
    dsa_strategy: str = setting("augmentations in training, joined by _, such as color_crop_flip; or none")
    sampling: Literal["random", "weighted"] = setting(
        "how debias acts: random (weights in the loss) or weighted (images drawn in proportion to them, which then "
        "count alike: less variance from rare images)",
        "random",
    )
    zca: bool = setting("whiten the images (ZCA), as published for some data sets and IPC")
    dtype: Literal["fp32", "bf16"] = setting("precision that is stored; bf16 takes half the space", "fp32")
    eval_every: int = setting("epochs from one test to the next; 0 for no tests", 10, ge=0)
    seed: int = setting("number that every random draw follows from", 0, ge=0)

    @field_validator("arch")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return models.canonical_name(value)

    @field_validator("debias")
    @classmethod
    def _known_mode(cls, value: str) -> str:
        check_mode(value)
        return value

    @field_validator("training")
    @classmethod
    def _known_recipe(cls, value: str) -> str:
        if not recipe(value).net_predicts:
            able = [name for name, each in RECIPES.items() if each.net_predicts]
            raise ValueError(f"it makes more than one network's parameters, and experts are these: {', '.join(able)}")
        return value

    @field_validator("dsa_strategy")
    @classmethod
    def _known_operations(cls, value: str) -> str:
        return "_".join(ops.parse_strategy(value)) or "none"

    @model_validator(mode="after")
    def _weights_to_draw_by(self) -> "ExpertSettings":
        if self.sampling == "weighted" and debias.mode(self.debias).needs == "nothing":
            able = [name for name, each in debias.MODES.items() if each.in_training and each.needs != "nothing"]
            raise ValueError(f"sampling weighted is for debias {listed(able)}, not {self.debias}")
        return self

    @model_validator(mode="after")
    def _one_loss(self) -> "ExpertSettings":
        constants(self.training, self.constants)
        if self.training != "erm" and self.debias != "none":
            raise ValueError(
                f"training {self.training} has a loss of its own, which debias {self.debias} does not weight: give one "
                "of them"
            )
        return self

    @classmethod
    def configure(cls, *, dataset: str, ipc: int = 10, **given: Any) -> "ExpertSettings":
        """Settings from the presets for (data set, IPC), with those given over them.

        Settings that are None count as not given. ``ipc`` is that of the distillation that the experts are for.

        Raises:
            ValueError: one line that names the setting, its value and what is allowed.
        """
        if ipc < 1:
            raise ValueError(f"IPC must be at least 1, not {ipc}")
        chosen = settings.given(given)
        shipped = presets.preset("experts", dataset, ipc, arch=chosen.get("arch"))
        return settings.parse(cls, {**shipped, **chosen, "dataset": dataset})
