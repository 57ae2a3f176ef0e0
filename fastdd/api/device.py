"""Where the verbs compute."""

import torch

from fastdd.core import ranks


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is the GPU if there is one; RuntimeError if a GPU is asked for by name and there is none.

    A rank of a job gets a GPU of its own: that of its number on the machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; one of: auto, cpu, cuda, cuda:N") from None
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise RuntimeError(f"device {name} was asked for, but this torch ({torch.__version__}) sees no GPU")
    return device if ranks.world() == 1 else _gpu_of_rank(device)


def _gpu_of_rank(device: torch.device) -> torch.device:
    if device.index is not None:
        raise ValueError(f"device {device} is one GPU, and each of the {ranks.world()} ranks takes its own: give cuda")
    number, there = ranks.local_rank(), torch.cuda.device_count()
    if number >= there:
        raise RuntimeError(
            f"this machine has {there} GPU{'s' if there > 1 else ''}, fewer than ranks: start fewer, or give device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
