"""The ``fastdd::`` dispatcher namespace, and the choice of a backend.

Schemas are defined here once, in Python. The plain PyTorch reference is every op's CompositeExplicitAutograd kernel, so
``torch.ops.fastdd.*`` always works; the compiled extension registers CPU and CUDA kernels on top when it is there, and
Triton launchers are registered for CUDA when Triton is. The dispatcher's choice by device is then the automatic
backend.
"""

import functools
import importlib.util
import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from fastdd.core import ext as _ext
from fastdd.ops import _faiss
from fastdd.reference.contents import check_range

BACKENDS = ("auto", "native", "triton", "reference")
_Parameters, _Result = ParamSpec("_Parameters"), TypeVar("_Result")

_library = torch.library.Library("fastdd", "DEF")
_warned = False
# Op -> device type -> the backend that has kernels for it; what is not here runs on the reference.
_kernels: dict[str, dict[str, str]] = {}
# Op -> device type -> why ``auto`` leaves its kernels alone there (:func:`only_when`).
_held_back: dict[str, dict[str, Callable[[], str]]] = {}
# Op -> its Triton launcher; op -> the (backward, setup_context) of its derivative.
_launchers: dict[str, Callable] = {}
_derivatives: dict[str, tuple[Callable, Callable]] = {}


def define(schema: str, reference: Callable, kernels: Mapping[str, str]) -> str:
    """Define an op with its reference as the kernel of last resort; returns its qualified name.

    Args:
        schema: ``name(Tensor x, ...) -> ...``.
        reference: plain PyTorch.
        kernels: device type -> ``"native"`` (the compiled extension registers it) or ``"triton"``.
    """
    name = schema[: schema.index("(")]
    _kernels[name] = dict(kernels)
    _library.define(schema)
    _library.impl(name, reference, "CompositeExplicitAutograd")
    # Loads the extension, whose kernels then take precedence; the ops it lacks stay with the reference.
    _ext.available()
    return f"fastdd::{name}"


def define_plain(name: str, backend: str) -> None:
    """List an op that is no dispatcher op and has no reference: a library, ``"faiss"``, does its work on any device."""
    _kernels[name] = {"cpu": backend, "cuda": backend}


def only_when(name: str, device: str, why_not: Callable[[], str]) -> None:
    """That ``auto`` takes an op's kernels for a device only when ``why_not()``, what is against them, is empty."""
    _held_back.setdefault(name.removeprefix("fastdd::"), {})[device] = why_not


def _against(op: str, device: str) -> str:
    why_not = _held_back.get(op, {}).get(device)
    return why_not() if why_not else ""


def register_fake(name: str, fake: Callable) -> None:
    """Shape and dtype of the result, for tracing."""

    @functools.wraps(fake)
    def checked(*arguments):
        # PyTorch comes here as soon as one tensor is on meta; memory of another device would never be written.
        devices = {str(argument.device) for argument in arguments if isinstance(argument, Tensor)}
        if len(devices) > 1:
            raise RuntimeError(f"{name} has arguments on {' and '.join(sorted(devices))}: move them to one device")
        return fake(*arguments)

    torch.library.register_fake(name, checked, lib=_library)


def register_autograd(name: str, backward: Callable, setup_context: Callable, constant: Sequence[str] = ()) -> None:
    """The op's derivative, in terms of ops that have derivatives themselves (:func:`peer`).

    Args:
        constant: arguments that it has no derivative in, which is told where one is asked for.
    """
    short = name.removeprefix("fastdd::")
    names = [argument.name for argument in getattr(torch.ops.fastdd, short).default._schema.arguments]
    places = {names.index(argument): argument for argument in constant}

    @functools.wraps(backward)
    def checked(ctx, *gradients):
        for place, argument in places.items():
            if ctx.needs_input_grad[place]:
                raise RuntimeError(f"torch.ops.fastdd.{short} has no derivative in {argument}: detach it")
        return backward(ctx, *gradients)

    _derivatives[short] = checked, setup_context
    torch.library.register_autograd(name, checked, setup_context=setup_context, lib=_Guarded())


