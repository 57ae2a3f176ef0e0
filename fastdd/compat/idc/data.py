"""IDC's data sets and loaders by class."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastdd.compat.idc.device import device_or_default
from fastdd.compat.shared import randomness
from fastdd.core import rng as keys

__all__ = ["ClassBatchSampler", "ClassDataLoader", "ClassMemDataLoader", "MultiEpochsDataLoader", "TensorDataset"]


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
            if randomness.mode(self._rng) == "legacy":
                order = torch.randperm(n)
            else:
                order = keys.permutation(randomness.next_key("class-batches"), n)
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


def rows_by_class(targets: Sequence[int] | Tensor, nclass: int) -> list[Tensor]:
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
        if randomness.mode(rng) == "fast" and kwargs.get("generator") is None:
            kwargs["generator"] = torch.Generator().manual_seed(randomness.next_key("loader"))
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
        self.cls_idx = rows_by_class(self.dataset.targets, self.nclass)
        self.class_sampler = ClassBatchSampler(self.cls_idx, self.batch_size, drop_last=True, rng=rng)

    def class_sample(self, c: int, ipc: int = -1) -> tuple[Tensor, Tensor]:
        """The next batch of class c, or its first ``ipc`` images."""
        indices = self.cls_idx[c][:ipc] if ipc > 0 else next(self.class_sampler.samplers[c])
        device = device_or_default(None)
        return _images(self.dataset, indices).to(device), torch.full((len(indices),), c, device=device)

    def sample(self) -> tuple[Tensor, Tensor]:
        """The next batch of all classes."""
        data, target = next(self.iterator)
        return _floating(data).to(device_or_default(None)), target.to(device_or_default(None))


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
        self.device, self.batch_size, self.dataset = device_or_default(device), batch_size, dataset
        self.data = _images(dataset, range(len(dataset))).to(self.device)
        self.targets = torch.as_tensor(dataset.targets, dtype=torch.long, device=self.device)
        self.nclass = dataset.nclass
        self.cls_idx = rows_by_class(self.targets, self.nclass)
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
