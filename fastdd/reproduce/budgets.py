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
        note: what a reader of the figures has to know.
        distillation: settings by method.
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
BUDGETS = MappingProxyType(
    {
        "full": Budget(
            "full",
            "Networks on a whole training set are 3, of 20 epochs; the papers do not say how long theirs were trained.",
            {},
            {},
            {"nets": 3, "epochs": 20},
        ),
        "quick": Budget(
            "quick",
            "Shortened: fewer and shorter matching steps (of DC and DSA with a larger step size of the images), fewer "
            "networks and epochs than published. Large differences between methods show; the figures themselves can't "
            "be compared with the published ones.",
            {"dm": {"iterations": 300}, "dc": _GRADIENT, "dsa": _GRADIENT},
            {"nets": 3, "epochs": 150},
            {"nets": 1, "epochs": 6},
        ),
    }
)
