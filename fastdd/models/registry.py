"""Network names of the published code, and what each stands for."""

import difflib
from typing import Any

import torch
from torch import nn

from fastdd.models.convnet import ConvNet
from fastdd.models.init import ParameterInit

_VARIANTS: dict[str, dict[str, Any]] = {
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


def names() -> list[str]:
    """All network names that :func:`build` takes."""
    return list(_VARIANTS)


def canonical_name(name: str) -> str:
    """The registered spelling of ``name``, whatever its case; ValueError if there is none.

    >>> canonical_name("convnetd4")
    'ConvNetD4'
    """
    by_lower = {known.lower(): known for known in _VARIANTS}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"; did you mean {by_lower[close[0]]}?" if close else ""
    raise ValueError(f"unknown network {name!r}{hint} (one of: {', '.join(_VARIANTS)})")


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

    Args:
        name: ConvNet and its variants (:func:`names`), in any case.
        channels: image channels.
        num_classes: outputs.
        size: image height and width; every variant honours it (published code: only ConvNet and ConvNetD*).
        width: filters a convolution, in place of the name's.
        depth: blocks, in place of the name's.
        key: the initialisation is a function of it (:class:`fastdd.models.ParameterInit`).
        device: where.

    Raises:
        ValueError: unknown name, or images too small for the depth.

    >>> build("ConvNetD5", 3, 10, (128, 128)).embedding_dim
    2048
    """
    setting = dict(_VARIANTS[canonical_name(name)])
    if width is not None:
        setting["width"] = width
    if depth is not None:
        setting["depth"] = depth
    with torch.device("meta"):  # no memory, no draws from the global RNG
        net = ConvNet(channels, num_classes, size=size, **setting)
    net = net.to_empty(device=device)
    ParameterInit(net).fill(key)
    return net
