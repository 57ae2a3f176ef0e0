"""Methods of networks that stay the script's own, and that call the layers of a block one by one.

    layers = list(self.features.modules())[1:]
    for layer in layers[:last]:
        x = layer(x)

Alone, a layer gives PyTorch's strides and cannot know what follows. A method whose text is a published one runs
the same layers as a slice of the network's :mod:`fastdd.compat.hook.blocks`; its first calls are compared.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fastdd.compat.hook import verify
from fastdd.compat.hook.counted import Entry
from fastdd.compat.hook.replacements import Replacement
from fastdd.models.blocks import Blocks


def _sliced(net: nn.Module, x: Tensor, last: int = -1, flatten: bool = True) -> Tensor:
    y = net.features[:last](x)
    return y.view(y.size(0), -1) if flatten else y


def _fits(net: nn.Module, x: Tensor) -> bool:
    """Whether the layers are those of a block, none of them with layers of its own, and outputs are laid out alike."""
    features = getattr(net, "features", None)
    return isinstance(features, Blocks) and not any(list(layer.children()) for layer in features) and x.is_contiguous()


def within(network: type[nn.Module], name: str, checks: int) -> Entry:
    """From now on, let a method of ``network`` run the layers that it calls as a block; the row of the summary."""
    known = Replacement(f"{network.__name__}.{name}", "", "fastdd.models.blocks:Blocks", verify.blocks)
    entry = Entry(known.name, network.__module__, known, checks=checks)
    setattr(network, name, _in_place_of(getattr(network, name), entry))
    return entry


def _in_place_of(original: Callable, entry: Entry) -> Callable:
    @functools.wraps(original)
    def call(self: nn.Module, x: Tensor, *args: Any, **options: Any) -> Any:
        if verify.checking():
            return original(self, x, *args, **options)
        entry.calls += 1
        if not entry.fallen and len(args) <= 2 and options.keys() <= {"last", "flatten"} and _fits(self, x):
            ours = functools.partial(_sliced, self)
            if entry.due():
                theirs = functools.partial(original, self)
                both = (lambda x, call=call: call(x, *args, **options) for call in (theirs, ours))
                entry.judge(verify.blocks(self, *both, x))
            if not entry.fallen:
                return ours(x, *args, **options)
        entry.pass_on(entry.why or "no slice of a block")
        return original(self, x, *args, **options)

    return call
