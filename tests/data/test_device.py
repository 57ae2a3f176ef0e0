"""Images where they are used: the same bits whether their pixels rest there or are streamed."""

import numpy as np
import pytest
import torch

from fastdd import ops
from fastdd.core import rng
from fastdd.data import DeviceImages, load, open_store, save_store
from fastdd.data.device import _is_too_much

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PIXELS = (rng.uniform(rng.key(0, "pixels"), 20 * 3 * 64) * 256).to(torch.uint8).view(20, 3, 8, 8).numpy()


def params(rows, device="cpu"):
    return ops.dsa_params("color_crop_cutout_flip_scale_rotate", rng.lanes(3, rows, device), (8, 8))


def check_reads(device):
    """Batches of several sizes, one after another, all compared at the end: none may be written over."""
    resting, streamed = (DeviceImages.of(PIXELS, MEAN, STD, device, stream=stream) for stream in (False, True))
    assert resting.device.type == streamed.device.type == device
    assert (streamed.shape, streamed.size) == (resting.shape, resting.size)
    assert streamed.pixels.device.type == "cpu"
    batches = [torch.tensor(rows, dtype=torch.int64) for rows in ([3, 1, 1], [0], [19, 18, 17, 16, 15], [2, 4], [])]
    made = [
        [images.read(rows, params(len(rows), device)) for rows in batches]
        + [images.read(rows.to(device)) for rows in batches]
        for images in (resting, streamed)
    ]
    for one, other in zip(*made, strict=True):
        assert one.device.type == device
        assert torch.equal(one, other)


def test_streamed_images_have_the_same_bits():
    check_reads("cpu")


@pytest.mark.gpu
def test_streamed_images_have_the_same_bits_on_a_gpu():
    check_reads("cuda")


def test_streams_what_leaves_a_gpu_too_little(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert [_is_too_much(size, torch.device("cuda")) for size in (500, 501)] == [False, True]
    assert not _is_too_much(10**15, torch.device("cpu"))


def test_a_memory_mapped_store_is_not_copied(tmp_path):
    data = load("c-digits")
    save_store(data, tmp_path / "store")
    mapped = open_store(tmp_path / "store").train.images
    images = DeviceImages.of(mapped, MEAN, STD)
    assert images.pixels.data_ptr() == mapped.ctypes.data
    assert torch.equal(
        images.read(torch.tensor([5])), DeviceImages.of(np.array(mapped), MEAN, STD).read(torch.tensor([5]))
    )
