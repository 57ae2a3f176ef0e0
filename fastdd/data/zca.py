"""ZCA whitening: the pixels of a data set decorrelated, as trajectory matching is published on CIFAR."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdd.core.files import DAMAGE, reason, write_atomic
from fastdd.data.device import DeviceImages

# Pixels less 128 are at most 128 in size, so that a sum of 1024 products is at most 2^24: exact in float32.
_EXACT_ROWS, _CENTRE = 1024, 128
# Of the matrix's diagonal.
_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Zca:
    """Whitened pixels: x' = (x / 255 - mean) @ matrix, on images flattened C, H, W to D values.

    ``matrix`` is U (S + eps)^(-1/2) U^T, with the eigenvalues S and eigenvectors U of the pixels' covariance: it takes
    out what pixels share with their neighbours and leaves pictures that can still be recognised. Fitted as published
    (MTT, with kornia's ZCAWhitening): on all training images in [0, 1], without normalisation by mean and deviation;
    test images are whitened with the training images' transform.

    Args:
        mean: float32 [D], of pixels scaled to [0, 1].
        matrix: float32 [D, D], symmetric.

    Raises:
        TypeError: another dtype.
        ValueError: shapes that don't fit, a value that is not finite, or a matrix that whitens nothing.
    """

    mean: Tensor
    matrix: Tensor

    def __repr__(self) -> str:
        return f"Zca(of {len(self.mean)} values)"

    def __post_init__(self):
        for name in ("mean", "matrix"):
            tensor = getattr(self, name)
            if tensor.dtype != torch.float32:
                raise TypeError(f"ZCA's {name} must be float32, not {tensor.dtype}")
            if not torch.isfinite(tensor).all():
                raise ValueError(f"ZCA's {name} has values that are not finite")
        if self.mean.ndim != 1 or self.matrix.shape != (len(self.mean), len(self.mean)):
            raise ValueError(
                f"ZCA needs a mean [D] and a matrix [D, D], not {list(self.mean.shape)} and {list(self.matrix.shape)}"
            )
        # Positive definite, as a power of a covariance is; of an eps that is far from any use, within these sizes.
        wrong = (~((self.matrix.diagonal() >= _LEAST) & (self.matrix.diagonal() <= 1 / _LEAST))).nonzero()
        if len(wrong):
            place = int(wrong[0])
            raise ValueError(
                f"ZCA's matrix has {self.matrix[place, place]:g} at [{place}, {place}], and must lie in "
                f"{_LEAST:g}..{1 / _LEAST:g} there"
            )

    @classmethod
    def fit(cls, images: np.ndarray, *, eps: float = 0.1, device: torch.device | str = "cpu") -> "Zca":
        """The transform of these images.

        The covariance, divided by N - 1, is exact up to its last rounding: sums of products of whole pixels in float32,
        few enough at a time that none rounds, added in float64. Its eigenvectors are float64 (the matrix is unique, so
        it does not matter that the published code takes a singular value decomposition).

        Args:
            images: uint8 [N, C, H, W]; may be memory-mapped.
            eps: added to the eigenvalues; larger whitens less.
            device: where the sums and the eigenvectors are computed; the result is on the CPU.

        Raises:
            TypeError: images of another dtype.
            ValueError: fewer than 2 images, another shape, or an ``eps`` that is not positive.

        Cost: 2 N D^2 operations in float32 and about 10 D^3 in float64; four matrices [D, D] in float64. CIFAR-10
        (50,000 images, D = 3072) takes 10 s on two cores, 3 s of them for the eigenvectors; whitening it takes 5 s.
        Deterministic on a machine and thread count.

        >>> pixels = np.arange(48, dtype=np.uint8).reshape(4, 3, 2, 2) ** 2
        >>> Zca.fit(pixels).whiten(pixels).shape
        torch.Size([4, 3, 2, 2])
        """
        _check(images)
        if len(images) < 2:
            raise ValueError(f"ZCA needs at least 2 images, not {len(images)}")
        if not 0 < eps < float("inf"):
            raise ValueError(f"eps must be positive, not {eps}")
        n, d = len(images), images[0].size
        total = torch.zeros(d, dtype=torch.float64, device=device)
        products = torch.zeros(d, d, dtype=torch.float64, device=device)
        for rows in _chunks(images, device):
            rows = rows - _CENTRE
            total += rows.sum(0)
            products += rows.T @ rows
        # Whole numbers below 2^53 up to 741,000 images: exact before the division.
        products.mul_(n).addr_(total, total, alpha=-1).div_(n * (n - 1) * 255**2)
        values, vectors = torch.linalg.eigh(products)
        half = vectors * (values.clamp(min=0) + eps) ** -0.25
        matrix = half @ half.T
        mean = (total / n + _CENTRE) / 255
        return cls(mean.float().cpu(), ((matrix + matrix.T) / 2).float().cpu())

    def whiten(self, images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """uint8 [N, C, H, W] -> float32 [N, C, H, W], whitened, on ``device``.

        Raises:
            TypeError: images of another dtype.
            ValueError: images of other than D values.
        """
        _check(images)
        self._check_size(images.shape)
        mean, matrix = self.mean.to(device), self.matrix.to(device)
        whitened = torch.empty(images.shape, device=device)
        flat = whitened.view(len(images), -1)
        for start, rows in zip(range(0, len(images), _EXACT_ROWS), _chunks(images, device), strict=True):
            torch.mm(rows / 255 - mean, matrix, out=flat[start : start + _EXACT_ROWS])
        return whitened

    def unwhiten(self, images: Tensor) -> Tensor:
        """The inverse: float32 [N, C, H, W] whitened -> float32 pixels / 255, not clamped to [0, 1].

        The system is solved in float64, on the images' device.

        Raises:
            ValueError: images of other than D values.
        """
        self._check_size(images.shape)
        matrix, mean = self.matrix.to(images.device).double(), self.mean.to(images.device).double()
        pixels = torch.linalg.solve(matrix, images.detach().flatten(1).double(), left=False) + mean
        return pixels.float().view(images.shape)

    def read(self, images: np.ndarray, device: torch.device | str = "cpu") -> DeviceImages:
        """Whitened images to train on; float32, so four times the memory of the pixels."""
        return DeviceImages(self.whiten(images, device))

    def digest(self) -> str:
        """SHA-256 (hex) of mean and matrix."""
        sha = hashlib.sha256()
        for tensor in (self.mean, self.matrix):
            sha.update(np.ascontiguousarray(tensor.cpu().numpy(), dtype="<f4"))
        return sha.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """The transform as a safetensors file names it."""
        return {"zca.mean": self.mean.cpu().contiguous(), "zca.matrix": self.matrix.cpu().contiguous()}

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file, atomically; equal content gives equal bytes.

        Raises:
            OSError: naming the file; it is then as it was.
        """
        from safetensors.torch import save

        content = save(self.tensors())
        write_atomic(path, lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Zca":
        """Read a file that :meth:`save` wrote; also that of a synthetic set, or of anything else that has one.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: naming it: truncated, not a safetensors file, or without a ZCA.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no ZCA {path}")
        try:
            with safe_open(path, "pt") as file:
                if missing := {"zca.mean", "zca.matrix"} - set(file.keys()):
                    raise RuntimeError(f"{path} is a safetensors file but has no {', '.join(sorted(missing))}")
                return cls(file.get_tensor("zca.mean"), file.get_tensor("zca.matrix"))
        except (SafetensorError, *DAMAGE) as error:
            raise RuntimeError(f"{path} is damaged, or no safetensors file: {reason(error)}") from None

    def _check_size(self, shape: tuple[int, ...]) -> None:
        size = int(np.prod(shape[1:]))
        if len(shape) != 4 or size != len(self.mean):
            raise ValueError(
                f"images of shape {list(shape)} have {size} values each, ZCA was fitted on {len(self.mean)}"
            )


def _check(images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise TypeError(f"images must be a numpy array of uint8, not {getattr(images, 'dtype', type(images).__name__)}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must have the shape [N, C, H, W], not {list(images.shape)}")


def _chunks(images: np.ndarray, device: torch.device | str) -> Iterator[Tensor]:
    """Pixels 0..255 as float32 [at most 1024, D]."""
    for start in range(0, len(images), _EXACT_ROWS):
        yield torch.from_numpy(images[start : start + _EXACT_ROWS]).to(device).flatten(1).float()
