"""Images where they are used: on the device, at rest as they came, normalised and augmented when read."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastdd import ops


@dataclass(frozen=True)
class DeviceImages:
    """Images on a device. Real pixels stay uint8 (a quarter of float32's memory); normalisation is part of reading.

    Attributes:
        pixels: uint8 [N, C, H, W], or float32 already normalised.
        mean: float32 [C], of pixels scaled to [0, 1]; None for float32 pixels.
        std: float32 [C], likewise.
    """

    pixels: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None

    @classmethod
    def of(
        cls, images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device | str = "cpu"
    ) -> "DeviceImages":
        """uint8 images [N, C, H, W] of a data set; on the CPU without a copy."""
        return cls(
            torch.from_numpy(images).to(device), torch.tensor(mean, device=device), torch.tensor(std, device=device)
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def read(
        self,
        rows: Tensor,
        params: Tensor | None = None,
        of: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Normalised images [len(rows), C, H, W], augmented when ``params`` are given.

        Args:
            rows: int64 [M].
            params: augmentation parameters [R, P] (:func:`fastdd.ops.augment`).
            of: int64 [M], the parameter row of each image; None: one row an image, or one row for all.
            dtype: of the result; None: float32, or that of floating-point pixels.
        """
        pixels = self.pixels[rows]
        if params is None:
            if self.mean is None:
                return pixels if dtype is None else pixels.to(dtype)
            params = ops.identity_params(1, device=pixels.device)
        if self.mean is None:
            images = ops.augment(pixels, params, of)
            return images if dtype is None else images.to(dtype)
        return ops.augment(pixels, params, of, mean=self.mean, std=self.std, dtype=dtype)
