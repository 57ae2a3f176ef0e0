"""Methods that learn pixels in [0, 1], each image several in parts."""

from typing import Any

import torch
from torch import Tensor

from fastdd import ops
from fastdd.data import Dataset
from fastdd.methods.parts.formation import MultiFormation


class InParts:
    """What a method with a setting ``factor`` has, whose images are pixels that hold factor x factor images each."""

    _config: Any

    @classmethod
    def noise(cls, normal: Tensor, dataset: Dataset) -> Tensor:
        """The first images of ``init=noise``, normalised, of standard normal numbers: grey, with a quarter of it."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
        return ((normal / 4 + 0.5).clamp(0, 1) - mean) / std

    def _make_formation(self, context: Any) -> MultiFormation:
        dataset = context.dataset
        ops.check_factor(self._config.factor, dataset.size)
        return MultiFormation(self._config.factor, dataset.mean, dataset.std, context.device)
