"""What the verbs refuse before any work."""

from collections.abc import Sequence

from fastdd.core.text import listed
from fastdd.data import Dataset
from fastdd.debias import modes_that_need
from fastdd.methods import METHODS, Settings
from fastdd.session import Callback
from fastdd.session.run import check_groups


def check_dataset(data: object) -> None:
    """TypeError unless it is a data set."""
    if not isinstance(data, Dataset):
        cure = f"fastdd.data.load({data!r}) loads it" if isinstance(data, str) else "fastdd.data.load loads one"
        raise TypeError(f"data is a fastdd.data.Dataset, not {type(data).__name__}: {cure}")


def check_callbacks(callbacks: Sequence[object]) -> None:
    """TypeError unless all are callbacks."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            what = f"the class {callback.__name__}" if isinstance(callback, type) else type(callback).__name__
            raise TypeError(f"callbacks are objects of subclasses of fastdd.session.Callback, not {what}")


def check_samples(config: Settings, weights: object, groups: object) -> None:
    """ValueError if weights or groups of the training images are given to a run that does not go by them."""
    kind = METHODS[config.method]
    if kind.debias_of_experts and (weights is not None or groups is not None):
        raise ValueError(f"{config.method} looks at no real images: weights and groups are for its experts' training")
    if weights is not None and not kind.takes("weights", config.mode):
        raise ValueError(f"weights are for debias {listed(modes_that_need('weights'), 'or')}, not {config.debias}")
    check_groups(config, groups)


def check_on_the_way(config: Settings, every: int | None, snapshots: int | None) -> None:
    """ValueError for evaluations or snapshots on the way of a method that makes classes one after another."""
    for name, given in (("eval_every", every), ("snapshots", snapshots)):
        if given is not None and METHODS[config.method].by_class:
            raise ValueError(f"{name} {given}: {config.method} makes classes one after another, and has no set before")


def check_curve(every: int | None, nets: int | None, epochs: int | None) -> None:
    """ValueError unless the numbers of evaluations on the way are at least 1, and given together."""
    for name, given in (("eval_every", every), ("eval_nets", nets), ("eval_epochs", epochs)):
        if given is not None and every is None:
            raise ValueError(f"{name} {given} is of evaluations on the way: give eval_every too")
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1, not {given}")
