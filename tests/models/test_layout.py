"""Sizes of chunks: what they depend on."""

from types import SimpleNamespace

import pytest
import torch

from fastdd import models
from fastdd.core import ext as _ext

NET = models.build("ConvNet", 3, 10, (32, 32))
# ConvNet's first block on 32x32: 128 channels of float32.
BLOCK = 4 * 128 * 32 * 32


def on(device, images=10):
    return SimpleNamespace(device=torch.device(device), shape=torch.Size([images, 3, 32, 32]))


def test_chunks_stay_in_cache_on_cpus_and_are_everything_on_gpus():
    assert models.chunk_size(NET, on("cpu", 1000)) == 2**23 // BLOCK == 16
    assert models.chunk_size(NET, on("cpu"), torch.bfloat16) == 32
    assert models.chunk_size(NET, on("cuda", 1000)) == 1000
    assert models.chunk_size(NET, on("cuda", 1000), low_memory=True) == 16


@pytest.mark.parametrize(("ipc", "classes"), [(1, 16), (2, 8), (10, 1), (50, 1)])
def test_classes_on_cpus_fill_a_chunk_whatever_the_memory(monkeypatch, ipc, classes):
    monkeypatch.delattr(torch.cuda, "mem_get_info")
    assert models.classes_at_once(NET, on("cpu"), ipc, 256) == classes
    assert models.classes_at_once(NET, on("cuda"), ipc, 256, low_memory=True) == classes


def test_classes_on_gpus_fill_its_free_memory_at_most_half_of_it(monkeypatch):
    step = 6 * BLOCK * (10 + 90)  # of a class
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * step)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: step)
    for free, total, classes in ((5, 100, 7), (0, 100, 2), (60, 100, 50), (5, 1, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, f=free, t=total: (f * step, t * step))
        assert models.classes_at_once(NET, on("cuda"), 10, 90) == classes


def test_chunks_of_embeddings_are_larger_where_only_pooled_activations_are_written(monkeypatch):
    images = torch.empty(1000, 3, 32, 32)
    single = models.chunk_size(NET, images)
    monkeypatch.setenv("FASTDD_BACKEND", "reference")
    assert models.embedder_chunk(NET, images) == single
    monkeypatch.delenv("FASTDD_BACKEND")
    fused = _ext.available()
    assert models.embedder_chunk(NET, images) == (4 * single if fused else single)
    flat = models.build("ConvNetNP", 3, 10, (32, 32))
    assert models.embedder_chunk(flat, images) == models.chunk_size(flat, images)
