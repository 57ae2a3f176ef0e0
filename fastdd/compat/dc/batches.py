"""Batches of any DataLoader on a device: data sets of tensors are read by index, test sets are decoded once."""

import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader, default_collate

from fastdd.compat.dc.datasets import Pixels, TensorDataset
from fastdd.compat.shared import randomness
from fastdd.core import rng as draws

# Of the memory that is free, how much a decoded test set may take.
_SHARE = {"cpu": 4, "cuda": 2}
_Rows = list[int] | Tensor
# What shows that a data set was changed, and its batches.
_kept: "weakref.WeakKeyDictionary[DataLoader, tuple[list, list[tuple[Tensor, ...]]]]" = weakref.WeakKeyDictionary()


def batches(
    loader: DataLoader, device: torch.device | str, *, columns: int = 2, keep: bool = False, rng: str | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Images, labels and so on of every batch, on ``device``: new tensors, which may be written to.

    Args:
        loader: any. One over a data set of tensors, or over this package's, is read by index, not item by item.
        device: where.
        columns: how many of an item's values, all tensors in a batch.
        keep: whether batches that come in the data set's order may be kept, decoded and on the device, for the next
            pass over the same loader. They are if they fit into a quarter of the memory that is free (half, of a GPU)
            and the data set draws no random numbers, for as long as the loader lives and the data set's attributes
            are the same, tensors among them unwritten; other changes in place go unseen.
        rng: ``fast``: the order of ``shuffle=True`` over a data set of tensors is a function of the next key, and the
            global generator is left alone; ``legacy``, and a sampler or generator of the loader's own: the order and
            the draws are those of iterating over it. None: the mode that is set.
    """
    device, mode = torch.device(device), randomness.mode(rng)
    read = _reader(loader)
    if keep and _in_order(loader) and not (read and _are_on(loader.dataset, device)):
        kept = _decoded(loader, device, columns)
        if kept is not None:
            if mode == "legacy":
                _draw_worker_seed(loader)
            for batch in kept:
                yield tuple(tensor.clone() for tensor in batch)
            return
    for batch in loader if read is None else map(read, _row_batches(loader, mode)):
        yield tuple(column.to(device) for column in batch[:columns])


def _columns(dataset: Any) -> tuple[Tensor, ...] | None:
    """The tensors whose rows are the data set's items, if items are that and nothing else."""
    kind, columns = type(dataset), None
    if kind is data.TensorDataset:
        columns = dataset.tensors
    elif kind is TensorDataset or (kind.__name__ == "TensorDataset" and _indexes_alike(kind)):
        columns = dataset.images, dataset.labels
    if columns is None or len(columns) < 2 or not all(isinstance(column, Tensor) for column in columns):
        return None
    return columns


def _indexes_alike(kind: type) -> bool:
    """Whether a script's own class gets items by the same code: a fork may crop or flip there."""
    code, published = (getattr(cls.__getitem__, "__code__", None) for cls in (kind, TensorDataset))
    return code is not None and (code.co_code, code.co_names) == (published.co_code, published.co_names)


def _reader(loader: DataLoader) -> Callable[[_Rows], tuple[Tensor, ...]] | None:
    """What reads the rows of a batch at once and gives what the loader would."""
    if (
        type(loader) is not DataLoader
        or loader.num_workers
        or loader.batch_sampler is None
        or loader.collate_fn is not default_collate
    ):
        return None
    if type(loader.dataset) is Pixels:
        return lambda rows: loader.dataset.read(torch.as_tensor(rows, dtype=torch.int64))
    columns = _columns(loader.dataset)
    if columns is None:
        return None

    def read(rows: _Rows) -> tuple[Tensor, ...]:
        at = torch.as_tensor(rows, dtype=torch.int64, device=columns[0].device)
        return tuple(column[at.to(column.device)] for column in columns)

    return read


def _are_on(dataset: Any, device: torch.device) -> bool:
    columns = _columns(dataset)
    return columns is not None and all(column.device.type == device.type for column in columns)


def _in_order(loader: Any) -> bool:
    # A batch sampler of the script's own has the sampler that counts; the loader's is then a default.
    return (
        isinstance(loader, DataLoader)
        and type(loader.batch_sampler) is data.BatchSampler
        and type(loader.batch_sampler.sampler) is data.SequentialSampler
    )


def _draw_worker_seed(loader: DataLoader) -> None:
    """What starting to iterate over a DataLoader draws from its generator, whether or not it has workers."""
    torch.empty((), dtype=torch.int64).random_(generator=loader.generator)


def _row_batches(loader: DataLoader, mode: str) -> Iterator[_Rows]:
    batch_sampler, n = loader.batch_sampler, len(loader.dataset)
    if mode == "fast" and type(batch_sampler) is data.BatchSampler and _covers(batch_sampler.sampler, n):
        order = torch.arange(n)
        if not _in_order(loader):
            order = draws.permutation(randomness.next_key("order"), n)
        size = batch_sampler.batch_size
        if batch_sampler.drop_last:
            order = order[: n // size * size]
        if len(order):
            yield from order.split(size)
        return
    _draw_worker_seed(loader)
    yield from batch_sampler


def _covers(sampler: Any, n: int) -> bool:
    """Whether it gives every row once, in order, or as ``shuffle=True`` does, from the global generator."""
    if type(sampler) is data.SequentialSampler:
        return len(sampler) == n
    return (
        type(sampler) is data.RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(sampler.data_source) == n
        and sampler.generator is None
    )


def _decoded(loader: DataLoader, device: torch.device, columns: int) -> list[tuple[Tensor, ...]] | None:
    """The loader's batches on the device, from this pass or an earlier one; None if they can't be kept."""
    if loader in _kept:
        state, decoded = _kept[loader]
        if _same(state, [device, columns, *_state(loader.dataset)]):
            return decoded
        del _kept[loader]
    if not _may_be_kept(loader.dataset, device):
        return None
    with torch.random.fork_rng(devices=[]):
        decoded = [tuple(column.to(device) for column in batch[:columns]) for batch in loader]
    _kept[loader] = [device, columns, *_state(loader.dataset)], decoded
    return decoded


def _state(dataset: Any) -> list:
    """The data set's public attributes, and how often tensors among them were written to; of what it wraps too."""
    values: list = []
    for name, value in getattr(dataset, "__dict__", {}).items():
        if name.startswith("_"):
            continue
        values.append(value)
        if isinstance(value, Tensor) and not value.is_inference():
            values.append(value._version)
        elif isinstance(value, data.Dataset):
            values += _state(value)
    return values


def _same(before: list, now: list) -> bool:
    return len(before) == len(now) and all(
        a is b or (isinstance(a, int | torch.device) and type(a) is type(b) and a == b)
        for a, b in zip(before, now, strict=True)
    )


def _may_be_kept(dataset: Any, device: torch.device) -> bool:
    if device.type not in _SHARE or not len(dataset):
        return False
    before = _generators()
    item = dataset[0]
    if not _same_draws(before, _generators()):
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
        return False
    if not isinstance(item[0], Tensor):
        return False
    import psutil

    free = psutil.virtual_memory().available if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    return item[0].nbytes * len(dataset) <= free // _SHARE[device.type]


def _generators() -> tuple:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _same_draws(before: tuple, after: tuple) -> bool:
    numpys = zip(before[1], after[1], strict=True)
    return torch.equal(before[0], after[0]) and all(np.array_equal(a, b) for a, b in numpys) and before[2] == after[2]
