"""Vocabulary of IDC and DREAM besides networks and augmentation: data sets and loaders by class, the multi-formation
synthetic set, and the matching loss.

Left out, as they are made of torchvision: ``ImageFolder``, ``save_img``, ``load_data`` and the ``transform_*``; give a
``transform`` of your own instead.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastdd.compat import _random
from fastdd.compat._diffaug import DiffAug
from fastdd.compat._idc_training import test_data
from fastdd.core import rng as keys

_CIFAR = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
_STATISTICS = {
    "cifar": _CIFAR,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "svhn": ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    "mnist": ([0.1307], [0.3081]),
    "fashion": ([0.2861], [0.3530]),
}
MEANS = {name: mean for name, (mean, _) in _STATISTICS.items()}
STDS = {name: std for name, (_, std) in _STATISTICS.items()}


def _device(given: Any) -> Any:
    return given if given is not None else "cuda" if torch.cuda.is_available() else "cpu"


class TensorDataset(Dataset):
    """Images [N, C, H, W] and labels [N] in memory, as (image, label) items; ``transform`` is called on every image."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor] | None = None):
        self.images = images.detach().cpu().float()
        self.targets = labels.detach().cpu()
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return image if self.transform is None else self.transform(image), self.targets[index]

    def __len__(self) -> int:
        return self.images.shape[0]


def _images(dataset: Any, indices: Sequence[int] | Tensor) -> Tensor:
    """The images of some items, stacked."""
    if type(dataset) is TensorDataset and dataset.transform is None:
        return dataset.images.index_select(0, torch.as_tensor(indices))
    return torch.stack([dataset[int(i)][0] for i in indices])


def _floating(images: Tensor) -> Tensor:
    """uint8 becomes float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


class _Orders:
    """Endless batches of ``indices``, in a new random order every time round."""

    def __init__(self, indices: Tensor, batch_size: int, drop_last: bool, rng: str | None):
        self._indices, self._size, self._rng = indices, batch_size, rng
        self._least, self._at = batch_size if drop_last else 1, len(indices)

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        n = len(self._indices)
        if n - self._at < self._least:
            if _random.mode(self._rng) == "legacy":
                order = torch.randperm(n)
            else:
                order = keys.permutation(_random.next_key("class-batches"), n)
            self._order, self._at = self._indices[order], 0
        batch = self._order[self._at : self._at + self._size]
        self._at += len(batch)
        return batch

    def __len__(self) -> int:
        return (len(self._indices) + self._size - self._least) // self._size


class ClassBatchSampler:
    """A sampler of index batches a class: ``next(samplers[c])`` is a batch of class c; iteration goes through the
    classes again and again.

    Raises:
        ValueError: a class without items.
    """

    def __init__(
        self,
        cls_idx: Sequence[Sequence[int] | Tensor],
        batch_size: int,
        drop_last: bool = True,
        *,
        rng: str | None = None,
    ):
        self.samplers = []
        for c, indices in enumerate(cls_idx):
            if not len(indices):
                raise ValueError(f"class {c} has no images")
            self.samplers.append(_Orders(torch.as_tensor(indices), min(len(indices), batch_size), drop_last, rng))

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            for sampler in self.samplers:
                yield next(sampler)

    def __len__(self) -> int:
        return len(self.samplers)


def _by_class(targets: Sequence[int] | Tensor, nclass: int) -> list[Tensor]:
    """The items of every class, in order."""
    targets = torch.as_tensor(targets).cpu()
    return list(targets.argsort(stable=True).split(torch.bincount(targets, minlength=nclass).tolist()))


class _Endless:
    """A batch sampler's batches, again and again."""

    def __init__(self, sampler: Any):
        self._sampler = sampler

    def __iter__(self) -> Iterator:
        while True:
            yield from self._sampler

    def __len__(self) -> int:
        return len(self._sampler)


class MultiEpochsDataLoader(DataLoader):
    """A DataLoader whose workers and order go on from one epoch to the next; uint8 images become float in [0, 1]."""

    def __init__(self, *args, rng: str | None = None, **kwargs):
        if _random.mode(rng) == "fast" and kwargs.get("generator") is None:
            kwargs["generator"] = torch.Generator().manual_seed(_random.next_key("loader"))
        super().__init__(*args, **kwargs)
        # DataLoader refuses a new batch sampler once it is initialised.
        self._DataLoader__initialized = False
        self.batch_sampler = _Endless(self.batch_sampler)
        self._DataLoader__initialized = True
        self.iterator = super().__iter__()
        image = self.dataset[0][0]
        self.device = image.device.type
        self.convert = _floating if image.dtype == torch.uint8 else None

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(len(self)):
            data, target = next(self.iterator)
            yield _floating(data), target


