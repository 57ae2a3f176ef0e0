"""Schedule: how far a step moves the images, and which steps' images are averaged, by the step's number.

With a step size that does not fall, images end up somewhere in the noise of the last steps: of the network, the batch
and the augmentation that each drew. A step size that falls to nothing, and the mean over the last steps (Polyak and
Juditsky, "Acceleration of stochastic approximation by averaging", 1992), take that noise away, and allow larger steps
before.
"""

import math
from typing import Literal

LR_SCHEDULES = Literal["constant", "cosine"]


def share_of_rate(schedule: str, number: int, steps: int) -> float:
    """The share of the learning rate that step ``number`` of so many has: 1, or (1 + cos(pi number / steps)) / 2.

    Steps after the last, as of a run that is extended, count as the last.

    >>> [round(share_of_rate("cosine", number, 4), 3) for number in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(number, steps - 1) / steps))


def first_averaged(fraction: float, steps: int) -> int:
    """The first step whose images are averaged: the mean is over the last ceil(fraction * steps).

    >>> first_averaged(0.25, 10), first_averaged(1, 10), first_averaged(0, 10)
    (7, 0, 10)
    """
    return steps - math.ceil(fraction * steps)


def weight_in_mean(first: int, number: int) -> float:
    """Of the images after step ``number``, in the running mean of those from step ``first`` on: 1 / how many they are.

    >>> [weight_in_mean(2, number) for number in range(5)]
    [0.0, 0.0, 1.0, 0.5, 0.3333333333333333]
    """
    return 0.0 if number < first else 1 / (number - first + 1)
