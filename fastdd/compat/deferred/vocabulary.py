"""What can be recorded, and what becomes of everything else."""

import dis
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdd.compat.dc import matching
from fastdd.compat.deferred import gradients, sites
from fastdd.compat.deferred.graph import Deferred, Node, leaves, mapped, plain, settle_all


def _named(*names: str) -> frozenset[Callable]:
    places = (torch, Tensor, F)
    return frozenset(getattr(place, name) for place in places for name in names if hasattr(place, name))


def _reading(*names: str) -> frozenset[Callable]:
    return frozenset(getattr(Tensor, name).__get__ for name in names)


# Asked of the tensor without data.
_SHAPES = _reading("shape", "dtype", "requires_grad", "ndim") | _named(
    "size", "dim", "numel", "nelement", "__len__", "is_floating_point"
)
_DEVICE = Tensor.device.__get__
# Results share memory with their operand.
_ALIASES = _named("detach", "reshape", "flatten", "squeeze", "unsqueeze")
_PURE = _ALIASES | _named(
    *("add", "sub", "rsub", "mul", "div", "true_divide", "neg", "pow", "abs", "sqrt", "square", "exp", "log"),
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__rdiv__"),
    *("__pow__", "__neg__", "sum", "mean", "norm", "dot", "clone", "stack", "cat", "mse_loss", "l1_loss"),
)
_IN_PLACE = {Tensor.add_: torch.add, Tensor.sub_: torch.sub, Tensor.mul_: torch.mul, Tensor.div_: torch.div}
# Results share no memory with an operand, so nothing else has to be computed.
_ENDS = _named("backward", "item", "__float__", "__int__", "__bool__", "__format__", "__repr__", "__str__", "tolist")
# Operands are copied; more of them than so many bytes are not held.
LARGEST_OPERAND = 64 * 2**20


class _Unrecorded(Exception):
    """An operation that is left to torch."""


