"""What a run is: every setting that decides its result, validated before any work starts."""

from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fastdd import models, ops
from fastdd.debias import mode
from fastdd.methods import gm, mtt

METHODS = ("dm", "dc", "dsa", "mtt")
_GRADIENT, _REAL = ("dc", "dsa"), ("dm", "dc", "dsa")
# Settings that only some methods have, and must have.
_OWN_SETTINGS = {
    "batch_real": _REAL,
    **dict.fromkeys(("metric", "outer_loop", "inner_loop", "lr_net", "batch_train"), _GRADIENT),
    **dict.fromkeys(
        ("expert_epochs", "max_start_epoch", "syn_steps", "lr_teacher", "lr_lr", "step_size", "unroll", "soft_labels"),
        ("mtt",),
    ),
}
# The same, but absent by default, which stands for something.
_OPTIONAL_SETTINGS = {"batch_syn": ("mtt",), "lr_label": ("mtt",), "published_factor": ("mtt",), "zca": ("mtt",)}


class RunConfig(BaseModel):
    """Settings of one distillation run. ``RunConfig.for_run(...)`` fills what is not given from the presets.

    Attributes:
        method: dm, dc (gradient matching), dsa (the same with Siamese augmentation), or mtt (trajectory matching).
        debias: none, fairdd (or one of its weightings: fairdd-iw, fairdd-ldam, fairdd-groupdro), or kde.
        dataset: name of the data set.
        ipc: synthetic images per class.
        iterations: random networks; with dm each serves one step, with dc and dsa ``outer_loop`` of them. With mtt,
            trajectories of a student.
        arch, width, depth: network whose random instances embed the images; width and depth replace the name's.
        batch_real: (all but mtt) real images per class and step.
        lr_img, momentum: SGD on the synthetic images.
        init: start from random real images of the class (real), as many of each of its groups (balanced: FairDD, Table
            6), or from standard normal noise.
        dsa_strategy: operations of differentiable Siamese augmentation, joined by _; none for no augmentation.
        sampling: random draws a batch from the class, as published; stratified splits it evenly over groups; weighted
            draws in proportion to the weights of debias=kde, and then counts alike what it drew.
        precision: fp32, or bf16 for the real images' pass through the network (sums and the synthetic side stay fp32).
        seed: every draw of the run is a function of it.
        metric: (dc, dsa, as the next four) the gradients' distance: ours (as published), mse or cos.
        outer_loop: matching steps an iteration.
        inner_loop: epochs of training on the synthetic images between two of them.
        lr_net, batch_train: of that training: plain SGD.
        memory: auto, or low for small parts at a time on GPUs too: a few classes, a chunk of images. Parts change no
            bit on CPUs, with this package's kernels, and roundings elsewhere.
        expert_epochs: (mtt, as all below) epochs between the expert's parameters where a student starts and its target.
        max_start_epoch: a student starts at an epoch below it.
        syn_steps: steps of a student.
        batch_syn: synthetic images a step; None: all.
        lr_teacher: the step size to start from; it is learned.
        lr_lr: the step size's own, as published: of the step size itself.
        step_size: log keeps it positive: its logarithm is learned, at the rate lr_lr / lr_teacher^2, with which the
            first update is the published one to first order; raw is the published parametrisation, which can fail by
            crossing zero.
        unroll: exact, full or tesla (:mod:`fastdd.methods.mtt`).
        published_factor: TESLA's published code halves the images' gradient of its formula; True does the same.
        soft_labels: none; teacher for those that the target's network gives the synthetic images (TESLA), constant in
            every trajectory; learned for logits that are learned too, starting from those of the experts.
        lr_label: of learned soft labels.
        zca: whether the experts were trained on ZCA-whitened images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Literal["dm", "dc", "dsa", "mtt"] = "dm"
    debias: str = "none"
    dataset: str
    ipc: int = Field(ge=1)
    iterations: int = Field(ge=1)
    arch: str
    width: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1)
    batch_real: int | None = Field(default=None, ge=1)
    lr_img: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    init: Literal["real", "balanced", "noise"]
    dsa_strategy: str
    sampling: Literal["random", "stratified", "weighted"] = "random"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(default=0, ge=0)
    metric: Literal["ours", "mse", "cos"] | None = None
    outer_loop: int | None = Field(default=None, ge=1)
    inner_loop: int | None = Field(default=None, ge=0)
    lr_net: float | None = Field(default=None, gt=0)
    batch_train: int | None = Field(default=None, ge=1)
    memory: Literal["auto", "low"] = "auto"
    expert_epochs: int | None = Field(default=None, ge=1)
    max_start_epoch: int | None = Field(default=None, ge=1)
    syn_steps: int | None = Field(default=None, ge=1)
    batch_syn: int | None = Field(default=None, ge=1)
    lr_teacher: float | None = Field(default=None, gt=0)
    lr_lr: float | None = Field(default=None, ge=0)
    step_size: Literal["log", "raw"] | None = None
    unroll: Literal[mtt.UNROLLS] | None = None
    published_factor: bool | None = None
    soft_labels: Literal["none", "teacher", "learned"] | None = None
    lr_label: float | None = Field(default=None, gt=0)
    zca: bool | None = None

    @field_validator("arch")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return models.canonical_name(value)

    @field_validator("debias")
    @classmethod
    def _known_mode(cls, value: str) -> str:
        mode(value)
        return value

    @field_validator("memory", mode="before")
    @classmethod
    def _none_is_auto(cls, value: Any) -> Any:
        return "auto" if value is None else value  # as written when dm had no such setting

    @field_validator("dsa_strategy")
    @classmethod
    def _known_operations(cls, value: str) -> str:
        return "_".join(ops.parse_strategy(value)) or "none"

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> "RunConfig":
        for name, methods in {**_OWN_SETTINGS, **_OPTIONAL_SETTINGS}.items():
            given = getattr(self, name) is not None
            if given and self.method not in methods:
                raise ValueError(f"{name} is a setting of {' and '.join(methods)}, not of {self.method}")
            if not given and self.method in methods and name in _OWN_SETTINGS:
                raise ValueError(f"{self.method} needs {name}")
        if self.method == "dc" and self.dsa_strategy != "none":
            raise ValueError(f"dc has no augmentation; with {self.dsa_strategy!r} it is method dsa")
        if self.sampling == "weighted" and self.debias != "kde":
            raise ValueError(f"sampling weighted is for debias kde, not {self.debias}")
        if self.method == "mtt":
            self._check_trajectories()
        return self

    def _check_trajectories(self) -> None:
        for name in ("sampling", "precision"):
            default = type(self).model_fields[name].default
            if getattr(self, name) != default:
                raise ValueError(f"mtt draws no real images, so it has no {name}={getattr(self, name)}")
        if (self.lr_label is not None) != (self.soft_labels == "learned"):
            raise ValueError(f"lr_label goes with soft_labels=learned, here {self.soft_labels}: give both or neither")
        if self.published_factor and self.unroll != "tesla":
            raise ValueError(f"published_factor is TESLA's, not that of unroll={self.unroll}")

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
        debias = given.get("debias", "none")
        shipped = preset(method, dataset, ipc, debias, given.get("arch"))
        if method in _GRADIENT:
            loops = dict(zip(("outer_loop", "inner_loop"), gm.loops(ipc), strict=True))
            shipped = {**loops, **shipped}
        return cls.parse({**shipped, **given, "method": method, "dataset": dataset, "ipc": ipc})

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """A configuration from plain values; ValueError in one line if they are not one."""
        return parse(cls, settings)


Config = TypeVar("Config", bound=BaseModel)


def parse(kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """A configuration of a kind from plain values; ValueError in one line if they are not one."""
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of several settings together, which it names
            raise ValueError(reason) from None
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {reason} (got {first['input']!r})") from None


def preset(method: str, dataset: str, ipc: int, debias: str = "none", arch: str | None = None) -> dict[str, Any]:
    """The shipped settings of a run (``presets/METHOD.yaml``, which names their source); what a rule asks for must
    all hold. Width and depth are the shipped ConvNet's: they are left out for an ``arch`` that has its own."""
    text = resources.files("fastdd.session").joinpath("presets", f"{method}.yaml").read_text(encoding="utf-8")
    shipped = yaml.safe_load(text)
    settings = dict(shipped["settings"])
    for rule in shipped["rules"]:
        when = rule["when"]
        if (
            dataset in when.get("dataset", [dataset])
            and debias in when.get("debias", [debias])
            and ipc >= when.get("min_ipc", ipc)
        ):
            settings.update(rule["settings"])
    if arch is not None and not models.is_convnet(arch):
        settings = {name: value for name, value in settings.items() if name not in ("width", "depth")}
    return settings
