"""One call both ways: the published function and ours, from the same draws, on copies; and by how much they differ."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdd.compat.shared.randomness import use_rng

# Largest relative differences that fp32 explains. A ReLU at rounding distance of zero switches, so gradients through
# networks, and what training makes of parameters, agree less well than single passes.
_VALUES = 1e-4
_GRADIENTS = 1e-3
_LOSS_IN_TRAINING = 1e-3
_STEPS = 1e-2
# Of accuracies and of gaps between groups' accuracies: few predictions at a tie.
_ACCURACY = 0.01
_GAPS = 0.05
# Of a call of blocks that is compared: what they compute shows in these, at a cost that does not.
_IMAGES = 16

_checking = [False]


def checking() -> bool:
    """Whether a comparison is under way: replaced names that it calls are the originals then."""
    return _checking[0]


class OriginalFailed(Exception):
    """The original raised, its cause; there is nothing to compare with. The generators are as before."""

    def __str__(self) -> str:
        return f"the original raised {type(self.__cause__).__name__}: {self.__cause__}"


def _rng_state() -> tuple:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()


def _restore(state: tuple) -> None:
    cpu, cuda, numpy, python = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(numpy)
    random.setstate(python)


@contextmanager
def _drawing_on_the_host() -> Iterator[None]:
    """Numbers for a GPU are drawn on the host, as ours are in legacy mode: else there would be nothing to compare."""
    names = ("rand", "randn", "randint")
    originals = {name: getattr(torch, name) for name in names}

    def on_the_host(draw: Callable) -> Callable:
        return lambda *args, device=None, **kwargs: draw(*args, **kwargs).to(device or "cpu")

    try:
        for name in names:
            setattr(torch, name, on_the_host(originals[name]))
        yield
    finally:
        for name in names:
            setattr(torch, name, originals[name])


@contextmanager
def _alone() -> Iterator[None]:
    _checking[0] = True
    try:
        with use_rng("legacy"), _drawing_on_the_host() if torch.cuda.is_available() else nullcontext():
            yield
    finally:
        _checking[0] = False


def _both(original: Callable[[], Any], ours: Callable[[], Any]) -> tuple[Any, Any, str | None]:
    """Results of both from the same state of the generators, which are left as the original leaves them.

    The third is what ours raised, if it did.
    """
    before = _rng_state()
    with _alone():
        try:
            theirs = original()
        except Exception as error:
            _restore(before)
            raise OriginalFailed from error
        after = _rng_state()
        _restore(before)
        mine, raised = None, None
        try:
            mine = ours()
        except Exception as error:
            raised = f"ours raised {type(error).__name__}: {error}"
        _restore(after)
    return theirs, mine, raised


def _apart(theirs: Tensor, mine: Any, what: str, tolerance: float) -> str | None:
    """How far two tensors are apart, if too far: largest difference over largest value."""
    if not isinstance(mine, Tensor) or theirs.shape != mine.shape or theirs.dtype != mine.dtype:
        kind = f"{mine.dtype} {list(mine.shape)}" if isinstance(mine, Tensor) else type(mine).__name__
        return f"{what} is {kind}, not {theirs.dtype} {list(theirs.shape)}"
    if not theirs.numel():
        return None
    theirs, mine = theirs.detach(), mine.detach().to(theirs.device)
    if not theirs.is_floating_point():
        return None if torch.equal(theirs, mine) else f"{what} differs"
    size = (theirs - mine).abs().max() / theirs.abs().max().clamp_min(torch.finfo(theirs.dtype).tiny)
    return None if size <= tolerance else f"{what} differs by {size:.2g}, relative (allowed {tolerance:g})"


def _first(differences: Iterator[str | None] | Sequence[str | None]) -> str | None:
    return next(filter(None, differences), None)


def _gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Of a fixed weighting of ``value``, with the graph kept for the script."""
    weights = torch.linspace(-1, 1, max(value.numel(), 1), device=value.device, dtype=value.dtype)
    weights = weights[: value.numel()].reshape(value.shape) if value.ndim else torch.ones_like(value)
    given = torch.autograd.grad(value, inputs, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(inputs, given, strict=True)]


def _compare(theirs: Tensor, mine: Any, inputs: Sequence[Tensor], what: str) -> str | None:
    """Values, and gradients where there are some."""
    if (difference := _apart(theirs, mine, what, _VALUES)) is not None:
        return difference
    if theirs.requires_grad and not mine.requires_grad:
        return f"{what} has no gradient"
    inputs = [x for x in inputs if x.requires_grad]
    if not theirs.requires_grad or not inputs:
        return None
    pairs = zip(_gradients(theirs, inputs), _gradients(mine, inputs), strict=True)
    return _first(_apart(a, b, f"gradient {k}", _GRADIENTS) for k, (a, b) in enumerate(pairs))