def answer(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a function of torch returns where an operand is deferred."""
    first = args[0] if args else None
    if function in _SHAPES and type(first) is Deferred and first.node.value is None:
        return function(first.node.meta, *args[1:], **kwargs)
    if function == _DEVICE and type(first) is Deferred:
        return first.node.device
    try:
        if function in _IN_PLACE:
            return _in_place(function, args, kwargs)
        if function is torch.autograd.grad:
            return gradients.record(*args, **kwargs)
        return Deferred(_record(function, args, kwargs))
    except _Unrecorded:
        pass
    except gradients.Unknown:
        pass
    return _by_torch(function, args, kwargs)


def _by_torch(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    if function not in _ENDS:
        sites.escaped(function)
        settle_all()
    first = args[0] if args else None
    args, kwargs = plain((args, kwargs))
    result = function(*args, **kwargs)
    # In-place functions return their operand.
    return first if type(first) is Deferred and result is first.node.value else result


def _pending(structure: Any) -> bool:
    return any(type(leaf) is Deferred and leaf.node.value is None for leaf in leaves(structure))


def held(tensor: Tensor) -> Tensor:
    """A copy of an operand, part of the same graph."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.is_meta:
        raise _Unrecorded
    if tensor.nbytes > LARGEST_OPERAND:
        raise _Unrecorded
    return tensor.clone()


def _operand(leaf: Any) -> Any:
    if type(leaf) is Deferred:
        return leaf.node if leaf.node.value is None else held(leaf.node.value)
    return held(leaf) if isinstance(leaf, Tensor) else leaf


def _meta(leaf: Any) -> Any:
    if isinstance(leaf, Node):
        return leaf.meta
    if isinstance(leaf, Tensor):
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta", requires_grad=leaf.requires_grad)
    return leaf


def _record(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Node:
    if not _pending((args, kwargs)) or "out" in kwargs:
        raise _Unrecorded
    if function == Tensor.__getitem__:
        return _index(*args)
    if function is F.cross_entropy:
        return _cross_entropy(args, kwargs)
    if function is matching.match_loss:
        return _match_loss(*args, **kwargs)
    if function not in _PURE:
        raise _Unrecorded
    return _noted(function, mapped(args, _operand), mapped(kwargs, _operand), function in _ALIASES)


def _noted(function: Callable, args: tuple, kwargs: dict[str, Any], alias: bool = False) -> Node:
    """The node of a function, which is asked for the shape of its result."""
    devices = {x.device for x in leaves((args, kwargs)) if isinstance(x, Node) or (isinstance(x, Tensor) and x.ndim)}
    if len(devices) != 1:
        raise _Unrecorded
    try:
        meta = function(*mapped(args, _meta), **mapped(kwargs, _meta))
    except Exception as error:  # torch raises the true one, at this line of the script
        raise _Unrecorded from error
    if not isinstance(meta, Tensor):
        raise _Unrecorded
    node = Node(function, args, kwargs, meta, devices.pop())
    if alias:
        node.aliased = args[0].aliased = True
    return node


def _is_plain_index(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or type(part) in (int, slice) for part in parts)


def _index(indexed: Any, index: Any) -> Node:
    if type(indexed) is not Deferred:
        raise _Unrecorded
    if _is_plain_index(index):
        return _noted(Tensor.__getitem__, (indexed.node, index), {}, alias=True)
    rows = indexed.node.meta.shape[:1]
    if type(index) is not Tensor or index.dtype != torch.bool or index.shape != rows or not rows:
        raise _Unrecorded
    if index.device != indexed.node.device:
        raise _Unrecorded
    meta = indexed.node.meta[: int(index.sum())].clone()
    return Node(Tensor.__getitem__, (indexed.node, index.clone()), {}, meta, indexed.node.device)


def _cross_entropy(args: tuple, kwargs: dict[str, Any]) -> Node:
    logits, labels = args if len(args) == 2 else (None, None)
    if type(logits) is not Deferred or type(labels) is not Tensor or labels.dtype != torch.int64:
        raise _Unrecorded
    classes = logits.node.meta.shape[-1] if logits.node.meta.ndim == 2 else 0
    if labels.device.type == "cpu" and labels.numel() and not 0 <= labels.min() <= labels.max() < classes:
        raise _Unrecorded
    return _noted(F.cross_entropy, mapped(args, _operand), mapped(kwargs, _operand))


def _match_loss(gw_syn: Any, gw_real: Any, args: Any) -> Node:
    synthetic, real = mapped(([*gw_syn], [*gw_real]), _operand)
    if len(synthetic) != len(real) or not gradients.alike(synthetic, real):
        raise _Unrecorded
    metas = [_meta(leaf) for leaf in (*synthetic, *real)]
    meta = torch.zeros((), dtype=metas[0].dtype, device="meta")
    if torch.is_grad_enabled() and any(each.requires_grad for each in metas):
        meta.requires_grad_()
    device = next(leaf.device for leaf in leaves((synthetic, real)) if isinstance(leaf, Node))
    return gradients.Match(synthetic, real, args.dis_metric, meta, device)


def _in_place(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """``a += b`` on a deferred tensor, or on one that nothing but the script's variable refers to."""
    target = args[0]
    if type(target) is not Deferred:
        if not _only_a_variable(target):
            raise _Unrecorded
        node = _out_of_place(function, args, kwargs, target)
        return Deferred(node)
    if target.node.value is not None or target.node.aliased:
        raise _Unrecorded
    if target.node.meta.requires_grad and not torch.is_grad_enabled():
        raise _Unrecorded
    target.node = _out_of_place(function, args, kwargs, target.node.meta)
    return target


def _out_of_place(function: Callable, args: tuple, kwargs: dict[str, Any], target: Tensor) -> Node:
    if not _pending((args, kwargs)):
        raise _Unrecorded
    node = _noted(_IN_PLACE[function], mapped(args, _operand), mapped(kwargs, _operand))
    if node.meta.shape != target.shape or node.meta.dtype != target.dtype:
        raise _Unrecorded
    return node


_STORES = {"STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF"}


def _assigns(frame: Any) -> bool:
    """Whether the frame is at ``variable OP= ...``, which then stands for the result."""
    steps = dis.get_instructions(frame.f_code)
    for step in steps:
        if step.offset == frame.f_lasti:
            following = next((s for s in steps if s.opname not in ("CACHE", "EXTENDED_ARG")), None)
            return step.opname == "BINARY_OP" and step.argrepr.endswith("=") and following.opname in _STORES
    return False


_assigning: dict[tuple[Any, int], bool] = {}


def _only_a_variable(target: Any) -> bool:
    """Whether ``target`` is known by one variable of the script, which is about to be assigned anew."""
    if type(target) is not Tensor or target.requires_grad or target.layout != torch.strided or target._is_view():
        return False
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename in sites.OWN:
        frame = frame.f_back
    if frame is None or (storage := target.untyped_storage()).resizable() is False:
        return False
    where = frame.f_code, frame.f_lasti
    if where not in _assigning:
        _assigning[where] = _assigns(frame)
    if not _assigning[where] or torch._C._storage_Use_Count(storage._cdata) > _STORAGE_USES:
        return False
    return sys.getrefcount(target) <= _REFERENCES


_REFERENCES, _STORAGE_USES = 10**9, 10**9


def calibrate() -> None:
    """Learn how many references a tensor has here that one local variable refers to."""
    global _REFERENCES, _STORAGE_USES
    counted: list[tuple[int, int]] = []
    own = _only_a_variable

    def count(target: Tensor) -> bool:
        storage = target.untyped_storage()
        counted.append((sys.getrefcount(target), torch._C._storage_Use_Count(storage._cdata)))
        return False

    globals()["_only_a_variable"] = count
    try:
        variable = torch.zeros(())
        variable += Deferred(Node(torch.zeros, ((),), {}, torch.empty((), device="meta"), torch.device("cpu")))
    finally:
        globals()["_only_a_variable"] = own
    _REFERENCES, _STORAGE_USES = counted[0]
