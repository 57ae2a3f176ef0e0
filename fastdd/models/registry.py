"""Network names of the published code, and what each stands for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fastdd.core import plugins
from fastdd.core.text import did_you_mean, listed
from fastdd.models.adapted import Adapted, Definition, define
from fastdd.models.convnet import ConvNet
from fastdd.models.init import initialised
from fastdd.models.network import Network
from fastdd.models.resnet import BasicBlock, Bottleneck, PooledBasicBlock, ResNet
from fastdd.models.stacks import MLP, VGG, VGG_LAYERS, AlexNet, LeNet
from fastdd.models.vit import ViT

_CONVNETS: dict[str, dict[str, Any]] = {
    "ConvNet": {},
    **{f"ConvNetD{depth}": {"depth": depth} for depth in range(1, 9)},
    **{f"ConvNetW{width}": {"width": width} for width in (32, 64, 128, 256, 512, 1024)},
    "ConvNetKIP": {"width": 1024, "norm": "none"},
    "ConvNetAS": {"activation": "sigmoid"},
    "ConvNetAR": {"activation": "relu"},
    "ConvNetAL": {"activation": "leakyrelu"},
    "ConvNetASwish": {"activation": "swish"},
    "ConvNetASwishBN": {"activation": "swish", "norm": "batchnorm"},
    "ConvNetNN": {"norm": "none"},
    "ConvNetBN": {"norm": "batchnorm"},
    "ConvNetLN": {"norm": "layernorm"},
    "ConvNetIN": {"norm": "instancenorm"},
    "ConvNetGN": {"norm": "groupnorm"},
    "ConvNetNP": {"pooling": "none"},
    "ConvNetMP": {"pooling": "maxpooling"},
    "ConvNetAP": {"pooling": "avgpooling"},
}
_BATCH_NORM = {"norm": "batchnorm"}
_COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_NETWORKS: dict[str, tuple[type[Network], dict[str, Any]]] = {
    **{name: (ConvNet, setting) for name, setting in _CONVNETS.items()},
    "MLP": (MLP, {}),
    "LeNet": (LeNet, {}),
    "AlexNet": (AlexNet, {}),
    "AlexNetBN": (AlexNet, _BATCH_NORM),
    **{name: (VGG, {"name": name}) for name in VGG_LAYERS},
    "VGG11BN": (VGG, {"name": "VGG11", **_BATCH_NORM}),
    **{
        f"ResNet{layers}": (ResNet, {"block": Bottleneck if layers >= 50 else BasicBlock, "counts": counts})
        for layers, counts in _COUNTS.items()
    },
    "ResNet18BN": (ResNet, _BATCH_NORM),
    "ResNet18_AP": (ResNet, {"block": PooledBasicBlock}),
    "ResNet18BN_AP": (ResNet, {"block": PooledBasicBlock, **_BATCH_NORM}),
    "ResNet6ImageNet": (ResNet, {"counts": (1, 1, 1, 1), "imagenet": True}),
    "ResNet18ImageNet": (ResNet, {"imagenet": True}),
    **{
        f"ResNet{layers}ImageNetBN": (ResNet, {"counts": _COUNTS[layers], "imagenet": True, **_BATCH_NORM})
        for layers in (18, 34)
    },
    "ResNet50ImageNet": (ResNet, {"block": Bottleneck, "counts": _COUNTS[50], "imagenet": True, **_BATCH_NORM}),
    "ViT": (ViT, {}),
    **{f"ViT{depth}": (ViT, {"depth": depth}) for depth in (1, 2, 3)},
}
_REGISTERED: dict[str, Definition] = {}


def names() -> list[str]:
    """All network names that :func:`build` takes."""
    return [*_NETWORKS, *_REGISTERED]


def register(name: str, factory: Callable[..., nn.Module], embed: str | None = None) -> None:
    """Add a user's network (:func:`fastdd.register_network`)."""
    plugins.check_name(plugins.NETWORK, name, names(), factory)
    _REGISTERED[name] = define(name, factory, embed)
    plugins.claim(plugins.NETWORK, name, factory, lambda: _REGISTERED.pop(name, None))


