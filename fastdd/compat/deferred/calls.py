"""Calls of recognised networks by a script's own code, recorded with the weights of that moment."""

import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastdd import models
from fastdd.compat.deferred import sites
from fastdd.compat.deferred.graph import Deferred, Node, settle_all

# Copies of images that wait at a time; more, and all that is pending is computed.
MOST_HELD = 512 * 2**20
_held = {"bytes": 0}
_main = threading.main_thread().ident


class Weights:
    """A network's parameters at one moment."""

    def __init__(self, net: nn.Module):
        self.net = net
        self.parameters = dict(net.named_parameters())
        self._versions = self._seen()
        with torch.enable_grad():
            self._copies = {name: p.clone() for name, p in self.parameters.items()}
        self.calls = 0

    def _seen(self) -> list[tuple[int, int, bool, bool]]:
        return [(p._version, p.data_ptr(), p.requires_grad, p.is_cuda) for p in self.parameters.values()]

    def unchanged(self, values: bool) -> bool:
        """Whether the network has them still; ``values``: whatever torch has counted."""
        now = dict(self.net.named_parameters())
        if [*now] != [*self.parameters] or any(now[name] is not p for name, p in self.parameters.items()):
            return False
        if self._seen() != self._versions:
            return False
        return not values or all(torch.equal(p.detach(), self._copies[name].detach()) for name, p in now.items())

    def are(self, tensors: Sequence[Any]) -> bool:
        """Whether ``tensors`` are the network's parameters, in order."""
        own = [*self.parameters.values()]
        return len(own) == len(tensors) and all(a is b for a, b in zip(own, tensors, strict=True))

    def hold(self) -> bool:
        """Whether a recorded call can go to the network as it is.

        Raises:
            RuntimeError: values were changed where torch does not count it, and between which calls is not known.
        """
        if self.unchanged(values=True):
            return True
        if self._seen() == self._versions and self.calls > 1 and not self._checked_at_calls():
            raise RuntimeError(
                "a network's parameters were changed through .data between two calls: run the script with --no-defer"
            )
        return False

    def _checked_at_calls(self) -> bool:
        return all(p.device.type == "cpu" for p in self.parameters.values())

    def call(self, function: Callable, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``function(net, images)``, and the parameters that it was done with: copies, where the net has others now."""
        if self.hold():
            return function(self.net, images), [*self.parameters.values()]
        holder = _Holder(self.net)
        tensors = {f"net.{name}": copy for name, copy in self._copies.items()}
        return torch.func.functional_call(holder, tensors, (function, images)), [*self._copies.values()]


class _Holder(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, function: Callable, images: Tensor) -> Tensor:
        return function(self.net, images)


_weights: "weakref.WeakKeyDictionary[nn.Module, Weights]" = weakref.WeakKeyDictionary()


class Call(Node):
    """``net.embed(images)`` or ``net(images)``.

    Attributes:
        net, weights, images: a copy of the images, part of the script's graph.
        parameters: those that it was done with.
        all_weights_used: whether the result depends on every parameter.
        site: where the script calls it.
    """

    def __init__(self, net: nn.Module, weights: Weights, function: Callable, images: Tensor, width: int, site: Any):
        self.net, self.weights, self.images, self.site = net, weights, images.clone(), site
        self.all_weights_used = function.__name__ == "forward"
        parameters = weights.parameters.values()
        grad = torch.is_grad_enabled() and (images.requires_grad or any(p.requires_grad for p in parameters))
        meta = torch.empty(len(images), width, dtype=images.dtype, device="meta", requires_grad=grad)
        super().__init__(function, (), {}, meta, images.device)
        self.parameters: list[Tensor] = []
        self._bytes = self.images.nbytes
        _held["bytes"] += self._bytes

    def run(self, value_of: Callable[[Node], Any]) -> Tensor:
        with torch.set_grad_enabled(self.grad):
            output, self.parameters = self.weights.call(self.function, self.images)
            return output

    def settle(self, value: Tensor) -> None:
        super().settle(value)
        self._let_go()

    def _let_go(self) -> None:
        _held["bytes"] -= self._bytes
        self._bytes, self.images = 0, None

    def __del__(self):
        _held["bytes"] -= getattr(self, "_bytes", 0)


def _refusal(net: nn.Module, images: Any) -> str | None:
    """Why results of this network, for every image by itself, may not come later; None if they may."""
    if type(images) is not Tensor or images.dim() != 4 or not images.numel():
        return "what it is given is no ordinary batch of images"
    if images.nbytes > MOST_HELD // 4:
        return f"a batch has more than {MOST_HELD // 4 >> 20} MiB"
    if models.couples_samples(net):
        return "batch norm couples the images of a batch"
    if any(isinstance(layer, nn.Dropout) for layer in net.modules()):
        return "dropout draws numbers for a batch"
    if any(isinstance(value, Tensor) for layer in net.modules() for value in vars(layer).values()):
        # MTT's ReparamModule puts them there for the time of a call.
        return "its weights are no parameters of its own"
    if any(_hooks(layer) for layer in net.modules()):
        return "the network has hooks"
    if any(p.dtype != images.dtype or p.device != images.device for p in net.parameters()):
        return "the network's parameters and the images differ in type or device"
    if threading.get_ident() != _main:
        return "it is called by another thread"
    if torch.is_autocast_enabled(images.device.type) or torch.is_inference_mode_enabled():
        return "it runs with autocast or in inference mode"
    if torch.is_anomaly_enabled() or torch._C._functorch.maybe_current_level():
        return "it runs under torch.func, or with anomalies detected"
    return None


def _hooks(layer: nn.Module) -> bool:
    return any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks))


def methods(ours: type) -> dict[str, Callable]:
    """``embed`` and ``forward`` of a class that stands in for ``ours`` in a script, whose own calls are recorded."""

    def embed(self, x: Tensor) -> Tensor:
        return _called(self, ours.embed, x, lambda: self.embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        return _called(self, ours.forward, x, lambda: getattr(self, self.head).out_features)

    return {"embed": embed, "forward": forward} if hasattr(ours, "embed") and hasattr(ours, "head") else {}


def _called(net: nn.Module, function: Callable, images: Any, width: Callable[[], int]) -> Tensor:
    site = sites.caller(sys._getframe(2))
    if site is None or not site.defers:
        return function(net, images)
    if (refusal := _refusal(net, images)) is not None:
        site.refusal = refusal
        return function(net, images)
    if _held["bytes"] + images.nbytes > MOST_HELD:
        settle_all()
    weights = _weights.get(net)
    if weights is None or not weights.unchanged(values=images.device.type == "cpu"):
        weights = _weights[net] = Weights(net)
    weights.calls += 1
    site.calls += 1
    return Deferred(Call(net, weights, function, images, width(), site))
