"""What stands in a script's modules instead of its own functions and classes: ours, counted, timed and compared."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from fastdd.compat import deferred
from fastdd.compat.hook import saved, verify
from fastdd.compat.hook.replacements import Replacement


@dataclass
class Entry:
    """What became of one name of one module.

    Attributes:
        replacement: what takes its place; None for a name that was left alone.
        why: it was left alone, or fell back to the original; empty otherwise.
        calls: of functions (constructions, of networks); seconds: inside them, CPU time of the caller.
        checks: calls still to be compared; checked, agreed: calls that were, and that agreed.
        passed_on: calls given to the original, by reason.
        on_fallback: called when the name falls back.
        copy_of: the published name of a copy under another.
        extra: parameters that ours does not have, with their defaults: calls that give others go to the original.
        output: which of the values that a network returns are the logits, where it returns several.
    """

    name: str
    module: str
    replacement: Replacement | None
    why: str = ""
    published: bool = True
    calls: int = 0
    seconds: float = 0.0
    checks: int = 0
    checked: int = 0
    agreed: int = 0
    unchecked: str = ""
    differences: list[str] = field(default_factory=list)
    passed_on: dict[str, int] = field(default_factory=dict)
    needs: list["Entry"] = field(default_factory=list)
    on_fallback: Callable[[], None] | None = None
    copy_of: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    output: int | None = None

    @property
    def fallen(self) -> bool:
        """Whether calls go to the original."""
        if not self.why:
            for need in self.needs:
                if need.fallen:
                    self.fall_back(f"{need.name} fell back")
        return bool(self.why)

    def fall_back(self, why: str) -> None:
        """Give this call and all later ones to the original."""
        self.why = why
        if self.on_fallback is not None:
            self.on_fallback()

    def due(self) -> bool:
        """Whether this call is one to compare; counts it."""
        if not self.checks:
            return False
        self.checks -= 1
        return True

    def judge(self, difference: str | None) -> None:
        """Note the outcome of a comparison."""
        self.checked += 1
        if difference is None:
            self.agreed += 1
        else:
            self.differences.append(f"call {self.calls}: {difference}")
            self.fall_back(f"call {self.calls} differs: {difference}")

    def pass_on(self, why: str) -> None:
        """Count a call that the original takes."""
        self.passed_on[why] = self.passed_on.get(why, 0) + 1


def _run(
    entry: Entry, original: Callable, ours: Callable, signature: inspect.Signature, args: tuple, kwargs: dict
) -> Any:
    known = entry.replacement
    if entry.fallen:
        entry.pass_on(entry.why)
        return original(*args, **kwargs)
    if (known.unless or entry.extra) and (why := _not_ours(entry, signature.bind(*args, **kwargs).arguments)):
        entry.pass_on(why)
        return original(*args, **kwargs)
    if not entry.due():
        return ours(*args, **kwargs)
    try:
        result, difference = known.check(original, ours, signature.bind(*args, **kwargs).arguments)
    except verify.OriginalFailed as failed:
        entry.unchecked = str(failed)
        return _or_raise(failed.__cause__, ours, args, kwargs)
    entry.judge(difference)
    return result


def _not_ours(entry: Entry, arguments: Mapping[str, Any]) -> str | None:
    """Why the original takes a call with these arguments, if it does."""
    for name, default in entry.extra.items():
        given = arguments.get(name, default)
        if given is not default and not (isinstance(given, bool | int | float | str) and given == default):
            return f"{name} is given, which is the module's own"
    unless = entry.replacement.unless
    return unless(arguments) if unless is not None else None


class _OneOutput:
    """A network that returns several values, as one that returns the logits."""

    def __init__(self, net: Any, position: int):
        self._net, self._position = net, position

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._net(*args, **kwargs)[self._position]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)


def _adapted(entry: Entry, ours: Callable, signature: inspect.Signature) -> Callable:
    """Ours without the parameters that it lacks, and with a network of one output."""

    def call(*args, **kwargs):
        given = dict(signature.bind(*args, **kwargs).arguments)
        for name in entry.extra:
            given.pop(name, None)
        if entry.output is not None:
            given["net"] = _OneOutput(given["net"], entry.output)
        return ours(**given)

    return call


def _or_raise(error: BaseException, ours: Callable, args: tuple, kwargs: dict) -> Any:
    """What ours gives; ``error``, as the script would have seen without us, if ours fails too."""
    try:
        return ours(*args, **kwargs)
    except Exception:
        raise error from None


def function(entry: Entry, original: Callable) -> Callable:
    """Ours in the clothes of ``original``: its name, module, documentation and signature."""
    ours, signature = entry.replacement.load(), inspect.signature(original)
    if entry.extra or entry.output is not None:
        ours = _adapted(entry, ours, signature)

    @functools.wraps(original)
    def call(*args, **kwargs):
        if verify.checking():
            return original(*args, **kwargs)
        entry.calls += 1
        started = perf_counter()
        try:
            return _run(entry, original, ours, signature, args, kwargs)
        finally:
            entry.seconds += perf_counter() - started

    return call


def _named_after(original: type, base: type, body: dict[str, Any]) -> type:
    """A class under the original's name and module, so that what is pickled loads where fastdd is not."""
    names = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
    return type(original.__name__, (base,), {**names, **body})


