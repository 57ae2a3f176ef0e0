"""Ways into autograd that torch opens without asking whether a tensor is one of its own."""

import functools

import torch

from fastdd.compat.deferred.graph import plain

_installed: list[bool] = []


def close() -> None:
    """Let ``torch.autograd.backward`` and ``Function.apply`` take ordinary tensors in place of deferred ones."""
    if _installed:
        return
    _installed.append(True)
    backward, apply = torch.autograd.backward, torch.autograd.Function.__dict__["apply"].__func__

    @functools.wraps(backward)
    def backward_of_values(*args, **kwargs):
        args, kwargs = plain((args, kwargs))
        return backward(*args, **kwargs)

    @functools.wraps(apply)
    def apply_to_values(cls, *args, **kwargs):
        return apply(cls, *map(plain, args), **kwargs)

    torch.autograd.backward = backward_of_values
    torch.autograd.Function.apply = classmethod(apply_to_values)
