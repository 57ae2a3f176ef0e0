"""What is to be reached."""

from dataclasses import dataclass
from typing import Any, Literal

from fastdd.core.text import one_of


@dataclass(frozen=True)
class Threshold:
    """A bound of the mean of a figure over seeds.

    Attributes:
        figure: accuracy or deo_a.
        side: whether it is the least or the most.
        value: percent.
    """

    figure: Literal["accuracy", "deo_a"]
    side: Literal["at least", "at most"]
    value: float

    def __str__(self) -> str:
        return f"{self.figure} {self.side} {self.value:g}"


@dataclass(frozen=True)
class Target:
    """A fixed target.

    Attributes:
        name: for the command line and folders.
        dataset, method, debias, ipc: what is distilled; all of it is fixed.
        thresholds: all of them are to be met.
        epochs: of the networks that check, on the data set's own network.
        published: the paper's figures, in percent; empty where there is none.
        source: where they stand.
    """

    name: str
    dataset: str
    method: str
    debias: str
    ipc: int
    thresholds: tuple[Threshold, ...]
    published: tuple[tuple[str, float], ...]
    source: str
    epochs: int = 1000

    @property
    def fixed(self) -> dict[str, Any]:
        """Settings that no record may change."""
        return {"method": self.method, "debias": self.debias, "ipc": self.ipc}


def _accuracy(percent: float) -> Threshold:
    return Threshold("accuracy", "at least", percent)


_FAIRDD = "FairDD, tables 1 and 2"
_C_MNIST = {"dataset": "c-mnist-fg", "debias": "fairdd", "ipc": 10, "source": _FAIRDD}
_DM = (("accuracy", 94.61), ("deo_a", 7.95))
TARGETS = {
    target.name: target
    for target in (
        Target(
            "c-digits-90", "c-digits", "dm", "fairdd", 10, (_accuracy(90),), (), "fastdd's own: no paper has this set"
        ),
        Target("c-mnist-fg-90", method="dm", thresholds=(_accuracy(90),), published=_DM, **_C_MNIST),
        Target(
            "c-mnist-fg-published",
            method="dm",
            thresholds=(_accuracy(94.6), Threshold("deo_a", "at most", 8.5)),
            published=_DM,
            **_C_MNIST,
        ),
        Target(
            "c-mnist-fg-dc-90",
            method="dc",
            thresholds=(_accuracy(90),),
            published=(("accuracy", 90.62), ("deo_a", 11.96)),
            **_C_MNIST,
        ),
        Target(
            "cifar10-s-published",
            "cifar10-s",
            "dm",
            "fairdd",
            10,
            (_accuracy(45.17),),
            (("accuracy", 45.17), ("deo_a", 8.73)),
            _FAIRDD,
        ),
    )
}


def target(name: str) -> Target:
    """A target by its name; ValueError names the known ones."""
    if name not in TARGETS:
        raise ValueError(f"unknown target {name!r}; {one_of(name, TARGETS)}")
    return TARGETS[name]
