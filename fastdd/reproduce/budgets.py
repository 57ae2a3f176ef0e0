"""How much is spent on a cell: everything, as published, or minutes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fastdd.methods import METHODS


@dataclass(frozen=True)
class Budget:
    """Settings in place of the presets'.

    Attributes:
        name: full or quick.
        note: what a reader of the figures has to know.
        distillation: settings by method, of the ``experts`` that are followed, and of the ``networks`` that are
            matched on in place of random ones.
        evaluation: networks and epochs on a synthetic set; the table's and the protocol's where not given.
        whole: likewise on the whole training set.
        training: settings of the training of one network, and ``data``, options of its data set; ``ffr`` in place of
            some of the settings where fake images come first.
        constants: of training recipes, by recipe, in place of the table's.
        published: whether cells are run as their papers did: distilled as often, with a seed each, and networks on the
            whole training set as a published protocol has them, where a recipe names one.
        networks: by name, what ``distillation`` and ``evaluation`` take instead with a network that is slow.
    """

    name: str
    note: str
    distillation: Mapping[str, Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    whole: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: bool = False
    networks: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)


_TRANSFORMER = {"distillation": {"iterations": 60, "batch_real": 64}, "evaluation": {"epochs": 50}}
BUDGETS = MappingProxyType(
    {
        "full": Budget(
            "full",
            "Networks on a whole training set are 3, of 20 epochs, where the paper does not say how long its own were "
            "trained.",
            {},
            {},
            {"nets": 3, "epochs": 20},
            published=True,
        ),
        "quick": Budget(
            "quick",
            "Shortened: fewer and shorter matching steps (of DC, DSA and MTT with larger step sizes), fewer networks "
            "and epochs than published, of MTT fewer and narrower experts, of networks that are "
            "matched on fewer and shorter trained ones, and in place of a ResNet50 at 224 pixels a "
            "ConvNet at 32. Large differences between methods show; the figures themselves can't be compared with the "
            "published ones.",
            {
                **{name: dict(kind.quick) for name, kind in METHODS.items()},
                "experts": {"num_experts": 2, "epochs": 5, "width": 32, "eval_every": 0},
                "networks": {"num_experts": 2, "epochs": 5},
                "teacher": {"epochs": 5},
            },
            {"nets": 3, "epochs": 150},
            {"nets": 1, "epochs": 6},
            # Published learning rates are of a ResNet50.
            training={
                "data": {"size": 32},
                "arch": "ConvNet",
                "epochs": 5,
                "lr": 1e-3,
                "ffr": {"pretrain_lr": 1e-3, "lr": 1e-4},
            },
            # A fifth of the steps on 100 images, as in the published code.
            constants={"dfa": {"swap_from": 30}},
            networks={"ViT1": _TRANSFORMER, "ViT2": _TRANSFORMER, "ViT3": _TRANSFORMER},
        ),
    }
)