class ClassDataLoader(MultiEpochsDataLoader):
    """Batches of one class, or of all, read item by item from the data set (with ``targets`` and ``nclass``)."""

    def __init__(self, *args, rng: str | None = None, **kwargs):
        super().__init__(*args, rng=rng, **kwargs)
        self.nclass = self.dataset.nclass
        self.cls_idx = _by_class(self.dataset.targets, self.nclass)
        self.class_sampler = ClassBatchSampler(self.cls_idx, self.batch_size, drop_last=True, rng=rng)

    def class_sample(self, c: int, ipc: int = -1) -> tuple[Tensor, Tensor]:
        """The next batch of class c, or its first ``ipc`` images."""
        indices = self.cls_idx[c][:ipc] if ipc > 0 else next(self.class_sampler.samplers[c])
        device = _device(None)
        return _images(self.dataset, indices).to(device), torch.full((len(indices),), c, device=device)

    def sample(self) -> tuple[Tensor, Tensor]:
        """The next batch of all classes."""
        data, target = next(self.iterator)
        return _floating(data).to(_device(None)), target.to(_device(None))


class ClassMemDataLoader:
    """Batches of one class, or of all, from images on the device.

    Args:
        dataset: items (image, label), with ``targets`` and ``nclass``; read once. uint8 images stay so, and become
            float in [0, 1] in batches.
        batch_size: at most the size of a class for :meth:`class_sample`.
        drop_last: of :meth:`sample`.
        device: None: the GPU, if there is one.
        rng: ``legacy``: the order is that of torch's samplers, from the global generator.
    """

    def __init__(
        self, dataset: Any, batch_size: int, drop_last: bool = False, device: Any = None, *, rng: str | None = None
    ):
        self.device, self.batch_size, self.dataset = _device(device), batch_size, dataset
        self.data = _images(dataset, range(len(dataset))).to(self.device)
        self.targets = torch.as_tensor(dataset.targets, dtype=torch.long, device=self.device)
        self.nclass = dataset.nclass
        self.cls_idx = _by_class(self.targets, self.nclass)
        self.batch_sampler = _Orders(torch.arange(len(dataset)), batch_size, drop_last, rng)
        self.class_sampler = ClassBatchSampler(self.cls_idx, batch_size, drop_last=True, rng=rng)
        self.convert = _floating if self.data.dtype == torch.uint8 else None

    def _at(self, indices: Tensor) -> Tensor:
        # index_select copies whole images; indexing takes seven times as long.
        return _floating(self.data.index_select(0, indices.to(self.device)))

    def class_sample(self, c: int, ipc: int = -1) -> tuple[Tensor, Tensor]:
        """The next batch of class c, or its first ``ipc`` images."""
        indices = self.cls_idx[c][:ipc] if ipc > 0 else next(self.class_sampler.samplers[c])
        return self._at(indices), torch.full((len(indices),), c, device=self.device)

    def sample(self) -> tuple[Tensor, Tensor]:
        """The next batch of all classes."""
        indices = next(self.batch_sampler)
        return self._at(indices), self.targets[indices.to(self.device)]

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(len(self)):
            yield self.sample()


class Normalize:
    """``(x - mean) / std`` by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: Any = "cpu"):
        self.mean, self.std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))

    def __call__(self, x: Tensor, seed: int = -1) -> Tensor:
        return (x - self.mean) / self.std


class Compose:
    """Functions, one after another."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = transforms

    def __call__(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x


def remove_aug(augtype: str, remove_aug: str) -> str:
    """A strategy without the operations of another.

    >>> remove_aug("color_crop_cutout", "cutout")
    'color_crop'
    """
    removed = remove_aug.split("_")
    return "_".join(name for name in augtype.split("_") if name not in removed)


def diffaug(args: Any, device: Any = None, *, rng: str | None = None) -> tuple[Compose, Compose]:
    """Normalisation and augmentation, for matching (one transform a batch) and for training networks (one an image).

    Reads ``args.aug_type``, ``args.dataset`` and ``args.mixup_net``: with CutMix, networks are trained without cutout.
    """
    normalize = Normalize(MEANS[args.dataset], STDS[args.dataset], _device(device))
    of_net = remove_aug(args.aug_type, "cutout") if args.mixup_net == "cut" else args.aug_type
    return (
        Compose([normalize, DiffAug(args.aug_type, batch=True, rng=rng)]),
        Compose([normalize, DiffAug(of_net, batch=False, rng=rng)]),
    )


def dist(x: Tensor, y: Tensor, method: str = "mse") -> Tensor:
    """Sum of squares (``mse``), of absolute values (``l1``), of their means over each first index (``l1_mean``), or of
    one minus the cosine of each first index (``cos``)."""
    if method == "mse":
        return (x - y).pow(2).sum()
    if method == "l1":
        return (x - y).abs().sum()
    if method not in ("l1_mean", "cos"):
        raise ValueError(f"method must be mse, l1, l1_mean or cos, not {method!r}")
    x, y = x.reshape(x.shape[0], -1), y.reshape(y.shape[0], -1)
    if method == "l1_mean":
        return (x - y).abs().mean(-1).sum()
    return (1 - (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1) + 1e-6)).sum()


