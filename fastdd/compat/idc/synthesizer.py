"""IDC's synthetic set, whose images hold several each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdd.compat.idc.data import MultiEpochsDataLoader, TensorDataset, rows_by_class
from fastdd.compat.idc.decoding import enlarged
from fastdd.compat.idc.device import device_or_default
from fastdd.compat.idc.training import test_data
from fastdd.compat.idc.transforms import MEANS, STDS, Normalize
from fastdd.compat.shared import randomness
from fastdd.core import rng as keys

__all__ = ["Synthesizer"]


class Synthesizer:
    """A synthetic set in [0, 1] whose images hold several each (multi-formation).

    Args:
        args: ``ipc``, ``factor`` and ``decode_type`` (``single``, ``multi`` or ``bound``).
        nclass, nchannel, hs, ws: classes, channels, height and width.
        device: None: the GPU, if there is one.
        rng: ``legacy`` draws the initial noise from torch's global generator, and subsamples from numpy's.

    ``data`` [nclass * ipc, C, H, W] is differentiable, ``targets`` int64; both are sorted by class.
    """

    def __init__(
        self, args: Any, nclass: int, nchannel: int, hs: int, ws: int, device: Any = None, *, rng: str | None = None
    ):
        self.ipc, self.nclass, self.nchannel, self.size = args.ipc, nclass, nchannel, (hs, ws)
        self.device = device_or_default(device)
        self.factor, self.decode_type = max(1, args.factor), args.decode_type
        # For subclasses: decoding does the same in one pass.
        self.resize = nn.Upsample(size=self.size, mode="bilinear")
        self._rng = None if rng is None else randomness.checked_mode(rng)
        shape = (nclass * self.ipc, nchannel, hs, ws)
        if randomness.mode(rng) == "legacy":
            noise = torch.randn(shape, device=self.device)
        else:
            lanes = keys.lanes(randomness.next_key("synthesizer"), shape[0], self.device)
            noise = keys.normal(lanes, nchannel * hs * ws).view(shape)
        self.data = (noise / 4 + 0.5).clamp(0, 1).requires_grad_()
        self.targets = torch.arange(nclass, device=self.device).repeat_interleave(self.ipc)
        self.cls_idx = rows_by_class(self.targets, nclass)

    def init(self, loader: Any, init_type: str = "noise") -> None:
        """Fill with the loader's first images of each class (``random``; ``mix``: factor^2 of them, shrunk into one),
        or leave the ``noise``."""
        if init_type not in ("noise", "random", "mix"):
            raise ValueError(f"init_type must be noise, random or mix, not {init_type!r}")
        if init_type == "noise":
            return
        from fastdd.data.initial import mosaics

        factor = self.factor if init_type == "mix" else 1
        with torch.no_grad():
            for c in range(self.nclass):
                images = loader.class_sample(c, self.ipc * factor**2)[0].to(self.device)
                self.data[self.ipc * c : self.ipc * (c + 1)] = mosaics(images, factor)

    def parameters(self) -> list[Tensor]:
        """``[data]``."""
        return [self.data]

    def subsample(self, data: Tensor, target: Tensor, max_size: int = -1) -> tuple[Tensor, Tensor]:
        """At most ``max_size`` of the images, drawn (-1: all)."""
        n = data.shape[0]
        if not 0 < max_size < n:
            return data, target
        if randomness.mode(self._rng) == "legacy":
            rows = torch.from_numpy(np.random.permutation(n))
        else:
            rows = keys.permutation(randomness.next_key("subsample"), n)
        rows = rows[:max_size].to(data.device)
        return data[rows], target[rows]

    def decode_zoom(self, img: Tensor, target: Tensor, factor: int) -> tuple[Tensor, Tensor]:
        """factor^2 images from each: its parts, enlarged."""
        return enlarged(img, factor, self.size), target.repeat(factor**2)

    def decode_zoom_multi(self, img: Tensor, target: Tensor, factor_max: int) -> tuple[Tensor, Tensor]:
        """:meth:`decode_zoom` by 1, 2, ..., ``factor_max``, together."""
        decoded = [self.decode_zoom(img, target, factor) for factor in range(1, factor_max + 1)]
        return tuple(torch.cat(parts) for parts in zip(*decoded, strict=True))

    def decode_zoom_bound(
        self, img: Tensor, target: Tensor, factor_max: int, bound: int = 128
    ) -> tuple[Tensor, Tensor]:
        """:meth:`decode_zoom` by the largest factors that leave room for the rest, at most ``bound`` in all."""
        first, total, decoded = 0, 0, []
        for factor in range(factor_max, 0, -1):
            left = len(img) - first
            if not left:
                break
            n = min(max(bound - total - left, 0) // factor**2, left) if factor > 1 else left
            decoded.append(self.decode_zoom(img[first : first + n], target[first : first + n], factor))
            first, total = first + n, total + n * factor**2
        return tuple(torch.cat(parts) for parts in zip(*decoded, strict=True))

    def decode(self, data: Tensor, target: Tensor, bound: int = 128) -> tuple[Tensor, Tensor]:
        """The images that ``data`` holds, as ``decode_type`` says."""
        if self.factor <= 1:
            return data, target
        if self.decode_type == "multi":
            return self.decode_zoom_multi(data, target, self.factor)
        if self.decode_type == "bound":
            return self.decode_zoom_bound(data, target, self.factor, bound=bound)
        return self.decode_zoom(data, target, self.factor)

    def sample(self, c: int, max_size: int = 128) -> tuple[Tensor, Tensor]:
        """Decoded images of class c and their labels, at most ``max_size``."""
        of_class = slice(self.ipc * c, self.ipc * (c + 1))
        data, target = self.decode(self.data[of_class], self.targets[of_class], bound=max_size)
        return self.subsample(data, target, max_size=max_size)

    def loader(
        self, args: Any, augment: bool = True, transform: Callable[[Tensor], Tensor] | None = None
    ) -> MultiEpochsDataLoader:
        """Shuffled batches of the decoded set, for training (``args.batch_size``, ``args.workers``, ``args.dataset``).

        ``transform`` is called on every image in [0, 1]; None: images are normalised.

        Raises:
            ValueError: ``augment`` without a transform.
        """
        if augment and transform is None:
            raise ValueError("augment needs a transform of your own (the published ones are torchvision's)")
        with torch.no_grad():
            of_classes = [slice(i, i + self.ipc) for i in range(0, self.ipc * self.nclass, self.ipc)]
            decoded = [self.decode(self.data[rows], self.targets[rows]) for rows in of_classes]
        data, targets = (torch.cat(parts).cpu() for parts in zip(*decoded, strict=True))
        if transform is None:
            data = Normalize(MEANS[args.dataset], STDS[args.dataset])(data)
        workers = args.workers if augment else 0
        return MultiEpochsDataLoader(
            TensorDataset(data, targets, transform),
            batch_size=args.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            rng=self._rng,
        )

    def test(self, args: Any, val_loader: Any, logger: Callable[[str], None], bench: bool = True) -> None:
        """Train networks on the decoded set and test them (:func:`test_data`); with ``bench`` a ResNet-10 too, but for
        gray images."""
        loader = self.loader(args, args.augment)
        nets = [False, True] if bench and args.dataset not in ("mnist", "fashion") else [False]
        for resnet in nets:
            test_data(args, loader, val_loader, test_resnet=resnet, logger=logger, rng=self._rng)
