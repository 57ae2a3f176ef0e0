"""The synthetic set: what distillation makes, with everything needed to use it in one file."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastdd.files import write_atomic

SCHEMA = 1
_KEY = "fastdd"
_LARGEST_HEADER = 100_000_000


@dataclass(eq=False)
class SyntheticSet:
    """Synthetic images in normalised space, their labels, and how they were made.

    Args:
        images: float32 [M, C, H, W], normalised: (pixel / 255 - mean) / std.
        labels: int64 [M].
        metadata: JSON-able; ``mean`` and ``std`` (one value a channel) and ``class_names`` are required, the rest
            (dataset, method, debias, ipc, arch, seed, versions, ...) is kept as given. ``schema`` is set here.

    Raises:
        TypeError: another dtype, or metadata that can't be written as JSON.
        ValueError: shapes that don't fit, a label without a class name, or required metadata missing.
    """

    images: Tensor
    labels: Tensor
    metadata: dict

    def __post_init__(self):
        if self.images.dtype != torch.float32:
            raise TypeError(f"images must be float32, not {self.images.dtype}")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64, not {self.labels.dtype}")
        if self.images.ndim != 4:
            raise ValueError(f"images must have the shape [M, C, H, W], not {list(self.images.shape)}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must have the shape [{len(self.images)}], not {list(self.labels.shape)}")
        missing = [field for field in ("class_names", "mean", "std") if field not in self.metadata]
        if missing:
            raise ValueError(f"metadata needs {', '.join(missing)}")
        for field in ("mean", "std"):
            if len(self.metadata[field]) != self.images.shape[1]:
                raise ValueError(
                    f"metadata {field} needs {self.images.shape[1]} values, one a channel, not {self.metadata[field]}"
                )
        classes = len(self.metadata["class_names"])
        if len(self.labels) and (self.labels.min() < 0 or self.labels.max() >= classes):
            raise ValueError(f"labels {self.labels.min()}..{self.labels.max()} are outside 0..{classes - 1}")
        try:
            # As it will be read back: tuples become lists.
            self.metadata = json.loads(_dump({**self.metadata, "schema": SCHEMA}))
        except (TypeError, ValueError) as error:
            raise TypeError(f"metadata must be JSON-able: {error}") from None

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file, atomically; equal content gives equal bytes.

        Raises:
            OSError: naming the file; it is then as it was.
        """
        from safetensors.torch import save

        tensors = {"images": self.images.detach().cpu().contiguous(), "labels": self.labels.cpu().contiguous()}
        content = save(tensors, metadata={_KEY: _dump(self.metadata)})
        write_atomic(path, lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SyntheticSet":
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: naming it: truncated, not a safetensors file, not a synthetic set, or a newer schema.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no synthetic set {path}")
        content = path.read_bytes()
        header = _header(content, path)
        try:
            metadata = json.loads(header["__metadata__"][_KEY])
        except (KeyError, TypeError, ValueError):
            raise RuntimeError(f"{path} is a safetensors file but not a synthetic set of fastdd") from None
        schema = metadata.get("schema") if isinstance(metadata, dict) else None
        if schema != SCHEMA:
            raise RuntimeError(f"{path} has the schema {schema}, this version reads {SCHEMA}")
        try:
            tensors = load(content)
            return cls(tensors["images"], tensors["labels"], metadata)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RuntimeError(f"{path} is damaged: {error}") from None

    def to_uint8(self) -> Tensor:
        """Pixels 0..255, uint8 [M, C, H, W]: (images * std + mean) * 255, clamped and rounded half to even."""
        images = self.images.detach()
        shape = (1, -1, 1, 1)
        mean, std = (images.new_tensor(self.metadata[field]).view(shape) for field in ("mean", "std"))
        return ((images * std + mean) * 255).clamp(0, 255).round().to(torch.uint8)


def _dump(metadata: dict) -> str:
    return json.dumps(metadata, sort_keys=True, allow_nan=False)


def _header(content: bytes, path: Path) -> dict:
    """The JSON header of a safetensors file: a little-endian 64-bit length, the header, the tensors' bytes."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 9 or length > _LARGEST_HEADER or content[8:9] != b"{":
        raise RuntimeError(f"{path} is not a safetensors file")
    truncated = RuntimeError(f"{path} is truncated: {len(content)} bytes are fewer than its header asks for")
    if len(content) < 8 + length:
        raise truncated
    try:
        header = json.loads(content[8 : 8 + length])
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RuntimeError(f"{path} is not a safetensors file") from None
    if len(content) < 8 + length + end:
        raise truncated
    return header