def add_loss(loss_sum: Tensor | None, loss: Tensor) -> Tensor:
    """The sum, which starts as None."""
    return loss if loss_sum is None else loss_sum + loss


def matchloss(
    args: Any, img_real: Tensor, img_syn: Tensor, lab_real: Tensor, lab_syn: Tensor, model: nn.Module
) -> Tensor | None:
    """Distance between real and synthetic images, in a network's features or gradients.

    ``args.match`` is ``feat`` (batch means of ``model.get_feature(images, args.idx_from, args.idx_to)``) or ``grad``
    (of the cross entropy, without biases and norms unless ``args.bias``, without matrices unless ``args.fc``);
    ``args.metric`` that of :func:`dist`. Gradients that do not count are not computed.

    Returns:
        The loss, to be differentiated in ``img_syn``; None if nothing is matched.
    """
    if args.match == "feat":
        with torch.no_grad():
            real = [feature.mean(0) for feature in model.get_feature(img_real, args.idx_from, args.idx_to)]
        synthetic = [feature.mean(0) for feature in model.get_feature(img_syn, args.idx_from, args.idx_to)]
    elif args.match == "grad":
        matched = [p for p in model.parameters() if (p.dim() != 1 or args.bias) and (p.dim() != 2 or args.fc)]
        real = torch.autograd.grad(F.cross_entropy(model(img_real), lab_real), matched)
        synthetic = torch.autograd.grad(F.cross_entropy(model(img_syn), lab_syn), matched, create_graph=True)
    else:
        raise ValueError(f"args.match must be feat or grad, not {args.match!r}")
    loss = None
    for a, b in zip(real, synthetic, strict=True):
        loss = add_loss(loss, dist(a, b, method=args.metric))
    return loss


def _tiles(img: Tensor, factor: int) -> Tensor:
    """factor x factor parts of every image, [factor^2 N, C, h, w]: first all upper left ones."""
    side = math.ceil(img.shape[-1] / factor)
    if img.shape[-1] % factor:
        img = F.pad(img, (0, factor - img.shape[-1] % factor) * 2, value=0.5)
    n, channels, height, _ = img.shape
    if height < side * factor:
        raise ValueError(
            f"images of {height} rows can't be decoded into parts of {side} by {side}: they must be square"
        )
    parts = img[:, :, : side * factor, : side * factor].reshape(n, channels, factor, side, factor, side)
    return parts.permute(2, 4, 0, 1, 3, 5).reshape(-1, channels, side, side)


def decode_zoom(img: Tensor, target: Tensor, factor: int, size: int | tuple[int, int] = -1) -> tuple[Tensor, Tensor]:
    """factor^2 images from each: its parts, enlarged (bilinear) to ``size`` (-1: the images' own)."""
    size = img.shape[-1] if size == -1 else size
    return F.interpolate(_tiles(img, factor), size=size, mode="bilinear"), target.repeat(factor**2)


def decode_zoom_multi(img: Tensor, target: Tensor, factor_max: int) -> tuple[Tensor, Tensor]:
    """:func:`decode_zoom` by 1, 2, ..., ``factor_max``, together."""
    decoded = [decode_zoom(img, target, factor) for factor in range(1, factor_max + 1)]
    return tuple(torch.cat(parts) for parts in zip(*decoded, strict=True))


def decode_fn(data: Tensor, target: Tensor, factor: int, decode_type: str, bound: int = 128) -> tuple[Tensor, Tensor]:
    """:func:`decode_zoom_multi` for ``multi``, otherwise :func:`decode_zoom`; ``bound`` is unused."""
    if factor > 1:
        return (decode_zoom_multi if decode_type == "multi" else decode_zoom)(data, target, factor)
    return data, target


