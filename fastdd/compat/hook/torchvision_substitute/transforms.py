"""Transforms of single images, with torchvision's arithmetic."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# torchvision's is a package; what lies in it can be imported, and is missing when it is used.
__path__: list[str] = []


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


class ToTensor:
    """A PIL image or array [H, W, C] as a tensor [C, H, W]; bytes become floats, 0..1."""

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        if isinstance(image, Image.Image):
            if image.mode not in ("L", "RGB", "RGBA", "1"):
                raise ImportError(f"ToTensor of images of mode {image.mode} needs torchvision, which is not installed")
            array = np.array(image, copy=True)
            if image.mode == "1":
                array = 255 * array.astype(np.uint8)
        elif isinstance(image, np.ndarray) and image.ndim in (2, 3):
            array = image
        else:
            raise TypeError(f"ToTensor needs a PIL image or an array of 2 or 3 dimensions, not {type(image).__name__}")
        tensor = torch.from_numpy(array)
        tensor = (tensor[:, :, None] if tensor.ndim == 2 else tensor).permute(2, 0, 1).contiguous()
        return tensor.to(torch.get_default_dtype()).div(255) if tensor.dtype == torch.uint8 else tensor

    def __repr__(self) -> str:
        return "ToTensor()"


class Normalize:
    """(x - mean) / std, channel by channel, of a tensor [..., C, H, W]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False):
        self.mean, self.std, self.inplace = mean, std, inplace

    def __call__(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            raise TypeError(f"Normalize needs a float tensor, not {tensor.dtype}")
        mean, std = (
            torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device) for values in (self.mean, self.std)
        )
        if (std == 0).any():
            raise ValueError(f"std {self.std} has a zero")
        if not self.inplace:
            tensor = tensor.clone()
        return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


def _pil_only(image: Any, name: str) -> None:
    if not isinstance(image, Image.Image):
        raise ImportError(f"{name} of a {type(image).__name__} needs torchvision, which is not installed")


class Resize:
    """PIL images to (height, width), or their shorter side to one size; bilinear, by Pillow as in torchvision."""

    def __init__(self, size: int | Sequence[int]):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        _pil_only(image, "Resize")
        if isinstance(self.size, Sequence) and len(self.size) == 2:
            height, width = self.size
        else:
            short = self.size[0] if isinstance(self.size, Sequence) else self.size
            width, height = image.size
            if width <= height:
                width, height = short, int(short * height / width)
            else:
                width, height = int(short * width / height), short
        return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)

    def __repr__(self) -> str:
        return f"Resize(size={self.size})"


class CenterCrop:
    """The middle (height, width) of PIL images; what lies outside them is black."""

    def __init__(self, size: int | Sequence[int]):
        if isinstance(size, numbers.Number):
            self.size = (int(size), int(size))
        else:
            self.size = (size[0], size[-1])

    def __call__(self, image: Image.Image) -> Image.Image:
        _pil_only(image, "CenterCrop")
        (height, width), (columns, rows) = self.size, image.size
        if columns < width or rows < height:
            padded = Image.new(image.mode, (max(columns, width), max(rows, height)))
            padded.paste(image, (max(0, (width - columns) // 2), max(0, (height - rows) // 2)))
            image, (columns, rows) = padded, padded.size
        left, top = round((columns - width) / 2), round((rows - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"
