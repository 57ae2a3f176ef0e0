"""What a run is: every setting that decides its result, validated before any work starts."""

from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fastdd import models, ops
from fastdd.debias import mode

METHODS = ("dm",)


class RunConfig(BaseModel):
    """Settings of one distillation run. ``RunConfig.for_run(...)`` fills what is not given from the presets.

    Attributes:
        method: dm.
        debias: none or fairdd.
        dataset: name of the data set.
        ipc: synthetic images per class.
        iterations: steps of the outer loop.
        arch, width, depth: network whose random instances embed the images; width and depth replace the name's.
        batch_real: real images per class and step.
        lr_img, momentum: SGD on the synthetic images.
        init: start from random real images of the class, or from standard normal noise.
        dsa_strategy: operations of differentiable Siamese augmentation, joined by _; none for no augmentation.
        sampling: random draws a batch from the class, as published; stratified splits it evenly over groups.
        precision: fp32, or bf16 for the embeddings of real images (sums and the synthetic side stay fp32).
        seed: every draw of the run is a function of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Literal["dm"] = "dm"
    debias: str = "none"
    dataset: str
    ipc: int = Field(ge=1)
    iterations: int = Field(ge=1)
    arch: str
    width: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1)
    batch_real: int = Field(ge=1)
    lr_img: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    init: Literal["real", "noise"]
    dsa_strategy: str
    sampling: Literal["random", "stratified"] = "random"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(default=0, ge=0)

    @field_validator("arch")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return models.canonical_name(value)

    @field_validator("debias")
    @classmethod
    def _known_mode(cls, value: str) -> str:
        mode(value)
        return value

    @field_validator("dsa_strategy")
    @classmethod
    def _known_operations(cls, value: str) -> str:
        return "_".join(ops.parse_strategy(value)) or "none"

    @classmethod
    def for_run(cls, *, dataset: str, method: str = "dm", ipc: int = 10, **settings: Any) -> "RunConfig":
        """A configuration from the presets for (method, data set, IPC), with ``settings`` over them.

        Settings that are None count as not given.

        Raises:
            ValueError: one line that names the setting, its value and what is allowed.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; one of: {', '.join(METHODS)}")
        if ipc < 1:
            raise ValueError(f"IPC must be at least 1, not {ipc}")
        return cls.parse({**preset(method, dataset, ipc), **given, "method": method, "dataset": dataset, "ipc": ipc})

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """A configuration from plain values; ValueError in one line if they are not one."""
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "settings"
            reason = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {reason} (got {first['input']!r})") from None


def preset(method: str, dataset: str, ipc: int) -> dict[str, Any]:
    """The shipped settings for a method, data set and IPC (``presets/METHOD.yaml``, which names their source)."""
    text = resources.files("fastdd.session").joinpath("presets", f"{method}.yaml").read_text(encoding="utf-8")
    shipped = yaml.safe_load(text)
    settings = dict(shipped["settings"])
    for rule in shipped["rules"]:
        when = rule["when"]
        if when.get("dataset", dataset) == dataset and ipc >= when.get("min_ipc", ipc):
            settings.update(rule["settings"])
    return settings
