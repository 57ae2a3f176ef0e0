"""How convolutional networks are run: memory format and chunk size, which change no result, and exact arithmetic."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from fastdd.ops._dispatch import transformed

# Activations of the first block for one chunk, in bytes. glibc maps blocks above 32 MB anew at every use, and
# the page faults cost as much as the convolutions (ConvNet-D3, 640 images of 3x32x32, 2 cores: 0.22 s in chunks of 16,
# 0.41 s from 32 on; with freed memory kept, fastdd.core.malloc, 0.23 s in chunks of any size).
_CHUNK_BYTES = 1 << 23
# Memory of a matching step on a GPU for an image, in activations of the first block, for each of a network's
# convolutions (at least three): twice the first one's (convolution and norm), those of the smaller blocks behind it,
# and as much again for a gradient. An estimate, on the large side.
_STEP_ACTIVATIONS = 2
_FEWEST_CONVOLUTIONS = 3


class Images(Protocol):
    """Where images [N, C, H, W] are and their shape: a tensor's, or those of what reads them."""

    device: torch.device
    shape: Sequence[int]


def fast_layout(images: Tensor) -> Tensor:
    """``images`` [N, C, H, W] in channels-last memory, in which convolutions and the norms between run fastest; same
    values.

    A training step of ConvNet on two CPU cores: 100 images of 32x32 1.2x faster, of 16x16 1.1x; a step of DM on an H200
    1.2x (13.8 ms, 17.0 without).
    """
    if transformed():  # torch.func.vmap refuses to
        return images
    return images.contiguous(memory_format=torch.channels_last)


def chunk_size(net: nn.Module, images: Images, dtype: torch.dtype = torch.float32, *, low_memory: bool = False) -> int:
    """How many of the images [N, C, H, W] to put through ``net`` at once, in ``dtype``; at least 1.

    On CPUs a chunk whose activations malloc can reuse; on GPUs all of them, unless memory is to be low. Only for
    networks that treat every image by itself.
    """
    if images.device.type != "cpu" and not low_memory:
        return max(1, images.shape[0])
    return max(8, _CHUNK_BYTES // _first_block_bytes(net, images, dtype))


def _first_block_bytes(net: nn.Module, images: Images, dtype: torch.dtype = torch.float32) -> int:
    height, width = images.shape[-2:]
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            return dtype.itemsize * layer.out_channels * height * width
        if isinstance(layer, nn.Linear):
            return dtype.itemsize * max(layer.in_features, layer.out_features)
    raise TypeError(f"{type(net).__name__} has no convolution and no linear layer")


def classes_at_once(net: nn.Module, images: Images, ipc: int, batch_real: int, *, low_memory: bool = False) -> int:
    """How many classes of a matching step to put through ``net`` at a time; at least 1.

    On CPUs, and where memory is to be low, as many as have their synthetic images in one chunk (:func:`chunk_size`),
    whatever the machine: more are no faster. On GPUs as many as an estimate says fit into the free memory, or
    into half of the GPU's where more is free.

    Args:
        net: the network.
        images: of the step's size, where it runs.
        ipc: synthetic images per class.
        batch_real: real images per class.
        low_memory: on GPUs too.
    """
    device = images.device
    if device.type == "cpu" or low_memory:
        return max(1, chunk_size(net, images, low_memory=True) // ipc)
    free, total = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # freed, but PyTorch's
    per_class = (ipc + batch_real) * activations(net, images)
    return max(1, min(free + kept, total // 2) // per_class)


def activations(net: nn.Module, images: Images) -> int:
    """An estimate, on the large side, of the bytes that a training step on a GPU keeps of an image."""
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in net.modules())
    return _STEP_ACTIVATIONS * max(_FEWEST_CONVOLUTIONS, convolutions) * _first_block_bytes(net, images)


def exact_convolutions() -> AbstractContextManager:
    """A context in which cuDNN computes float32 in float32 (not TF32) and two runs give the same bits."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