def decode(args: Any, data: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A synthetic set, sorted by class, decoded class by class; reads ``args.nclass``, ``args.factor`` and
    ``args.decode_type``."""
    ipc = len(data) // args.nclass
    decoded = [
        decode_fn(data[i : i + ipc].detach(), target[i : i + ipc].detach(), args.factor, args.decode_type)
        for i in range(0, ipc * args.nclass, ipc)
    ]
    return tuple(torch.cat(parts) for parts in zip(*decoded, strict=True))


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
        self.device = _device(device)
        self.factor, self.decode_type = max(1, args.factor), args.decode_type
        self.resize = nn.Upsample(size=self.size, mode="bilinear")
        self._rng = None if rng is None else _random.checked_mode(rng)
        shape = (nclass * self.ipc, nchannel, hs, ws)
        if _random.mode(rng) == "legacy":
            noise = torch.randn(shape, device=self.device)
        else:
            lanes = keys.lanes(_random.next_key("synthesizer"), shape[0], self.device)
            noise = keys.normal(lanes, nchannel * hs * ws).view(shape)
        self.data = (noise / 4 + 0.5).clamp(0, 1).requires_grad_()
        self.targets = torch.arange(nclass, device=self.device).repeat_interleave(self.ipc)
        self.cls_idx = _by_class(self.targets, nclass)

    def init(self, loader: Any, init_type: str = "noise") -> None:
        """Fill with the loader's first images of each class (``random``; ``mix``: factor^2 of them, shrunk into one),
        or leave the ``noise``."""
        if init_type not in ("noise", "random", "mix"):
            raise ValueError(f"init_type must be noise, random or mix, not {init_type!r}")
        if init_type == "noise":
            return
        factor = self.factor if init_type == "mix" else 1
        # The first parts are a pixel larger where the side is no multiple of the factor.
        lengths = [(self.size[0] + factor - 1 - i) // factor for i in range(factor)]
        with torch.no_grad():
            for c in range(self.nclass):
                images = loader.class_sample(c, self.ipc * factor**2)[0].to(self.device)
                of_class = self.data[self.ipc * c : self.ipc * (c + 1)]
                parts = iter(images.split(self.ipc))
                for rows in of_class.split(lengths, 2):
                    for part in rows.split(lengths, 3):
                        part.copy_(F.interpolate(next(parts), size=part.shape[2:]))

    def parameters(self) -> list[Tensor]:
        """``[data]``."""
        return [self.data]

    def subsample(self, data: Tensor, target: Tensor, max_size: int = -1) -> tuple[Tensor, Tensor]:
        """At most ``max_size`` of the images, drawn (-1: all)."""
        n = data.shape[0]
        if not 0 < max_size < n:
            return data, target
        if _random.mode(self._rng) == "legacy":
            chosen = torch.from_numpy(np.random.permutation(n))
        else:
            chosen = keys.permutation(_random.next_key("subsample"), n)
        chosen = chosen[:max_size].to(data.device)
        return data[chosen], target[chosen]

    def decode_zoom(self, img: Tensor, target: Tensor, factor: int) -> tuple[Tensor, Tensor]:
        """factor^2 images from each: its parts, enlarged."""
        return self.resize(_tiles(img, factor)), target.repeat(factor**2)

    def decode_zoom_multi(self, img: Tensor, target: Tensor, factor_max: int) -> tuple[Tensor, Tensor]:
        """:meth:`decode_zoom` by 1, 2, ..., ``factor_max``, together."""
        decoded = [self.decode_zoom(img, target, factor) for factor in range(1, factor_max + 1)]
        return tuple(torch.cat(parts) for parts in zip(*decoded, strict=True))

    def decode_zoom_bound(
        self, img: Tensor, target: Tensor, factor_max: int, bound: int = 128
    ) -> tuple[Tensor, Tensor]:
        """:meth:`decode_zoom` by the largest factors that leave room for the rest, at most ``bound`` in all."""
        first, made, decoded = 0, 0, []
        for factor in range(factor_max, 0, -1):
            left = len(img) - first
            if not left:
                break
            n = min(max(bound - made - left, 0) // factor**2, left) if factor > 1 else left
            decoded.append(self.decode_zoom(img[first : first + n], target[first : first + n], factor))
            first, made = first + n, made + n * factor**2
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


class Logger:
    """Prints, and writes to ``log.txt`` in a folder."""

    def __init__(self, path: str | Path):
        self.logger = open(Path(path) / "log.txt", "w", encoding="utf-8")  # noqa: SIM115

    def __call__(self, string: str, end: str = "\n", print_: bool = True) -> None:
        if print_:
            print(string, end=end)
            self.logger.write(f"{string}\n" if end == "\n" else f"{string} ")
            self.logger.flush()


class TimeStamp:
    """Seconds between calls of :meth:`stamp`, by name; :meth:`flush` prints and forgets them."""

    def __init__(self, print_log: bool = True):
        self.print_log, self.times = print_log, {}
        self.set()

    def set(self) -> None:
        """Start the clock."""
        self.prev = time.time()

    def stamp(self, name: str = "") -> None:
        """Add the seconds since the last call to ``name``."""
        if self.print_log:
            self.times.setdefault(name, []).append(time.time() - self.prev)
            self.set()

    def flush(self) -> None:
        """Print sums, means, standard deviations and counts."""
        if self.print_log:
            for name, times in self.times.items():
                mean, std = np.mean(times), np.std(times)
                print(f"{name}: {sum(times):.4f}s (avg {mean:.4f}s, std {std:.4f}, count {len(times)})")
            self.times = {}