def convnet_setting(name: str) -> dict[str, Any] | None:
    """What sets the ConvNet of this name apart from the default, as arguments of ConvNet; None for other names."""
    return _CONVNETS.get(name)


def is_convnet(name: str) -> bool:
    """Whether this is a ConvNet's name, in any case: of a network that takes a width and a depth."""
    return name.lower() in {known.lower() for known in _CONVNETS}


def canonical_name(name: str) -> str:
    """The registered spelling of ``name``, whatever its case; ValueError if there is none.

    >>> canonical_name("convnetd4")
    'ConvNetD4'
    """
    by_lower = {known.lower(): known for known in names()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    known = names()
    cure = plugins.cure(plugins.NETWORK, name) or f"{did_you_mean(name, known)} (one of: {', '.join(known)})"
    raise ValueError(f"unknown network {name!r}{cure}")


def build(
    name: str,
    channels: int,
    num_classes: int,
    size: tuple[int, int] = (32, 32),
    *,
    width: int | None = None,
    depth: int | None = None,
    key: int = 0,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A network by its published name, randomly initialised; the global RNG is not touched.

    A registered one (:func:`fastdd.register_network`) has the start that its factory gives it, under PyTorch's global
    generator seeded with the key, which is as it was afterwards.

    Args:
        name: one of :func:`names`, in any case.
        channels: image channels.
        num_classes: outputs.
        size: image height and width; every network honours it (published code: only some ConvNets).
        width: filters a convolution, in place of the name's; ConvNets only.
        depth: blocks, in place of the name's; ConvNets only.
        key: the initialisation is a function of it (:class:`fastdd.models.ParameterInit`).
        device: where.

    Raises:
        ValueError: unknown name, a width or depth for a network that has it fixed, or images too small for it.

    >>> build("ConvNetD5", 3, 10, (128, 128)).embedding_dim
    2048
    """
    if (definition := _registered(name, width, depth)) is not None:
        return Adapted(definition, (channels, num_classes, tuple(size)), key).to(device)
    return initialised(lambda: _make(name, channels, num_classes, size, width, depth), key, device)


def check(
    name: str,
    channels: int,
    num_classes: int,
    size: tuple[int, int],
    *,
    width: int | None = None,
    depth: int | None = None,
) -> None:
    """Raises the ValueError that :func:`build` would raise; takes milliseconds and no memory.

    Of a registered network, it is built once, and tried on three images, on the CPU.
    """
    if (definition := _registered(name, width, depth)) is not None:
        Adapted(definition, (channels, num_classes, tuple(size)), 0)
        return
    with torch.device("meta"):
        _make(name, channels, num_classes, size, width, depth)


def _registered(name: str, width: int | None, depth: int | None) -> Definition | None:
    """What a user has registered by a name; None for this package's networks."""
    definition = _REGISTERED.get(canonical_name(name))
    if definition is not None:
        _check_fixed(definition.name, width=width, depth=depth)
    return definition


def _check_fixed(name: str, **given: int | None) -> None:
    wrong = [what for what, value in given.items() if value is not None]
    if wrong:
        raise ValueError(f"{name} has its own {listed(wrong)}: leave that out, or take a ConvNet")


def _make(
    name: str, channels: int, num_classes: int, size: tuple[int, int], width: int | None, depth: int | None
) -> Network:
    name = canonical_name(name)
    kind, fixed = _NETWORKS[name]
    given = {what: value for what, value in (("width", width), ("depth", depth)) if value is not None}
    if not is_convnet(name):
        _check_fixed(name, **given)
    return kind(**{**fixed, **given}, channels=channels, num_classes=num_classes, size=size)
