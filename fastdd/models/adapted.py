"""A user's own network as one of this package: its embedding is found, and its shapes are tried before any work."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastdd.core.text import did_you_mean
from fastdd.models.network import Network

# What a factory is given, as far as it names it.
_ARGUMENTS = ("channels", "num_classes", "size")
_TRIED_IMAGES = 3


@dataclass(frozen=True)
class _Look:
    """How a network embeds images: by calling ``attribute``, or from ``layer``, its output or its input.

    ``embedding_dim`` is of the embedding; ``head`` is the last linear layer, where the logits are what it makes of the
    embedding, else None.
    """

    attribute: str | None
    layer: str | None
    takes_input: bool
    embedding_dim: int = 0
    head: str | None = None


@dataclass(frozen=True, eq=False)
class Definition:
    """A registered network: its name, what makes it, and what its embedding is."""

    name: str
    factory: Callable[..., nn.Module]
    embed: str | None = None
    looks: dict[tuple, _Look] = field(default_factory=dict)

    def __deepcopy__(self, memo: Any) -> "Definition":
        return self

    def make(self, shape: tuple[int, int, tuple[int, int]], key: int) -> nn.Module:
        """The factory's network, drawn from ``key``: PyTorch's global generator is as it was afterwards."""
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(key % 2**63)
            net = self.factory(**dict(_given(self, shape)))
        except Exception as error:
            raise ValueError(f"network {self.name}: its factory fails with {_told(shape)}: {_line(error)}") from error
        finally:
            torch.set_rng_state(state)
        if not isinstance(net, nn.Module):
            raise TypeError(f"network {self.name}: its factory returned {_kind(net)}, not a torch.nn.Module")
        return net


def define(name: str, factory: Callable[..., nn.Module], embed: str | None) -> Definition:
    """A definition; TypeError where the factory can't be called as one, or the embedding is not named by a word."""
    if isinstance(factory, nn.Module):
        raise TypeError(f"network {name}: give what makes a fresh network, such as its class, not a network")
    if not callable(factory):
        raise TypeError(f"network {name}: a factory is a function or a class, not {_kind(factory)}")
    if embed is not None and not isinstance(embed, str):
        raise TypeError(f"network {name}: embed names a layer or a method of the network, not {_kind(embed)}")
    parameters = inspect.signature(factory).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if "num_classes" not in named or not set(needed) <= set(_ARGUMENTS):
        raise TypeError(
            f"network {name}: a factory is given channels, num_classes and size by name, as far as it names them, and "
            f"has to name num_classes; this one is {getattr(factory, '__name__', 'it')}{inspect.signature(factory)}"
        )
    return Definition(name, factory, embed)


class Adapted(Network):
    """A registered network on images of a shape.

    ``forward`` is its own. ``embed`` is, in this order: the layer (its output) or method that was named; the network's
    own ``embed``; what its last linear layer is given.

    Args:
        definition: the network.
        shape: channels, classes, and height and width of the images.
        key: its parameters are the factory's, under PyTorch's generator seeded with it.

    Raises:
        TypeError, ValueError: a network that can't be used, in one line (:func:`_tried`).
    """

    def __init__(self, definition: Definition, shape: tuple[int, int, tuple[int, int]], key: int):
        super().__init__()
        self._definition, self._shape = definition, shape
        self.module = definition.make(shape, key)
        if shape not in definition.looks:
            definition.looks[shape] = _tried(definition, shape)
        self._look = definition.looks[shape]
        self.embedding_dim = self._look.embedding_dim
        self.head = f"module.{self._look.head}"

    def rebuilt(self, key: int) -> nn.Module:
        """A fresh network of the factory's, on the CPU."""
        return self._definition.make(self._shape, key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("module."):  # the head, by its path
            if name == "module.None":
                raise ValueError(
                    f"network {self._definition.name}: its logits are not what a linear layer makes of its embedding, "
                    "which is needed here"
                )
            return self.get_submodule(name)
        return super().__getattr__(name)

    def embed(self, images: Tensor) -> Tensor:
        return _embedding(self.module, self._look, images)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)


def replays(net: nn.Module) -> bool:
    """Whether work with the network can be captured as a CUDA graph and replayed: not with a registered one, which may
    keep things on the host or wait for the device."""
    return not isinstance(net, Adapted)


def _embedding(net: nn.Module, look: _Look, images: Tensor) -> Tensor:
    if look.attribute is not None:
        return getattr(net, look.attribute)(images).flatten(1)
    seen: list[Tensor] = []
    layer = net.get_submodule(look.layer)
    if look.takes_input:
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    else:
        hook = layer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    try:
        net(images)
    finally:
        hook.remove()
    if not seen:
        raise ValueError(f"layer {look.layer}, which its embedding is of, is not called")
    return seen[-1].flatten(1)


