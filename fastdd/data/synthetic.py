"""The synthetic set: what distillation makes, with everything needed to use it in one file."""

import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fastdd import ops
from fastdd.core.files import DAMAGE, partial_folder, reason, take_place, write_atomic
from fastdd.core.reading import is_count, parse_json
from fastdd.core.text import shown
from fastdd.data.about import check_about
from fastdd.data.dataset import check_channels_first, check_normalisation, shape_text
from fastdd.data.pictures import folder_names, save_by_class, table_of_classes
from fastdd.data.zca import Zca

# 2 has more than images and labels: a reader of 1 alone would train on whitened images as on others. 3 has images that
# hold several each, which a reader of 2 would train on as they are.
SCHEMAS = (1, 2, 3)
_KEY = "fastdd"
_LARGEST_HEADER = 100_000_000
# Of an image, in units of the real images' deviation: runs stop at 10,000 times what they begin with.
_LARGEST_VALUE = 1e6
# Images whose values are looked at at a time, so that a mapped file larger than the memory can be.
_CHECKED_ROWS = 256
# A larger file is mapped, and read where it is used.
_READ_WHOLE = 1 << 28
# Of the sum of a row of soft labels, which float32 rounds.
_ROW_TOLERANCE = 1e-4


@dataclass(eq=False)
class SyntheticSet:
    """Synthetic images in normalised or whitened space, their labels, and how they were made.

    Args:
        images: float32 [M, C, H, W], normalised: (pixel / 255 - mean) / std; with ``zca`` whitened by it.
        labels: int64 [M].
        metadata: JSON-able; ``mean`` and ``std`` (one value a channel) and ``class_names`` are required, the rest
            (dataset, method, debias, ipc, arch, seed, versions, ...) is kept as given. ``schema`` is set here. With
            ``zca``, ``mean`` and ``std`` are 0 and 1. With ``formation``, a number f above 1, an image holds f x f
            smaller ones (IDC's multi-formation), which networks see enlarged: :meth:`decoded`.
        learning_rate: step size learned with the images (trajectory matching), to train networks on them. Any finite
            number: in published code it can become negative, which evaluation refuses.
        soft_labels: float32 [M, classes], probabilities, to train to in place of ``labels``.
        zca: what whitens real images as these are; 38 MB of the file for 3x32x32 pixels.
        groups: int64 [M], the images' protected groups as the data set numbers them, where someone has said them;
            metadata ``groups_from`` can tell who.

    Raises:
        TypeError: another type or dtype, or metadata that can't be written as JSON.
        ValueError: shapes that don't fit, a label without a class name, soft labels that are no probabilities, a
            learning rate that is not finite, a formation that images are too small for, or required metadata missing.
    """

    images: Tensor
    labels: Tensor
    metadata: dict
    learning_rate: float | None = None
    soft_labels: Tensor | None = None
    zca: Zca | None = None
    groups: Tensor | None = None

    def __post_init__(self):
        if self.images.dtype != torch.float32:
            raise TypeError(f"images must be float32, not {self.images.dtype}")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64, not {self.labels.dtype}")
        if self.images.ndim != 4:
            raise ValueError(f"images must have the shape [M, C, H, W], not {list(self.images.shape)}")
        check_channels_first(self.images.shape)
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must have the shape [{len(self.images)}], not {list(self.labels.shape)}")
        missing = [field for field in ("class_names", "mean", "std") if field not in self.metadata]
        if missing:
            raise ValueError(f"metadata needs {', '.join(missing)}")
        check_normalisation(self.metadata["mean"], self.metadata["std"], self.images.shape[1], of="metadata ")
        check_about(self.metadata)
        classes = len(self.metadata["class_names"])
        if len(self.labels) and (self.labels.min() < 0 or self.labels.max() >= classes):
            raise ValueError(f"labels {self.labels.min()}..{self.labels.max()} are outside 0..{classes - 1}")
        self._check_groups()
        self._check_learning_rate()
        self._check_soft_labels(classes)
        self._check_zca()
        self._check_formation()
        try:
            # As it will be read back: tuples become lists.
            self.metadata = json.loads(_dump({**self.metadata, "schema": self._schema}))
        except (TypeError, ValueError) as error:
            raise TypeError(f"metadata must be JSON-able: {error}") from None

    def _check_groups(self) -> None:
        groups = self.groups
        if groups is None:
            return
        if not isinstance(groups, Tensor) or groups.dtype != torch.int64:
            raise TypeError(f"groups must be an int64 tensor, not {getattr(groups, 'dtype', type(groups).__name__)}")
        if groups.shape != self.labels.shape or (groups < 0).any():
            least = f" from {groups.min()}" if groups.numel() else ""
            raise ValueError(
                f"groups must be {len(self.labels)} numbers from 0, one an image, not {list(groups.shape)}{least}"
            )

    def _check_learning_rate(self) -> None:
        if self.learning_rate is None:
            return
        if isinstance(self.learning_rate, bool) or not isinstance(self.learning_rate, int | float):
            raise TypeError(f"learning_rate must be a number, not {type(self.learning_rate).__name__}")
        if not math.isfinite(self.learning_rate):
            raise ValueError(f"learning_rate must be finite, not {self.learning_rate}")
        self.learning_rate = float(self.learning_rate)

    def _check_soft_labels(self, classes: int) -> None:
        rows = self.soft_labels
        if rows is None:
            return
        if not isinstance(rows, Tensor) or rows.dtype != torch.float32:
            raise TypeError(f"soft_labels must be a float32 tensor, not {getattr(rows, 'dtype', type(rows).__name__)}")
        if rows.shape != (len(self.images), classes):
            raise ValueError(f"soft_labels must have the shape {[len(self.images), classes]}, not {list(rows.shape)}")
        sums = rows.sum(1)
        # Written so that NaN is wrong too.
        wrong = (~((sums - 1).abs() <= _ROW_TOLERANCE) | ~(rows >= 0).all(1)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"soft_labels must be probabilities: row {row} sums to {sums[row]:g}, its least is {rows[row].min():g}"
            )

    def _check_zca(self) -> None:
        if self.zca is None:
            return
        if not isinstance(self.zca, Zca):
            raise TypeError(f"zca must be a Zca, not {type(self.zca).__name__}")
        if self.images[0:1].numel() not in (0, len(self.zca.mean)):
            raise ValueError(f"images {list(self.images.shape)} do not fit a ZCA of {len(self.zca.mean)} values")
        for field, value in (("mean", 0), ("std", 1)):
            if any(own != value for own in self.metadata[field]):
                raise ValueError(f"metadata {field} must be {value} with zca, not {self.metadata[field]}")

    def check_values(self) -> None:
        """ValueError where an image has values that are not finite, or of a size that no network can train on."""
        parts = self.images.detach().flatten(1).split(_CHECKED_ROWS) if self.images.numel() else ()
        sizes = torch.cat([part.abs().amax(1) for part in parts]) if parts else self.images.new_zeros(0)
        wrong = (~(sizes <= _LARGEST_VALUE)).nonzero()  # NaN is wrong too
        if len(wrong):
            what = f"reach {sizes[int(wrong[0])]:.3g}" if sizes[int(wrong[0])].isfinite() else "are not finite"
            raise ValueError(f"the values of image {int(wrong[0])} {what}: no network can train on them")

    def _check_formation(self) -> None:
        factor = self.metadata.get("formation", 1)
        if isinstance(factor, bool) or not isinstance(factor, int):
            raise TypeError(f"formation must be a whole number, not {factor!r}")
        height, width = self.images.shape[2:]
        if factor < 1 or (factor > min(height, width) and len(self.images)):
            raise ValueError(
                f"formation must be 1 to {min(height, width)}: an image of {height} x {width} does not hold "
                f"{factor} x {factor}"
            )
        if factor > 1 and self.zca is not None:
            raise ValueError(f"images that hold {factor} x {factor} each can't be whitened: formation and zca exclude")

    @property
    def formation(self) -> int:
        """f: an image holds f x f images that networks see (multi-formation); 1 where they see it itself."""
        return self.metadata.get("formation", 1)

    @property
    def _schema(self) -> int:
        if self.formation > 1:
            return 3
        return 1 if self.learning_rate is None and self.soft_labels is None and self.zca is None else 2

    @property
    def targets(self) -> Tensor:
        """What networks are trained to: ``soft_labels`` if there are any, else ``labels``."""
        return self.labels if self.soft_labels is None else self.soft_labels

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file, atomically; equal content gives equal bytes.

        Raises:
            OSError: naming the file; it is then as it was.
        """
        from safetensors.torch import save

        tensors = {"images": self.images, "labels": self.labels}
        if self.learning_rate is not None:
            tensors["learning_rate"] = torch.tensor(self.learning_rate, dtype=torch.float64)
        if self.groups is not None:
            tensors["groups"] = self.groups
        if self.soft_labels is not None:
            tensors["soft_labels"] = self.soft_labels
        if self.zca is not None:
            tensors |= self.zca.tensors()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(tensors, metadata={_KEY: _dump({**self.metadata, "schema": self._schema})})
        write_atomic(path, lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SyntheticSet":
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: naming it: truncated, not a safetensors file, not a synthetic set, or a newer schema.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load, load_file

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no synthetic set {path}")
        size = path.stat().st_size
        mapped = size > _READ_WHOLE
        content = _beginning(path) if mapped else path.read_bytes()
        header = _header(content, path, size)
        try:
            metadata = parse_json(header["__metadata__"][_KEY])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise RuntimeError(f"{path} is a safetensors file but not a synthetic set of fastdd") from None
        schema = metadata.get("schema") if isinstance(metadata, dict) else None
        if not is_count(schema) or schema not in SCHEMAS:
            raise RuntimeError(
                f"{path} has the schema {shown(schema)}, this version reads {' and '.join(map(str, SCHEMAS))}"
            )
        tensors: dict[str, Tensor] = {}
        try:
            tensors = load_file(path) if mapped else load(content)
            made = cls(
                tensors["images"],
                tensors["labels"],
                metadata,
                learning_rate=tensors["learning_rate"].item() if "learning_rate" in tensors else None,
                soft_labels=tensors.get("soft_labels"),
                zca=Zca(tensors["zca.mean"], tensors["zca.matrix"]) if "zca.mean" in tensors else None,
                groups=tensors.get("groups"),
            )
            made.check_values()
        except KeyError as error:
            what = "is damaged" if "images" in tensors else "is no synthetic set"
            raise RuntimeError(f"{path} {what}: {reason(error)}") from None
        except (SafetensorError, *DAMAGE, RuntimeError) as error:
            raise RuntimeError(f"{path} is damaged: {reason(error)}") from None
        return made

    def dataset(self) -> TensorDataset:
        """What one's own training loop takes: (images, labels), or (images, labels, soft labels) where there are any.

        Images are those that networks see (:meth:`decoded`), normalised by the metadata's ``mean`` and ``std`` as test
        images must be, or whitened by ``zca``.
        """
        seen = self.decoded()
        tensors = [seen.images.detach(), seen.labels, seen.soft_labels]
        return TensorDataset(*(tensor for tensor in tensors if tensor is not None))

    def pixels(self, layout: Literal["NHWC", "NCHW"] = "NHWC") -> np.ndarray:
        """Pixels 0..255 of the images that networks see, a NumPy array uint8: [M, H, W, C], or [M, C, H, W].

        De-normalised, or the whitening taken back, as :meth:`to_uint8` does.
        """
        if layout not in ("NHWC", "NCHW"):
            raise ValueError(f"layout must be NHWC or NCHW, not {layout!r}")
        pixels = self.decoded().to_uint8().cpu().numpy()
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if layout == "NHWC" else pixels

    def save_images(self, folder: str | os.PathLike) -> list[Path]:
        """Write the images that networks see as PNG files, ``CLASS/NUMBER.png``; the files, in the order of the images.

        :func:`fastdd.export_synthetic` writes them with a record from which the set can be read again.

        Raises:
            ValueError: a folder that is not empty.
            OSError: it can't be written; nothing is left there.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is not an empty folder; give another")
        seen = self.decoded()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as building:
            names = folder_names(self.metadata["class_names"])
            written = save_by_class(building, self.pixels("NCHW"), seen.labels.tolist(), names, place=folder)
            take_place(building, folder)
        return [folder / file.relative_to(building) for file in written]

    def __repr__(self) -> str:
        about = self.metadata
        words = [
            f"{len(self.images):,} images {shape_text(self.images.shape[1:])}",
            f"{len(about['class_names'])} classes",
        ]
        made = [str(about[name]) for name in ("method", "debias", "dataset") if about.get(name)]
        words += [" ".join(made)] if made else []
        words += [f"IPC {about['ipc']}"] if about.get("ipc") else []
        parts = {"soft labels": self.soft_labels, "whitened": self.zca, "learned step size": self.learning_rate}
        words += [word for word, part in parts.items() if part is not None]
        return f"SyntheticSet({', '.join(words)})"

    def _repr_html_(self) -> str:
        """For notebooks: images of the classes."""
        pixels = self.to_uint8().cpu().numpy()
        labels = {"images in the set": self.labels.cpu().numpy()}
        return table_of_classes(repr(self), self.metadata["class_names"], labels, lambda rows: pixels[rows])

    def digest(self) -> str:
        """SHA-256 over what networks are trained on: images, labels, soft labels, step size, whitening, formation."""
        digest = hashlib.sha256(repr((self.learning_rate, self.formation, tuple(self.images.shape))).encode())
        about = json.dumps([self.metadata[name] for name in ("class_names", "mean", "std")])
        digest.update(about.encode())
        for tensor in (self.images, self.labels, self.soft_labels):
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().numpy())
        if self.zca is not None:
            digest.update(self.zca.digest().encode())
        return digest.hexdigest()

    @property
    def parts(self) -> Tensor:
        """The image and the part of it of every image that networks see, int64 [M f^2, 2]; in the published order:
        class by class, and in a class the first part of every image, then the second, and so on."""
        parts = ops.all_parts(len(self.images), self.formation)
        return parts[(self.labels.cpu()[parts[:, 0]] * self.formation**2 + parts[:, 1]).argsort(stable=True)]

    def decoded(self) -> "SyntheticSet":
        """The set of the images that networks see; itself where they are those that are stored.

        With ``formation`` f each of its f x f parts, enlarged (:func:`fastdd.ops.formation`; what it lacks is gray, 0.5
        of a pixel in [0, 1]), in the order of :attr:`parts`. Labels and soft labels are those of the image.
        """
        if self.formation == 1:
            return self
        images, parts = self.images.detach(), self.parts
        mean, std = (torch.tensor(self.metadata[field], device=images.device) for field in ("mean", "std"))
        rows = parts[:, 0]
        return replace(
            self,
            images=ops.formation(images, self.formation, parts.to(images.device), fill=(ops.GREY - mean) / std),
            labels=self.labels[rows],
            soft_labels=None if self.soft_labels is None else self.soft_labels[rows],
            groups=None if self.groups is None else self.groups[rows],
            metadata={name: value for name, value in self.metadata.items() if name != "formation"},
        )

    def to_uint8(self) -> Tensor:
        """Pixels 0..255, uint8 [M, C, H, W]: (images * std + mean) * 255, clamped and rounded half to even.

        Those of the images as they are stored.

        With ``zca``, its inverse in place of ``std`` and ``mean``.
        """
        images = self.images.detach()
        if self.zca is not None:
            pixels = self.zca.unwhiten(images)
        else:
            shape = (1, -1, 1, 1)
            mean, std = (images.new_tensor(self.metadata[field]).view(shape) for field in ("mean", "std"))
            pixels = (images * std).add_(mean)
        return (pixels * 255).clamp_(0, 255).round_().to(torch.uint8)


def _dump(metadata: dict) -> str:
    return json.dumps(metadata, sort_keys=True, allow_nan=False)


def _beginning(path: Path) -> bytes:
    """A safetensors file up to its tensors."""
    with open(path, "rb") as file:
        length = file.read(8)
        return length + file.read(min(int.from_bytes(length, "little"), _LARGEST_HEADER))


def _header(content: bytes, path: Path, size: int) -> dict:
    """The JSON header of a safetensors file: a little-endian 64-bit length, the header, the tensors' bytes.

    ``content`` is the file of ``size`` bytes, or its beginning.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 9 or length > _LARGEST_HEADER or content[8:9] != b"{":
        raise RuntimeError(f"{path} is not a safetensors file")
    truncated = RuntimeError(f"{path} is truncated: {size} bytes are fewer than its header asks for")
    if len(content) < 8 + length:
        raise truncated
    try:
        header = parse_json(content[8 : 8 + length])
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise RuntimeError(f"{path} is not a safetensors file") from None
    if not is_count(end):
        raise RuntimeError(f"{path} is not a safetensors file")
    if size < 8 + length + end:
        raise truncated
    return header
