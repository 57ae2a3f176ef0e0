"""What a registered method must do, tried on a few images before a run: what conformance tests hold fastdd's to."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd.core import plugins
from fastdd.data import Dataset
from fastdd.data.initial import first_images
from fastdd.methods.base import Context, Method, Settings

# Images of every class and group that the trial sees, at most, and classes.
_EACH, _CLASSES = 8, 2


def check_kind(name: str, kind: object) -> None:
    """TypeError unless ``kind`` is a method's class that says what the registry has to know."""
    if not isinstance(kind, type) or not issubclass(kind, Method):
        found = f"the class {kind.__name__}" if isinstance(kind, type) else type(kind).__name__
        raise TypeError(f"method {name}: give a subclass of fastdd.methods.Method, such as of Dm, not {found}")
    for attribute in ("about", "source"):
        if not isinstance(getattr(kind, attribute, None), str):
            raise TypeError(f"method {name}: {kind.__name__}.{attribute} is missing: a line of text")
    settings = getattr(kind, "Settings", None)
    if not isinstance(settings, type) or not issubclass(settings, Settings):
        raise TypeError(f"method {name}: {kind.__name__}.Settings is missing: a subclass of fastdd.methods.Settings")
    for setting, info in settings.model_fields.items():
        if not info.description:
            raise TypeError(f"method {name}: declare {setting} by fastdd.core.settings.setting('what it is', default)")


def check_steps(kind: type[Method], config: Settings, data: Dataset) -> None:
    """Do two steps of a registered method on a few images of two classes, the second of them twice, on the CPU.

    Methods of fastdd's, and those that follow experts, are not tried. Nothing of PyTorch's generator is used up.

    Raises:
        TypeError: a step that returns something else than a tensor.
        ValueError: a method that fails, a loss that is no scalar, images of another shape, or steps that are not done
            again to the same bits from what :meth:`Method.state` has, so that no run could be resumed.
    """
    origin = plugins.source(plugins.METHOD, config.method)
    if origin is None or kind.by_class or kind.needs_experts:
        return
    state = torch.get_rng_state()
    try:
        _try(kind, config, _few(data))
    except (TypeError, ValueError) as error:
        raise type(error)(f"method {config.method}, tried on a few images: {' '.join(str(error).split())}") from error
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"method {config.method} fails on a few images: {line}") from error
    finally:
        torch.set_rng_state(state)


def _few(data: Dataset) -> Dataset:
    """Images of each group of the first two classes."""
    train, rows = data.train, []
    for label in range(min(_CLASSES, data.num_classes)):
        for group in range(data.num_groups):
            rows.append(np.flatnonzero((train.labels == label) & (train.groups == group))[:_EACH])
    few = train.take(np.sort(np.concatenate(rows)))
    return replace(data, train=few, test=few, validation=None, class_names=data.class_names[:_CLASSES])


def _try(kind: type[Method], config: Settings, data: Dataset) -> None:
    small: dict[str, Any] = {"ipc": 1, "iterations": 1, "init": "noise"}
    if "batch_real" in kind.Settings.model_fields:
        small["batch_real"] = min(getattr(config, "batch_real", _EACH), _EACH)
    for name in ("networks", "networks_epoch"):
        if name in kind.Settings.model_fields:
            small[name] = None
    tried = kind.Settings.model_validate({**config.model_dump(), **small})
    weights = torch.ones(len(data.train)) if kind.takes("weights", config.mode) else None
    start = first_images(data, 1, config.seed, "noise")

    def begun() -> Method:
        return kind(tried, Context(data, torch.device("cpu"), start, weights))

    first = begun()
    _step(first, 0)
    between = {name: tensor.detach().clone() for name, tensor in first.state().items()}
    _step(first, 1)
    _step(other := begun(), 0)
    other.restore(between)
    # As after a kill: what PyTorch's generator has given meanwhile is another thing.
    torch.rand(7)
    _step(other, 1)
    if not torch.equal(first.images.detach(), other.images.detach()):
        raise ValueError(
            "a step that is done again from the checkpoint before it gives other images: draw by keys of "
            "fastdd.core.rng, and have in state() all that steps change"
        )


def _step(method: Method, number: int) -> None:
    shape = method.images.shape
    loss = method.step(number)
    if not isinstance(loss, Tensor):
        raise TypeError(f"a step returns its loss, a tensor, not {type(loss).__name__}")
    if loss.numel() != 1 or not loss.is_floating_point():
        raise ValueError(f"a step returns its loss, a scalar, not {loss.dtype} {list(loss.shape)}")
    if method.images.shape != shape:
        raise ValueError(f"a step has made images of {list(method.images.shape)} of those of {list(shape)}")
