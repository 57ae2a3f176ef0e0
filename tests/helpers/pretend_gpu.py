"""A GPU that is not there: tensors whose device is ``cuda:0`` and whose numbers lie on the CPU.

Code runs on it as on a GPU, with true values, so that what a step asks of a GPU can be read without one: how many
kernels it launches, where it waits, and what it copies from the host. What a kernel costs, it cannot say.

PyTorch knows the tensors as *meta* tensors, whose backward needs no GPU; Python sees them as CUDA tensors, and every
operation on them comes to :func:`_run`, which does it on the CPU. An operation of PyTorch's counts as one kernel,
whatever it launches inside (a sort launches several). An op of fastdd's that runs on Triton counts as what its launcher
does: it is called too, with kernels that do nothing but be counted. One in CUDA C++ counts as one kernel, and so does
the replay of a CUDA graph (:mod:`pretend_graphs`).
"""

import contextlib
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import pretend_graphs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from fastdd.core import ext
from fastdd.ops import _dispatch
from fastdd.reference import cf_match

CUDA = torch.device("cuda", 0)
_GIGABYTE = 2**30

# Operations that look or allocate, and launch nothing.
_LOOKS = """alias as_strided detach diagonal empty empty_like empty_strided expand lift_fresh narrow new_empty
    new_empty_strided permute select set_ slice split split_with_sizes squeeze t transpose unbind unfold unsafe_split
    unsqueeze view view_as _local_scalar_dense _reshape_alias _unsafe_view"""
# Operations whose result has a size that only the GPU knows, or that are values on the host.
_WAITS = """_local_scalar_dense _unique2 argwhere bincount equal is_nonzero masked_select nonzero unique_consecutive
    unique_dim"""
# Those whose indices may be masks: where they are, only the GPU knows.
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_NO_KERNEL, _WAITING = frozenset(_LOOKS.split()), frozenset(_WAITS.split())


@dataclass
class Record:
    """What code asked of the GPU.

    Attributes:
        kernels: by operation.
        places: by the function of fastdd's that asked.
        waits: operation and place, where the host waits for the GPU.
        uploads: likewise, where data comes from the host.
    """

    kernels: Counter = field(default_factory=Counter)
    places: Counter = field(default_factory=Counter)
    waits: list[tuple[str, str]] = field(default_factory=list)
    uploads: list[tuple[str, str]] = field(default_factory=list)

    @property
    def launches(self) -> int:
        """Kernels in all."""
        return self.kernels.total()


_records: list[Record] = []


def _place() -> str:
    """The innermost function of fastdd's, and whoever called it."""
    frame, found = sys._getframe(2), []
    while frame and len(found) < 2:
        path = Path(frame.f_code.co_filename)
        if "tests" not in path.parts and ("fastdd" in path.parts or "kernels" in path.parts):
            found.append(f"{path.stem}.{frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def _note(name: str, *, kernels: int = 0, wait: bool = False, upload: bool = False) -> None:
    if wait or upload:
        pretend_graphs.refuse(name)
    if not _records:
        return
    place = _place()
    for record in _records:
        record.kernels[name] += kernels
        record.places[place, name] += kernels
        record.waits.extend([(name, place)] * wait)
        record.uploads.extend([(name, place)] * upload)


class OnGpu(Tensor):
    """A tensor that says it is on a GPU; ``numbers`` has its values."""

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor):
        with _disable_current_modes():
            shape = torch.empty_strided(numbers.shape, numbers.stride(), dtype=numbers.dtype, device="meta")
        tensor = Tensor._make_subclass(cls, shape, False)
        tensor.numbers = numbers
        return tensor

    def __repr__(self, **_) -> str:
        return f"OnGpu({self.numbers!r})"

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        # What PyTorch does without its dispatcher.
        if function is Tensor.tolist:
            _note("tolist", wait=True)
            return args[0].numbers.tolist()
        if function in (Tensor.__setitem__, Tensor.__getitem__):
            args = _with_tensors(function, *args)
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
        if function == Tensor.data.__set__:  # not the same object at every look
            args[0].numbers = args[1].numbers
        return result

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _with_tensors(function, tensor: Tensor, index, *value):
    """Arguments of indexing, in which lists and numbers are tensors, as PyTorch makes them unseen."""
    indices = index if isinstance(index, tuple) else (index,)
    if any(isinstance(one, list) for one in indices):
        _note("index by a list", upload=True)
        indices = tuple(OnGpu(_host_tensor(one)) if isinstance(one, list) else one for one in indices)
    if value and not isinstance(value[0], Tensor):
        value = (OnGpu(_host_tensor(value[0], dtype=tensor.dtype)),)
    return tensor, indices if isinstance(index, tuple) else indices[0], *value


def _host_tensor(value, **options) -> Tensor:
    with _disable_current_modes():
        return torch.tensor(value, **options)


def _numbers(value):
    return value.numbers if isinstance(value, OnGpu) else value


