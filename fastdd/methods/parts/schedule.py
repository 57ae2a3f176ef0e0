"""Schedule: how far a step moves the images, by its number.

With a step size that does not fall, images end up somewhere in the noise of the last steps: of the network, the batch
and the augmentation that each drew. A step size that falls to nothing takes that noise away.
"""

import math
from typing import Literal

LR_SCHEDULES = Literal["constant", "cosine"]


def cosine_share(number: int, steps: int) -> float:
    """The share of the learning rate that step ``number`` of so many has, (1 + cos(pi number / steps)) / 2.

    Steps after the last, which an estimate does of a short run, count as the last. A run that is resumed has as many
    steps as before: of other numbers, those that are done would have had other shares.

    >>> [round(cosine_share(number, 4), 3) for number in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return 0.5 * (1 + math.cos(math.pi * min(number, steps - 1) / steps))
