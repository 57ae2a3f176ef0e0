"""How much is spent on a cell: everything, as published, or minutes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Budget:
    """Settings in place of the presets'.

    Attributes:
        name: full or quick.
        note: what a reader of the figures has to know; empty where nothing is shortened.
        distillation: settings by method, of the ``experts`` of mtt, and by network, which come last.
        evaluation: networks and epochs on a synthetic set; the table's and the protocol's where not given.
        whole: likewise on the whole training set.
    """

    name: str
    note: str
    distillation: Mapping[str, Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    whole: Mapping[str, Any]


# Fewer steps between the networks' epochs would match networks that know nothing but colour: then a vanilla set of a
# biased data set learns nothing else (C-MNIST, IPC 10: 27 % after 90 steps with 5 epochs each, 47 % after 50 with 20).
_GRADIENT = {"iterations": 10, "outer_loop": 10, "inner_loop": 20, "batch_real": 64, "lr_img": 1.0}
_TRAJECTORY = {"iterations": 100, "syn_steps": 6, "max_start_epoch": 4, "expert_epochs": 1, "lr_teacher": 0.02}
_TRANSFORMER = {"iterations": 60, "batch_real": 64}
BUDGETS = MappingProxyType(
    {
        "full": Budget("full", "", {}, {}, {"nets": 3, "epochs": 20}),
        "quick": Budget(
            "quick",
            "Shortened: fewer and shorter matching steps (of DC and DSA with a larger step size of the images), fewer "
            "networks and epochs than published, and of MTT fewer and narrower experts. Large differences between "
            "methods show; the figures themselves can't be compared with the published ones.",
            {
                "dm": {"iterations": 300},
                "dc": _GRADIENT,
                "dsa": _GRADIENT,
                "experts": {"num_experts": 2, "epochs": 5, "width": 32, "eval_every": 0},
                "mtt": _TRAJECTORY,
                "ViT1": _TRANSFORMER,
                "ViT2": _TRANSFORMER,
                "ViT3": _TRANSFORMER,
            },
            {"nets": 3, "epochs": 150},
            {"nets": 1, "epochs": 3},
        ),
    }
)