def _run(function, args, kwargs):
    """Do an operation on the CPU, note what a GPU would have had to do, and say where the result is."""
    device = kwargs.get("device")
    asked = None if device is None else torch.device(device).type
    leaves = tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, OnGpu)]
    host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnGpu)]
    # PyTorch takes our tensors for meta tensors, and makes others like them.
    on_gpu = asked in ("cuda", "meta") or (bool(ours) and asked is None)
    name = function._schema.name.split("::")[1]
    if not on_gpu and not ours:
        return function(*args, **kwargs)
    if function.namespace == "fastdd" and name in _REFERENCES:
        with _Mode():
            return _REFERENCES[name](*args, **kwargs)
    if name == "_to_copy" and ours and on_gpu and kwargs.get("dtype") in (None, args[0].dtype):
        return args[0]  # PyTorch, to whom it is a meta tensor, does not know that it is there already
    launcher = _dispatch._launchers.get(name) if function.namespace == "fastdd" else None
    if launcher is not None:
        with _Mode():
            launcher(*args, **kwargs)
    if name == "empty_like" and args[0].is_meta and not ours:  # a module's buffers, that is made here
        with _disable_current_modes():
            args, host = (torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:]), []
    if any(tensor.is_meta for tensor in host):
        raise AssertionError(f"{function} has values that were not made here: write it so that they are tensors")
    with _disable_current_modes():
        if "device" in kwargs and device is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        given, named = tree_map(_numbers, args), tree_map(_numbers, kwargs)
        if pretend_graphs.tapes:
            mine = {id(tensor.numbers) for tensor in ours}
            result = pretend_graphs.tapes[-1].do(function, given, named, lambda tensor: id(tensor) in mine)
        else:
            result = function(*given, **named)
    written = name == "copy_" and not isinstance(args[0], OnGpu)
    to_host = bool(ours) and name != "empty_like" and (not on_gpu or written)
    kernels = 0 if name in _NO_KERNEL or to_host or launcher is not None else 1
    # Where there is no output_size, the sum of the repeats is the size.
    sized = name != "repeat_interleave" or kwargs.get("output_size") is not None
    indices = tree_leaves(args[1]) if name in _INDEXING else []
    by_mask = any(getattr(index, "dtype", None) in (torch.bool, torch.uint8) for index in indices)
    upload = on_gpu and any(tensor.dim() or name == "_to_copy" for tensor in host)
    _note(name, kernels=kernels, wait=to_host or name in _WAITING or not sized or by_mask, upload=upload)
    if not function._schema.returns:
        return None
    if name == "copy_" or (function._schema.is_mutable and name.endswith("_")):
        return args[0]
    if not on_gpu:
        mine = {id(tensor.numbers) for tensor in ours}
        return tree_map_only(Tensor, lambda tensor: tensor.clone() if id(tensor) in mine else tensor, result)
    known = {id(tensor.numbers): tensor for tensor in ours}
    return tree_map_only(Tensor, lambda tensor: known[id(tensor)] if id(tensor) in known else OnGpu(tensor), result)


def _launch(kernel, *arguments, **options) -> None:
    """What a Triton kernel does here: be counted."""
    _note(kernel.fn.__name__, kernels=1)


# Ops that have no kernels for a GPU: what runs there is PyTorch, op by op.
_REFERENCES = {"cf_frequencies": cf_match.cf_frequencies}


class _Mode(TorchDispatchMode):
    """Sees what has no tensor of ours among its arguments."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class PretendGpu(_Mode):
    """Within it there is one GPU, ``cuda:0``.

    >>> with PretendGpu() as gpu, gpu.recording() as record:
    ...     x = torch.ones(3, device="cuda")
    ...     total = (2 * x).sum().item()
    >>> total, record.launches, record.waits
    (6.0, 3, [('_local_scalar_dense', '')])
    """

    def __enter__(self):
        from triton.runtime.jit import KernelInterface  # it isn't there off Linux

        self._stack = contextlib.ExitStack()
        cuda = torch.cuda
        for module, name, value in (
            (cuda, "_lazy_init", lambda: None),
            (cuda, "is_available", lambda: True),
            (cuda, "device_count", lambda: 1),
            (cuda, "set_device", lambda number: None),
            (cuda, "device", lambda device: contextlib.nullcontext()),
            (cuda, "synchronize", lambda device=None: _note("synchronize", wait=True)),
            (cuda, "mem_get_info", lambda device=None: (130 * _GIGABYTE, 139 * _GIGABYTE)),
            (cuda, "memory_reserved", lambda device=None: 0),
            (cuda, "memory_allocated", lambda device=None: 0),
            (cuda, "max_memory_allocated", lambda device=None: 0),
            (cuda, "get_device_capability", lambda device=None: (9, 0)),
            (ext, "has_cuda_kernels", lambda: True),
            *pretend_graphs.parts(lambda: _note("replay", kernels=1)),
            (KernelInterface, "__getitem__", lambda kernel, grid: partial(_launch, kernel)),
        ):
            self._stack.enter_context(mock.patch.object(module, name, value))
        # A tensor of a list is made on the CPU and then moved, where we see it.
        lifted = torch._C._only_lift_cpu_tensors()
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)
        # A module that moves gets new parameters: written in place, ours would stay what they are.
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        self._stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *reason):
        super().__exit__(*reason)
        self._stack.close()

    @contextlib.contextmanager
    def recording(self):
        """A record of what is done within."""
        record = Record()
        _records.append(record)
        try:
            yield record
        finally:
            _records.remove(record)