def diff_augment(original: Callable, ours: Callable, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """``DiffAugment``: images, their gradient, and what is set on ``param``."""
    param = arguments.get("param")
    before = {} if param is None else dict(vars(param))
    copies = {**arguments, "param": copy.deepcopy(param)} if "param" in arguments else arguments
    theirs, mine, raised = _both(lambda: original(**arguments), lambda: ours(**copies))
    if raised is not None:
        return theirs, raised
    if param is not None and theirs is not arguments["x"]:  # without an operation nothing reads it
        # What the original sets: ours sets another family's names besides, which a later call finds there.
        changed = {name: value for name, value in vars(param).items() if (name, value) not in before.items()}
        lacking = [name for name, value in changed.items() if vars(copies["param"]).get(name) != value]
        if lacking:
            name = lacking[0]
            return theirs, f"param.{name} is {vars(copies['param']).get(name)!r}, not {vars(param)[name]!r}"
    return theirs, _compare(theirs, mine, [arguments["x"]], "images")


def augment(original: Callable, ours: Callable, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """``augment``, which writes into its images."""
    copies = {**arguments, "images": arguments["images"].clone()}
    theirs, mine, raised = _both(lambda: original(**arguments), lambda: ours(**copies))
    return theirs, raised or _apart(theirs, mine, "images", _VALUES)


def distance(original: Callable, ours: Callable, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """``distance_wb`` of one layer."""
    theirs, mine, raised = _both(lambda: original(**arguments), lambda: ours(**arguments))
    return theirs, raised or _compare(theirs, mine, [arguments["gws"]], "distance")


def match_loss(original: Callable, ours: Callable, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """``match_loss``, and its gradient in the synthetic gradients."""
    theirs, mine, raised = _both(lambda: original(**arguments), lambda: ours(**arguments))
    return theirs, raised or _compare(theirs, mine, list(arguments["gw_syn"]), "loss")


def _optimizer_for(optimizer: torch.optim.Optimizer, old: nn.Module, new: nn.Module) -> torch.optim.Optimizer:
    """A copy of the optimiser, its state included, over the copy of the network's parameters."""
    memo = {id(p): q for p, q in zip(old.parameters(), new.parameters(), strict=True)}
    return copy.deepcopy(optimizer, memo)


def _copied_settings(settings: Any) -> Any:
    copied = copy.copy(settings)
    if hasattr(settings, "dsa_param"):
        copied.dsa_param = copy.deepcopy(settings.dsa_param)
    return copied


def _loader_draws(loader: Any) -> list[torch.Generator]:
    holders = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    generators = [getattr(holder, "generator", None) for holder in holders]
    return [generator for generator in generators if isinstance(generator, torch.Generator)]


def _passes(original: Callable, ours: Callable, arguments: dict[str, Any], copies: dict[str, Any]) -> tuple:
    generators = _loader_draws(arguments["dataloader"])
    states = [generator.get_state() for generator in generators]

    def again() -> Any:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        return ours(**copies)

    return _both(lambda: original(**arguments), again)


def _figures(theirs: Any, mine: Any, tolerances: Sequence[tuple[str, float, bool]]) -> str | None:
    if not isinstance(mine, tuple) or len(mine) != len(theirs):
        return f"{len(theirs)} values expected"
    for (name, tolerance, relative), a, b in zip(tolerances, map(float, theirs), map(float, mine), strict=True):
        size = abs(a - b) / (max(abs(a), 1e-12) if relative else 1.0)
        if not size <= tolerance and not (np.isnan(a) and np.isnan(b)):
            return f"{name} is {b:.6g}, not {a:.6g} (allowed {tolerance:g})"
    return None


def epoch(original: Callable, ours: Callable, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """``epoch``: loss, accuracy, and what training did to parameters and buffers; ours trains copies."""
    arguments = dict(arguments)
    net = arguments["net"]
    before, copied = _values(net), copy.deepcopy(net)
    copies = {
        **arguments,
        "net": copied,
        "optimizer": _optimizer_for(arguments["optimizer"], net, copied),
        "args": _copied_settings(arguments["args"]),
    }
    try:
        theirs, mine, raised = _passes(original, ours, arguments, copies)
    except OriginalFailed as failed:  # it may have trained some of the way
        raise failed.__cause__ from None
    tolerance = _LOSS_IN_TRAINING if arguments["mode"] == "train" else _VALUES
    difference = raised or _figures(theirs, mine, [("loss", tolerance, True), ("accuracy", _ACCURACY, False)])
    if difference is None:
        # Of the whole step: a bias before a normalisation moves by rounding errors only.
        after = _values(net)
        apart, moved = (after - _values(copied)).norm(), (after - before).norm()
        if not apart <= _STEPS * moved:
            difference = f"steps of the parameters differ by {apart / moved:.2g}, relative (allowed {_STEPS:g})"
    return theirs, difference


def _values(net: nn.Module) -> Tensor:
    """All parameters and floating-point buffers in one vector."""
    return torch.cat(
        [value.detach().flatten().float() for value in net.state_dict().values() if value.is_floating_point()]
    )


def fairness_epoch(original: Callable, ours: Callable, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """``epoch_Fairness_Metric``: loss, accuracy, largest and mean gap between groups."""
    copies = {**arguments, "args": _copied_settings(arguments["args"])}
    theirs, mine, raised = _passes(original, ours, dict(arguments), copies)
    figures = [("loss", _VALUES, True), ("accuracy", _ACCURACY, False), ("largest gap", _GAPS, False)]
    return theirs, raised or _figures(theirs, mine, [*figures, ("mean gap", _GAPS, False)])


def network(original: type, ours: type, arguments: Mapping[str, Any]) -> str | None:
    """A network's parameters by name and shape, and what it gives for two images with the same values in them.

    Only the difference comes back; the generators are as before.
    """
    before = _rng_state()
    try:
        theirs, mine, raised = _both(lambda: original(**arguments), lambda: ours(**arguments))
        return raised or _networks_apart(theirs, mine, tuple(arguments.get("im_size", (32, 32))))
    finally:
        _restore(before)


def _networks_apart(theirs: nn.Module, mine: nn.Module, size: tuple[int, int]) -> str | None:
    layouts = [{name: tuple(value.shape) for name, value in net.state_dict().items()} for net in (theirs, mine)]
    if list(layouts[0].items()) != list(layouts[1].items()):
        return f"state_dict has {layouts[1]}, not {layouts[0]}"
    mine.load_state_dict(theirs.state_dict())
    first = next(module for module in theirs.modules() if isinstance(module, nn.Conv2d))
    images = torch.randn(2, first.in_channels, *size, generator=torch.Generator().manual_seed(0))
    images = images.to(first.weight.device)
    calls = {"outputs": lambda net: net(images)}
    if hasattr(theirs, "embed"):
        calls["embed"] = lambda net: net.embed(images)
    if hasattr(theirs, "get_feature"):
        calls["get_feature"] = lambda net: net.get_feature(images, theirs.depth - 1)[0]
    if hasattr(theirs, "embed_to_logit"):
        calls["embed_to_logit"] = lambda net: net.embed_to_logit(net.embed(images))
    if hasattr(theirs, "get_feature_from_layer"):
        calls["get_feature_from_layer"] = lambda net: torch.cat(
            [feature.flatten(1) for feature in net.get_feature_from_layer(images, True)[1]], dim=1
        )
    for what, call in calls.items():
        a, b, raised = _both(lambda call=call: call(theirs), lambda call=call: call(mine))
        if raised is None and not isinstance(a, Tensor):
            return f"{what} is a {type(a).__name__}, not a tensor"
        if difference := raised or _apart(a, b, what, _VALUES):
            return difference
    return None


def diff_aug(original: Callable, ours: Callable, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """A call of an IDC ``DiffAug``."""
    theirs, mine, raised = _both(lambda: original(**arguments), lambda: ours(**arguments))
    return theirs, raised or _compare(theirs, mine, [arguments["x"]], "images")


def blocks(module: nn.Module, original: Callable, ours: Callable, x: Tensor) -> str | None:
    """Blocks of a network: what they give for the first of a call's images. Statistics and generators are as before."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]

    def once(call: Callable) -> Tensor:
        with torch.no_grad():
            result = call(x.detach()[:_IMAGES].clone(memory_format=torch.preserve_format))
            for buffer, value in buffers:
                buffer.copy_(value)
            return result

    before = _rng_state()
    try:
        theirs, mine, raised = _both(lambda: once(original), lambda: once(ours))
    except OriginalFailed:  # and so will the call
        return None
    finally:
        _restore(before)
    difference = raised or _apart(theirs, mine, "output", _VALUES)
    if difference is None and theirs.is_contiguous() and not mine.is_contiguous():
        return "output is not contiguous"
    return difference
