"""Images where they are used: on the device, at rest as they came, normalised and augmented when read.

Training data that a GPU can't hold stay on the host, memory-mapped if they came so, and travel as uint8 when they are
read: :class:`StreamedImages`. On the CPU there is nothing to do: a read takes its rows from the mapped file, which the
system reads ahead. Reading rows before they are needed was not worth it: 2,048 images of 64x64 came in 35 ms from the
page cache and in 67 ms from the disk, for a step of 2.2 s (2 cores, a local disk).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fastdd import ops

# Of a GPU's free memory, how much pixels may take; the rest is for the work on them.
_SHARE = 2


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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.pixels.shape)} {self.pixels.dtype}, {self.device})"

    @staticmethod
    def of(
        images: np.ndarray,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device | str = "cpu",
        *,
        stream: bool | None = None,
    ) -> "DeviceImages":
        """uint8 images [N, C, H, W] of a data set; on the CPU without a copy.

        Args:
            images, mean, std: as :class:`fastdd.data.Dataset` has them.
            device: where they are read.
            stream: whether pixels stay on the host; None: on GPUs, where they would take more than half of the memory
                that is free. Reads give the same bits either way.
        """
        device, pixels = torch.device(device), torch.from_numpy(images)
        if stream is None:
            stream = _is_too_much(pixels.nbytes, device)
        scale = torch.tensor(mean, device=device), torch.tensor(std, device=device)
        return StreamedImages(pixels, *scale) if stream else DeviceImages(pixels.to(device), *scale)

    @property
    def device(self) -> torch.device:
        """Where reads give their images."""
        return self.pixels.device

    @property
    def shape(self) -> torch.Size:
        """[N, C, H, W]."""
        return self.pixels.shape

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
            params: augmentation parameters [R, P] (:func:`fastdd.ops.augment`), or [R, passes, P].
            of: int64 [M], the parameter row of each image; None: one row an image, or one row for all.
            dtype: of the result; None: float32, or that of floating-point pixels.
        """
        pixels = self._take(rows)
        if params is None:
            if self.mean is None:
                return pixels if dtype is None else pixels.to(dtype)
            params = ops.identity_params(1, device=pixels.device)
        if self.mean is None:
            images = ops.augment_passes(pixels, params, of)
            return images if dtype is None else images.to(dtype)
        return ops.augment_passes(pixels, params, of, mean=self.mean, std=self.std, dtype=dtype)

    def _take(self, rows: Tensor) -> Tensor:
        return self.pixels[rows.to(self.pixels.device)]


def _is_too_much(size: int, device: torch.device) -> bool:
    return device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // _SHARE


class _Buffer:
    """Pixels on their way to a device: page-locked for a GPU, so that it can copy them while it computes."""

    def __init__(self) -> None:
        self._pixels = torch.empty(0, dtype=torch.uint8)
        self._copied: torch.cuda.Event | None = None

    def send(self, pixels: Tensor, rows: Tensor, device: torch.device) -> Tensor:
        on_gpu = device.type == "cuda"
        if self._copied is not None:
            self._copied.synchronize()
        count, shape = len(rows), pixels.shape[1:]
        if self._pixels.shape[1:] != shape or len(self._pixels) < count:
            self._pixels = torch.empty((count, *shape), dtype=pixels.dtype, pin_memory=on_gpu)
        taken = torch.index_select(pixels, 0, rows, out=self._pixels[:count])
        sent = taken.to(device, non_blocking=True)
        if on_gpu:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(device))
        return sent


@dataclass(frozen=True, repr=False)
class StreamedImages(DeviceImages):
    """Images whose pixels stay on the host until they are read.

    A read gathers its rows into one of two buffers, which it waits for only if the copy before the last is not done,
    and leaves the copy to the device: while a GPU works on a batch, the host gathers the next. Rows should be given on
    the CPU: for others the host has to wait until the GPU has them. Not for several threads at once.

    Attributes:
        pixels: uint8 [N, C, H, W], on the CPU; may be memory-mapped.
        mean, std: float32 [C], on the device where the images are read.
    """

    _buffers: list[_Buffer] = field(default_factory=lambda: [_Buffer(), _Buffer()], repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def _take(self, rows: Tensor) -> Tensor:
        self._buffers.reverse()
        return self._buffers[0].send(self.pixels, rows.cpu(), self.device)