def _tried(definition: Definition, shape: tuple[int, int, tuple[int, int]]) -> _Look:
    """How the network embeds images, after a trial on three of the shape; nothing of PyTorch's generator is used up.

    Raises:
        TypeError: no parameters, or others than float32.
        ValueError: it fails, has logits or embeddings of another shape, no linear layer to take the embedding from, a
            layer that is not there, images without a gradient, an embedding that depends on the rest of the batch, or
            draws of its own (in its start, not from PyTorch's generator; or at every call, as dropout).
    """
    state = torch.get_rng_state()
    try:
        return _trial(definition, shape)
    except (TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise type(error)(text if text.startswith("network ") else f"network {definition.name}: {text}") from error
    except Exception as error:
        raise ValueError(f"network {definition.name} fails on {_told(shape)}: {_line(error)}") from error
    finally:
        torch.set_rng_state(state)


def _trial(definition: Definition, shape: tuple[int, int, tuple[int, int]]) -> _Look:
    channels, num_classes, size = shape
    net, again = definition.make(shape, 1), definition.make(shape, 1)
    tensors = [*net.parameters()]
    if not tensors or any(tensor.dtype != torch.float32 for tensor in tensors):
        raise TypeError("a network has parameters, all of them float32")
    pairs = zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        raise ValueError("its start is not a function of torch's seed: draw with PyTorch's own generator alone")
    images = torch.linspace(-2, 2, _TRIED_IMAGES * channels * size[0] * size[1]).sin()
    images = images.reshape(_TRIED_IMAGES, channels, *size)
    net.train()
    with torch.no_grad():
        first = net(images)
        if not isinstance(first, Tensor) or first.shape != (_TRIED_IMAGES, num_classes):
            found = list(first.shape) if isinstance(first, Tensor) else _kind(first)
            raise ValueError(f"it makes {found} of {_TRIED_IMAGES} images, not [{_TRIED_IMAGES}, {num_classes}]")
        if not torch.equal(first, net(images)):
            raise ValueError(
                "in training it says another thing of the same images each time (dropout?), so that no run could be "
                "done again: give it a probability of 0"
            )
    net.eval()
    return _checked(net, _find_look(net, definition.embed, images), images)


def _find_look(net: nn.Module, embed: str | None, images: Tensor) -> _Look:
    layers = dict(net.named_modules())
    if embed is not None and embed in layers and embed:
        return _Look(None, embed, False)
    if callable(getattr(net, embed or "embed", None)):
        return _Look(embed or "embed", None, False)
    if embed is not None:
        raise ValueError(f"it has no layer and no method {embed!r}{did_you_mean(embed, [*layers])}")
    called: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, layer in layers.items()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.no_grad():
            net(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not called or not called[-1]:
        raise ValueError("it has no linear layer to take its embedding from: give it embed(images), or name a layer")
    return _Look(None, called[-1], True)


def _checked(net: nn.Module, look: _Look, images: Tensor) -> _Look:
    leaf = images.clone().requires_grad_()
    found = _embedding(net, look, leaf)
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
        raise ValueError(f"its embedding of {len(images)} images is {list(found.shape)}, not [{len(images)}, D]")
    if not found.requires_grad or torch.autograd.grad(found.sum(), leaf, allow_unused=True)[0] is None:
        raise ValueError("its embedding has no gradient in the images: leave out no_grad and detach")
    with torch.no_grad():
        if not torch.allclose(_embedding(net, look, images[:1]), found[:1], rtol=1e-3, atol=1e-4):
            raise ValueError("in evaluation its embedding of an image depends on the rest of the batch")
        head = look.layer if look.takes_input else _last_linear(net)
        layer = None if head is None else net.get_submodule(head)
        fits = layer is not None and layer.in_features == found.shape[1]
        fits = fits and torch.allclose(layer(found), net(images), rtol=1e-3, atol=1e-4)
    return _Look(look.attribute, look.layer, look.takes_input, found.shape[1], head if fits else None)


def _last_linear(net: nn.Module) -> str | None:
    return next((n for n, layer in reversed([*net.named_modules()]) if n and isinstance(layer, nn.Linear)), None)


def _given(definition: Definition, shape: tuple[int, int, tuple[int, int]]) -> list[tuple[str, Any]]:
    named = inspect.signature(definition.factory).parameters
    return [(name, value) for name, value in zip(_ARGUMENTS, shape, strict=True) if name in named]


def _told(shape: tuple[int, int, tuple[int, int]]) -> str:
    channels, num_classes, (height, width) = shape
    return f"images of {channels}x{height}x{width} in {num_classes} classes"


def _kind(value: object) -> str:
    return (
        "nothing"
        if value is None
        else f"the class {value.__name__}"
        if isinstance(value, type)
        else type(value).__name__
    )


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