def network(entry: Entry, original: type) -> type:
    """Our class under the original's name; its constructions are counted, and compared as they come."""
    known, ours, signature = entry.replacement, entry.replacement.load(), inspect.signature(original)

    def compared(arguments: dict[str, Any]) -> str | None:
        """By how much the two differ; the original may use its own name, as in ``super(ConvNet, self)``."""
        module = sys.modules[original.__module__]
        setattr(module, original.__name__, original)
        try:
            return known.check(original, ours, arguments)
        finally:
            setattr(module, original.__name__, replaced)

    def new(cls, *args, **kwargs):
        # Copies and pickles make empty objects, without arguments.
        if cls is replaced and (args or kwargs) and not verify.checking():
            if not entry.fallen and entry.due():
                entry.calls += 1
                entry.judge(compared(signature.bind(*args, **kwargs).arguments))
                entry.calls -= 1
            if entry.fallen:
                entry.calls += 1
                entry.pass_on(entry.why)
                return original(*args, **kwargs)
        return ours.__new__(cls)

    @functools.wraps(original.__init__)
    def init(self, *args, **kwargs):
        started = perf_counter()
        ours.__init__(self, *args, **kwargs)
        saved.equip(self, known.layers)
        if not verify.checking():
            entry.calls += 1
            entry.seconds += perf_counter() - started

    def set_state(self, state: dict[str, Any]) -> None:
        ours.__setstate__(self, state)
        saved.equip(self, known.layers)

    body = {"__new__": new, "__init__": init, "__setstate__": set_state}
    replaced = _named_after(original, ours, {**body, **deferred.methods(ours)})
    return replaced


def augmentation(entry: Entry, original: type) -> type:
    """Our class under the original's name; calls of its objects are counted and compared."""
    ours, signature = entry.replacement.load(), inspect.signature(original.__call__)

    @functools.wraps(original.__init__)
    def init(self, *args, **kwargs):
        ours.__init__(self, *args, **kwargs)
        self._given = args, kwargs

    def published(self) -> Any:
        """The original with what the script may have set on this object since."""
        args, kwargs = self._given
        theirs = original(*args, **kwargs)
        for name, value in vars(theirs).items():
            if isinstance(value, int | float) and name in vars(self):
                setattr(theirs, name, vars(self)[name])
        return theirs

    @functools.wraps(original.__call__)
    def call(self, *args, **kwargs):
        entry.calls += 1
        started = perf_counter()
        try:
            if entry.fallen:
                entry.pass_on(entry.why)
                return published(self)(*args, **kwargs)
            if not entry.due():
                return ours.__call__(self, *args, **kwargs)
            given = dict(signature.bind(self, *args, **kwargs).arguments)
            given.pop("self")
            result, difference = entry.replacement.check(published(self), functools.partial(ours.__call__, self), given)
            entry.judge(difference)
            return result
        finally:
            entry.seconds += perf_counter() - started

    def other(self, name: str) -> Any:
        """What ours does not have, such as an operation that no strategy names."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(published(self), name)

    return _named_after(original, ours, {"__init__": init, "__call__": call, "__getattr__": other})


def stand_in(entry: Entry, original: Any) -> Any:
    """What takes the place of ``original``."""
    if not isinstance(original, type):
        return function(entry, original)
    return augmentation(entry, original) if "__call__" in vars(original) else network(entry, original)
