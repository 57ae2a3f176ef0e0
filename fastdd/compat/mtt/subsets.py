"""MTT's subsets of ImageNet: ten classes each."""

import torch
from torch import Tensor

__all__ = ["IMAGENET_NUMBERS", "Config", "config"]

# The numbers of their classes among the 1,000, in the order of their labels.
IMAGENET_NUMBERS = {
    "imagenette": (0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
    "imagewoof": (193, 182, 258, 162, 155, 167, 159, 273, 207, 229),
    "imagefruit": (953, 954, 949, 950, 951, 957, 952, 945, 943, 948),
    "imageyellow": (309, 986, 954, 951, 987, 779, 599, 291, 72, 11),
    "imagemeow": (281, 282, 283, 284, 285, 291, 292, 290, 289, 287),
    "imagesquawk": (84, 130, 88, 144, 145, 22, 96, 9, 100, 89),
}


def imagenet_labels(subset: str) -> Tensor:
    """int64 [1000]: the label in a subset of each of ImageNet's classes, -1 of the others.

    Raises:
        ValueError: an unknown subset.
    """
    if subset not in IMAGENET_NUMBERS:
        raise ValueError(f"unknown ImageNet subset {subset!r}; one of: {', '.join(IMAGENET_NUMBERS)}")
    numbers = torch.tensor(IMAGENET_NUMBERS[subset])
    return torch.full((1000,), -1).index_copy_(0, numbers, torch.arange(len(numbers)))


class Config:
    """ImageNet's subsets: the numbers of their classes, as ``config.imagenette`` or ``config.dict["imagenette"]``."""

    def __init__(self):
        self.dict = {name: [*numbers] for name, numbers in IMAGENET_NUMBERS.items()}
        vars(self).update(self.dict)


config = Config()
