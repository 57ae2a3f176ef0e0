"""The registry of cases."""

from fnmatch import fnmatchcase

from fastdd.bench.cases import (
    augment,
    cf_match,
    characteristic_steps,
    conv3x3,
    density,
    evaluate,
    formation,
    formation_steps,
    gradient_steps,
    group_grad,
    matching,
    norm_act_pool,
    segment_mean,
    steps,
    train,
    trajectory_steps,
)
from fastdd.bench.framework.case import Case
from fastdd.core.text import did_you_mean

_MODULES = (
    augment,
    formation,
    segment_mean,
    matching,
    cf_match,
    group_grad,
    norm_act_pool,
    conv3x3,
    density,
    steps,
    gradient_steps,
    formation_steps,
    trajectory_steps,
    characteristic_steps,
    evaluate,
    train,
)

CASES: list[Case] = [case for module in _MODULES for case in module.CASES]


def select(globs: list[str]) -> list[Case]:
    """The cases whose names match any of the globs, in the order of the globs (of one glob in the registry's); for none
    all but those ``by_name``.

    Raises:
        ValueError: a glob that matches none.

    >>> [case.label for case in select(["segment_*"])]
    ['segment_mean segments=10', 'segment_mean segments=100']
    >>> [case.name for case in select(["step/dm-*", "step/dm*"])]
    ['step/dm-bf16', 'step/dm', 'step/dm+fairdd']
    """
    names = list(dict.fromkeys(case.name for case in CASES))
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise ValueError(f"no case matches {glob!r}; the cases: {', '.join(names)}{did_you_mean(glob, names)}")
    if not globs:
        return [case for case in CASES if not case.by_name]
    return list(dict.fromkeys(case for glob in globs for case in CASES if fnmatchcase(case.name, glob)))