def register_no_autograd(name: str) -> None:
    """That the op has no derivative: asking for one is told instead of given as nothing."""

    def backward(ctx, *_):
        raise RuntimeError(f"{name} has no derivative: detach its inputs")

    _derivatives[name.removeprefix("fastdd::")] = backward, lambda ctx, inputs, output: None
    torch.library.register_autograd(name, backward, lib=_Guarded())


def register_refusal(name: str) -> None:
    """:func:`register_no_autograd` for an op that writes into its arguments, of which PyTorch takes no derivative."""
    short = name.removeprefix("fastdd::")
    op = getattr(torch.ops.fastdd, short)

    def kernel(keyset, *arguments):
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            raise RuntimeError(f"{name} has no derivative: detach its inputs")
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)

    _Guarded().impl(short, kernel, "Autograd", with_keyset=True)


def register_triton(name: str, launcher: Callable) -> None:
    """A Triton launcher as the op's CUDA kernel, where Triton is installed."""
    _launchers[name.removeprefix("fastdd::")] = launcher
    if has_triton():
        _library.impl(name.removeprefix("fastdd::"), launcher, "CUDA")


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed (it isn't off Linux)."""
    return importlib.util.find_spec("triton") is not None


def _interpreting() -> bool:
    return has_triton() and os.environ.get("TRITON_INTERPRET", "0") == "1"


def _missing(backend: str, device: str) -> str:
    """Why the device's own kernels can't run; empty when they can."""
    if backend == "faiss":
        return _faiss.missing(device)
    if backend == "triton":
        return "" if has_triton() else "triton is not installed"
    if not _ext.available():
        return _ext.reason()
    if device == "cuda" and not _ext.has_cuda_kernels():
        return "fastdd._C was built without CUDA kernels (nvcc was not found); FASTDD_CUDA=1 pip install . shows why"
    return ""


def _constant_to_compilers(function: Callable) -> Callable:
    """What ``torch.compiler.assume_constant_result`` does, which imports torch._dynamo: two seconds."""
    function._dynamo_marked_constant = True
    return function


@_constant_to_compilers
def has_kernel(op: str, device: torch.device) -> bool:
    """Whether ``op`` has a kernel of its own for the device that can run here."""
    own = _kernels[op].get(device.type)
    return own is not None and not _missing(own, device.type)


def _foreign_transform() -> str:
    """The differentiation under way that derivatives registered here do not serve; empty if there is none."""
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    if not torch._C._are_functorch_transforms_active():
        return ""
    grad = torch._C._functorch.TransformType.Grad
    under = any(level.key() == grad for level in torch._C._functorch.get_interpreter_stack())
    return "torch.func's reverse mode" if under else ""


class _Guarded:
    """A library whose derivatives refuse forward mode: PyTorch would drop the tangents without a word."""

    def __getattr__(self, name: str):
        return getattr(_library, name)

    def impl(self, name: str, kernel: Callable, key: str, **options) -> None:
        if key == "Autograd":
            kernel = _refusing_tangents(name, kernel)
        _library.impl(name, kernel, key, **options)


def _refusing_tangents(name: str, kernel: Callable) -> Callable:
    @functools.wraps(kernel)
    def checked(keyset, *arguments, **options):
        if any(map(has_tangent, arguments)):
            raise RuntimeError(
                f"torch.ops.fastdd.{name} has no forward-mode derivative: call it as fastdd.ops does, or with "
                "backend='reference'"
            )
        return kernel(keyset, *arguments, **options)

    return checked


def has_tangent(argument: object) -> bool:
    """Whether forward-mode differentiation passes through this argument."""
    if torch.autograd.forward_ad._current_level < 0 or not isinstance(argument, Tensor):
        return False
    return torch.autograd.forward_ad.unpack_dual(argument).tangent is not None


@_constant_to_compilers
def choose(op: str, backend: str, device: torch.device) -> str:
    """Which code runs: ``"dispatch"`` (torch.ops, the device's own kernels), ``"interpret"`` (Triton on the CPU) or
    ``"reference"``.

    Args:
        op: the op's name.
        backend: one of :data:`BACKENDS`; ``auto`` takes FASTDD_BACKEND from the environment when that is set.
        device: where the inputs are.

    Raises:
        ValueError: a backend that does not exist.
        RuntimeError: a backend asked for by name that can't run here, with the reason. ``auto`` falls back to the
            reference instead, with one RuntimeWarning a process.
    """
    global _warned
    source = "backend"
    if backend == "auto":
        backend, source = os.environ.get("FASTDD_BACKEND") or "auto", "FASTDD_BACKEND"
    if backend not in BACKENDS:
        raise ValueError(f"{source}={backend!r} is not one of {', '.join(BACKENDS)}")
    if backend == "reference":
        return "reference"
    foreign = _foreign_transform()
    if foreign:
        if backend == "auto":
            return "reference"
        raise RuntimeError(f"{source}={backend!r}: {op} has no derivative for {foreign}; use 'reference', or 'auto'")
    kernels = _kernels[op]
    own = kernels.get(device.type)
    if backend == "auto":
        if _against(op, device.type):
            return "reference"
        why = own and _missing(own, device.type)
        if why and not _warned:
            _warned = True
            warnings.warn(f"fastdd runs on its slower PyTorch reference: {why}", RuntimeWarning, stacklevel=3)
        return "dispatch"
    if backend == own:
        why = _missing(own, device.type)
        if why:
            raise RuntimeError(f"{source}={backend!r}: {why}")
        return "dispatch"
    if backend == "triton" and backend in kernels.values() and device.type == "cpu" and _interpreting():
        return "interpret"
    others = [name for name in (own, "reference") if name]
    raise RuntimeError(
        f"{source}={backend!r}: {op} has no such kernel for {device.type} tensors; use {' or '.join(map(repr, others))}"
    )


@dataclass(frozen=True)
class Implementation:
    """What runs an op on a device.

    Attributes:
        op: its name.
        device: cpu or cuda.
        active: ``native``, ``triton``, ``faiss``, ``reference``, or ``none`` when FASTDD_BACKEND asks for what can't
            run, or FAISS is missing.
        others: of every other implementation that the op has but the reference, why it is not active.
    """

    op: str
    device: str
    active: str
    others: dict[str, str]


def _active(op: str, device: str) -> tuple[str, str]:
    """What ``auto`` takes, and why not the device's own kernels (empty if it is they)."""
    own = _kernels[op].get(device)
    missing = _missing(own, device) if own else ""
    if own == "faiss":
        return ("none", missing) if missing else (own, "")
    missing = missing or _against(op, device)
    asked = os.environ.get("FASTDD_BACKEND") or "auto"
    if asked == "auto":
        return (own, "") if own and not missing else ("reference", missing)
    try:
        chosen = choose(op, "auto", torch.device(device))
    except RuntimeError as error:
        return "none", str(error)
    active = {"interpret": "triton", "dispatch": own}.get(chosen, "reference")
    return active, "" if active == own else f"FASTDD_BACKEND={asked}"


def implementations(device: str) -> list[Implementation]:
    """Every op with the implementation that ``auto`` takes for tensors on ``device``, and why not the others."""
    rows = []
    for op, kernels in sorted(_kernels.items()):
        active, why = _active(op, device)
        others = {}
        for backend in dict.fromkeys(kernels.values()):
            homes = " and ".join(home.upper() for home, own in kernels.items() if own == backend)
            if backend != active:
                others[backend] = why if backend == kernels.get(device) else f"for {homes} tensors"
        if active == "none" and why not in others.values():
            others[active] = why
        rows.append(Implementation(op, device, active, others))
    return rows


def public(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """A function of ``fastdd.ops``: its arguments are of the kinds that it is annotated with, and autocast changes
    nothing in it: it computes in the types of its inputs, whichever backend runs.

    Raises:
        TypeError: an argument of another kind; a sparse or nested tensor.
    """
    parameters = inspect.signature(function).parameters.values()
    kinds = {parameter.name: _KINDS.get(parameter.annotation, "") for parameter in parameters}

    @functools.wraps(function)
    def checked(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        device = "cpu"
        for name, value in (*zip(kinds, arguments, strict=False), *options.items()):
            _check_kind(name, kinds.get(name, ""), value)
            device = value.device.type if isinstance(value, Tensor) else device
        rounds = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        try:
            if not rounds:
                return function(*arguments, **options)
            with torch.autocast(device, enabled=False):
                return function(*arguments, **options)
        except RuntimeError as error:
            if _NO_MEMORY in str(error):
                raise MemoryError(f"{function.__qualname__}: the memory is not enough for its result") from error
            raise

    return checked


# What the stable ABI makes of every error of PyTorch's in a kernel of ours, which asks it for nothing but memory.
_NO_MEMORY = "torch_call_dispatcher("
# Annotation -> what an argument is called that has it; words, which torch.compile can compare.
_KINDS = {
    **{Tensor: "tensor", Tensor | None: "tensor or None"},
    **{str: "string", int: "integer", float: "number", bool: "bool"},
}


def _check_kind(name: str, kind: str, value: object) -> None:
    if kind in ("tensor", "tensor or None"):
        check_tensor(name, value, optional=kind != "tensor")
        return
    right = (
        not kind
        or (kind == "string" and isinstance(value, str))
        or (
            kind == "integer"
            and not isinstance(value, bool)
            and (isinstance(value, int) or hasattr(value, "__index__"))
        )
        or (kind == "number" and (isinstance(value, int | float) or hasattr(value, "__float__")))
        or (kind == "bool" and isinstance(value, int | np.bool_))
    )
    if not right:
        raise TypeError(f"{name} must be a{'n' if kind == 'integer' else ''} {kind}, not {type(value).__name__}")


def check_tensor(name: str, value: object, *, optional: bool = False) -> None:
    """Raises TypeError for what is not a tensor with strides."""
    if optional and value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor{' or None' if optional else ''}, not {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise TypeError(f"{name} must be a dense tensor, not a {layout} one")


def transformed() -> bool:
    """Whether tensors are under a transform of torch.func or in forward-mode differentiation."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def check_classes(classes: Tensor, segments: int, num_classes: int, device: torch.device) -> None:
    """Raises ValueError for a class of each segment that does not fit; contents are checked on CPUs only."""
    if classes.dtype != torch.int64 or classes.shape != (segments,):
        raise ValueError(f"classes must be int64 [S] = [{segments}], not {classes.dtype} {list(classes.shape)}")
    if classes.device != device:
        raise ValueError(f"classes are on {classes.device} and the data on {device}: move one of them")
    check_range("classes", classes, 0, num_classes)


@functools.cache
def interpreted(name: str) -> Callable:
    """The op on its Triton launcher, past the dispatcher, with the derivative that is registered for the op."""
    launcher, (backward, setup) = _launchers[name], _derivatives[name]

    class Interpreted(torch.autograd.Function):
        @staticmethod
        def forward(*inputs):
            return launcher(*inputs)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.interpreted = True
            setup(ctx, inputs, output)

    Interpreted.backward = staticmethod(backward)
    return Interpreted.apply


def peer(ctx, name: str) -> Callable:
    """Another op for a derivative to call, run the way its own op was: dispatched, or in the Triton interpreter."""
    return interpreted(name) if getattr(ctx, "interpreted", False) else getattr(torch.ops.fastdd, name)


class LinearPair(torch.autograd.Function):
    """A linear map and its adjoint, each the other's derivative: closed under differentiation, any order.

    Used where a backend is called past the dispatcher, so the registered derivative is not there.
    """

    @staticmethod
    def forward(ctx, x: Tensor, function: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.pair = function, adjoint
        return function(x)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None, None]:
        function, adjoint = ctx.pair
        return LinearPair.apply(g, adjoint, function), None, None
