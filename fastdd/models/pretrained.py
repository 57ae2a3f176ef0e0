"""Weights from files: this package's, PyTorch's, and state dicts of torchvision's or timm's ResNets."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# What stands before the names of a network that is part of another, as a registered one is.
_WRAPPED = re.compile(r"^(module\.)+")
# Names of a residual network's parts elsewhere, and here.
_NAMES = ((r"\bdownsample\.", "shortcut."), (r"^fc\.", "classifier."))


def load_weights(net: nn.Module, path: str | os.PathLike, read: Callable[[Path], Any]) -> list[str]:
    """Fill a network with the weights of a file; a last layer of other classes keeps its random start.

    Args:
        net: :class:`fastdd.models.Network`; changed in place.
        path: a safetensors file, or one of ``torch.save`` with a state dict, by itself or under ``state_dict`` or
            ``model``.
        read: reads files of ``torch.save`` without running what they hold.

    Returns:
        Names of the network's tensors that the file did not fill: those of the last layer, or none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another network: the first tensor that is missing or of another shape is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    own = net.state_dict()
    stored = _by_own_names(own, _tensors(path, read))
    head = f"{net.head}."
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    left = []
    for name, tensor in own.items():
        theirs = stored.get(name)
        if theirs is not None and theirs.shape == tensor.shape:
            continue
        if name in counters:
            continue
        if not name.startswith(head):
            what = "is missing" if theirs is None else f"is {list(theirs.shape)}, not {list(tensor.shape)}"
            raise ValueError(f"{path} has no weights of {type(net).__name__}: {name} {what}")
        left.append(name)
    fitting = {name: stored[name] for name in own if name in stored and name not in left}
    bad = next(
        (name for name, tensor in fitting.items() if tensor.is_floating_point() and not tensor.isfinite().all()), None
    )
    if bad is not None:
        raise ValueError(f"{path}: {bad} has values that are not finite")
    with torch.no_grad():
        for name, tensor in fitting.items():
            own[name].copy_(tensor)  # not load_state_dict: parameters stay views of what they are views of
    return left


def _tensors(path: Path, read: Callable[[Path], Any]) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from None
    else:
        found = read(path)
        for inner in ("state_dict", "model"):
            if isinstance(found, dict) and isinstance(found.get(inner), dict):
                found = found[inner]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict: names and tensors")
    return {_WRAPPED.sub("", str(name)): value for name, value in found.items()}


def _by_own_names(own: dict[str, Tensor], stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by the network's names: those that are the file's own, before what they are called here."""
    stored = {_renamed(name): value for name, value in stored.items()} | stored
    bare = {name: _WRAPPED.sub("", name) for name in own}
    return {name: stored[known] for name, known in bare.items() if known in stored}


def _renamed(name: str) -> str:
    for pattern, other in _NAMES:
        name = re.sub(pattern, other, name)
    return name
