"""Statistics of repeated distillations: several sets that differ in their seed only, several networks on each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fastdd.evaluation.metrics import interval


@dataclass(frozen=True)
class Repeats:
    """A figure of K distillations, each evaluated by n networks; in the figure's own unit.

    Attributes:
        mean: over distillations, of the mean over networks.
        std: over all K n networks, divided by their number, as published code prints it (DC: ``num_exp`` x
            ``num_eval``). It mixes what networks and what distillations change.
        interval: half of the 95 % interval of the mean over distillations (Student's t, K - 1 degrees of freedom).
            It covers what another seed changes, of the distillation and of the networks.
        between: standard deviation of what the distillation's seed changes, without what n networks leave of chance;
            None for single networks, which can't tell the two apart.
        within: standard deviation of a single network on a given set, pooled over sets; None for single networks.
    """

    mean: float
    std: float
    interval: float | None
    between: float | None
    within: float | None


def repeats(means: Sequence[float], stds: Sequence[float], nets: int) -> Repeats:
    """From every distillation's mean and (numpy's) standard deviation over its ``nets`` networks.

        within^2 = mean_k n / (n - 1) std_k^2,    between^2 = max(0, var_k(means) - within^2 / n)

    with the sample variance (the analysis of variance of one random effect). A negative estimate is cut off at 0.

    Raises:
        ValueError: no distillation, or as many means as not deviations.

    >>> found = repeats([1.0, 3.0], [1.0, 1.0], 2)
    >>> found.mean, found.within, found.between
    (2.0, 1.4142135623730951, 1.0)
    """
    if not means or len(means) != len(stds):
        raise ValueError(f"{len(means)} means and {len(stds)} deviations of distillations")
    of_sets, of_nets = (torch.tensor(values, dtype=torch.float64) for values in (means, stds))
    spread = of_sets.std(correction=0).item()
    pooled = of_nets.square().mean().item()
    within = between = None
    if nets > 1:
        within = math.sqrt(pooled * nets / (nets - 1))
    if nets > 1 and len(means) > 1:
        between = math.sqrt(max(0.0, of_sets.var().item() - pooled / (nets - 1)))
    std = math.sqrt(pooled + spread**2)
    return Repeats(of_sets.mean().item(), std, interval(spread, len(means)), between, within)


def paired(ours: Sequence[float], others: Sequence[float]) -> tuple[float, float | None]:
    """Mean of the differences at equal seeds, and half of its 95 % interval (Student's t); None for one pair.

    What a seed does to both alike (the images that both start from, the real images that both see) is not in it.

    Raises:
        ValueError: no pairs, or not two of every one.

    >>> paired([3.0, 5.0], [1.0, 1.0])[0]
    3.0
    """
    if not ours or len(ours) != len(others):
        raise ValueError(f"{len(ours)} and {len(others)} figures are no pairs")
    differences = torch.tensor(ours, dtype=torch.float64) - torch.tensor(others, dtype=torch.float64)
    return differences.mean().item(), interval(differences.std(correction=0).item(), len(ours))
