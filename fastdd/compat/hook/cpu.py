"""``fastdd run --device cpu``: what a script asks of CUDA goes to the CPU.

Scripts that call ``.cuda()`` or name ``"cuda"`` run on machines without one. ``torch.cuda.is_available()`` is False and
``device_count()`` 0, so a script with a way for CPUs takes it, and ``nn.DataParallel`` passes calls to its module; a
device that is named nevertheless is the CPU. ``Tensor.cpu()`` copies, as it does from CUDA.
"""

import functools
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _device as device_contexts

# Functions of torch, and methods of tensors, that take a device.
_FACTORIES = (
    *("arange", "as_tensor", "asarray", "empty", "empty_like", "empty_strided", "eye", "full", "full_like"),
    *("hann_window", "linspace", "logspace", "ones", "ones_like", "rand", "rand_like", "randint", "randint_like"),
    *("randn", "randn_like", "randperm", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like", "frombuffer"),
    *("set_default_device", "from_file"),
)
_METHODS = ("to", "new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")
_TYPES = (
    *("FloatTensor", "DoubleTensor", "HalfTensor", "BFloat16Tensor", "LongTensor", "IntTensor", "ShortTensor"),
    *("CharTensor", "ByteTensor", "BoolTensor"),
)
# Of torch.cuda, with what they give where there is no GPU.
_NOTHING = (
    *("set_device", "synchronize", "empty_cache", "manual_seed", "manual_seed_all", "seed", "seed_all", "init"),
    *("reset_peak_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached", "ipc_collect"),
)
_VALUES = {
    "is_available": False,
    "device_count": 0,
    "current_device": 0,
    "is_bf16_supported": False,
    "memory_allocated": 0,
    "max_memory_allocated": 0,
    "memory_reserved": 0,
    "max_memory_reserved": 0,
    "get_device_name": "CPU",
    "get_device_capability": (0, 0),
    "get_rng_state_all": [],
    "set_rng_state_all": None,
}


_REAL = torch.device
_CPU = torch.device("cpu")
_REAL_GENERATOR = torch.Generator


def _is_cuda(device: Any) -> bool:
    if isinstance(device, str):
        return device == "cuda" or device.startswith("cuda:")
    return isinstance(device, _REAL) and device.type == "cuda"


class _Devices(type):
    """``torch.device`` with CUDA's devices left out; its instances are PyTorch's own."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _REAL)


class _Event:
    """``torch.cuda.Event``: times by the clock, in milliseconds."""

    def __init__(self, *_: Any, **__: Any):
        self._at = 0.0

    def record(self, *_: Any) -> None:
        self._at = perf_counter()

    def wait(self, *_: Any) -> None:
        """It has happened."""

    def elapsed_time(self, end: "_Event") -> float:
        return 1000 * (end._at - self._at)

    def synchronize(self) -> None:
        """Nothing is under way."""

    def query(self) -> bool:
        return True


class _Stream:
    """``torch.cuda.Stream``: what is asked for is done when it is asked for."""

    def __init__(self, *_: Any, **__: Any):
        self.device = _CPU

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is under way."""

    def record_event(self, event: _Event | None = None) -> _Event:
        event = event or _Event()
        event.record()
        return event

    def wait_event(self, event: _Event) -> None:
        """It has happened."""

    def wait_stream(self, stream: "_Stream") -> None:
        """Nothing is under way."""

    def synchronize(self) -> None:
        """Nothing is under way."""

    def query(self) -> bool:
        return True


class _Generators(type):
    """``torch.Generator`` of the CPU; its instances are PyTorch's own."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _REAL_GENERATOR)


class OnCpu:
    """Sends to the CPU what is asked of CUDA in this process, from :meth:`install` to :meth:`remove`.

    Attributes:
        asked: calls that named CUDA, by what was called.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._before: list[tuple[Any, str, Any]] = []

    def notice(self) -> str:
        """What was asked for, in words; empty if nothing was."""
        if not self.asked:
            return ""
        calls = ", ".join(f"{name} {count:,}" for name, count in self.asked.most_common())
        return f"--device cpu: CUDA was asked for and the CPU given: {calls}"

    def install(self) -> None:
        """From now on."""
        # ``with torch.device("meta")`` leads those functions elsewhere that it finds at its first use.
        device_contexts._device_constructors()
        for name in _FACTORIES:
            self._put(torch, name, self._mapped(f"torch.{name}", getattr(torch, name)))
        for name in _METHODS:
            self._put(Tensor, name, self._mapped(f"Tensor.{name}", getattr(Tensor, name)))
        self._put(Tensor, "cpu", self._copying(Tensor.cpu))
        self._put(nn.Module, "to", self._mapped("Module.to", nn.Module.to))
        for owner in (Tensor, nn.Module):
            self._put(owner, "cuda", self._same(f"{owner.__name__}.cuda"))
        self._put(Tensor, "pin_memory", lambda tensor, *_, **__: tensor)
        self._put(Tensor, "type", self._typed(Tensor.type))
        self._put(torch, "load", self._loading(torch.load))
        self._put(torch, "device", self._devices())
        self._put(torch, "set_default_tensor_type", self._typed(torch.set_default_tensor_type))
        for name in _NOTHING:
            self._put(torch.cuda, name, self._giving(f"torch.cuda.{name}", None))
        for name, value in _VALUES.items():
            self._put(torch.cuda, name, self._giving(f"torch.cuda.{name}", value, silent=True))
        self._put(torch.cuda, "Event", _Event)
        self._put(torch.cuda, "Stream", _Stream)
        for name in ("current_stream", "default_stream"):
            self._put(torch.cuda, name, _Stream)
        self._put(torch.cuda, "stream", lambda stream: stream or _Stream())
        self._put(Tensor, "record_stream", lambda tensor, stream: None)
        self._put(torch, "Generator", self._generators())
        self._put(distributed, "init_process_group", self._joining(distributed.init_process_group))
        self._put(DistributedDataParallel, "__init__", self._distributing(DistributedDataParallel.__init__))
        for name in _TYPES:
            self._put(torch.cuda, name, getattr(torch, name))

    def remove(self) -> None:
        """PyTorch's own again."""
        while self._before:
            owner, name, value = self._before.pop()
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)

    def _put(self, owner: Any, name: str, value: Any) -> None:
        # What a class inherits comes back when its own is deleted.
        self._before.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, value)

    def _to_cpu(self, what: str, value: Any) -> Any:
        if not _is_cuda(value):
            return value
        self.asked[what] += 1
        return _CPU

    def _mapped(self, what: str, call: Callable) -> Callable:
        """``call`` with devices of CUDA, given by position or by name, replaced."""

        @functools.wraps(call)
        def mapped(*args: Any, **kwargs: Any) -> Any:
            if any(map(_is_cuda, args)):
                args = tuple(self._to_cpu(what, value) for value in args)
            if "device" in kwargs and _is_cuda(kwargs["device"]):
                kwargs["device"] = self._to_cpu(what, kwargs["device"])
            return call(*args, **kwargs)

        return mapped

    def _same(self, what: str) -> Callable:
        def cuda(value: Any, *_: Any, **__: Any) -> Any:
            self.asked[what] += 1
            return value

        return cuda

    def _copying(self, call: Callable) -> Callable:
        """``Tensor.cpu``, whose result does not change with the tensor: snapshots of a network in training are kept."""

        @functools.wraps(call)
        def cpu(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            moved = call(tensor, *args, **kwargs)
            return moved.clone() if moved is tensor else moved

        return cpu

    def _giving(self, what: str, value: Any, silent: bool = False) -> Callable:
        def given(*_: Any, **__: Any) -> Any:
            if not silent:  # questions ask for nothing
                self.asked[what] += 1
            return value

        return given

    def _typed(self, call: Callable) -> Callable:
        """``Tensor.type``, whose types of CUDA may be named in text."""

        @functools.wraps(call)
        def typed(*args: Any, **kwargs: Any) -> Any:
            plain = [x.replace("torch.cuda.", "torch.") if isinstance(x, str) else x for x in args]
            return call(*plain, **kwargs)

        return typed

    def _loading(self, load: Callable) -> Callable:
        """``torch.load`` onto the CPU whatever a file or ``map_location`` names."""

        @functools.wraps(load)
        def loading(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
            if map_location is None or _is_cuda(map_location):
                self._to_cpu("torch.load", map_location)
                map_location = _CPU
            elif isinstance(map_location, dict):
                map_location = {key: self._to_cpu("torch.load", value) for key, value in map_location.items()}
                map_location = {key: "cpu" if value is _CPU else value for key, value in map_location.items()}
            return load(f, map_location, *args, **kwargs)

        return loading

    def _joining(self, join: Callable) -> Callable:
        """``init_process_group`` with gloo where NCCL is asked for, which has no CPUs."""

        @functools.wraps(join)
        def joining(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
            if isinstance(backend, str) and "nccl" in backend:
                self.asked["init_process_group"] += 1
                backend = "gloo"
            if _is_cuda(kwargs.get("device_id")):
                kwargs["device_id"] = None
            return join(backend, *args, **kwargs)

        return joining

    def _distributing(self, make: Callable) -> Callable:
        """``DistributedDataParallel`` without the numbers of GPUs."""

        @functools.wraps(make)
        def distributing(
            net: Any, module: nn.Module, device_ids: Any = None, output_device: Any = None, *rest: Any, **more: Any
        ) -> None:
            if device_ids is not None or output_device is not None:
                self.asked["DistributedDataParallel"] += 1
            make(net, module, None, None, *rest, **more)

        return distributing

    def _generators(self) -> type:
        def new(cls: type, device: Any = "cpu") -> torch.Generator:
            return _REAL_GENERATOR(self._to_cpu("torch.Generator", device))

        body = {"__new__": new, "__module__": "torch", "__doc__": _REAL_GENERATOR.__doc__}
        return _Generators("Generator", (), body)

    def _devices(self) -> type:
        def new(cls: type, *args: Any, **kwargs: Any) -> torch.device:
            kind = args[0] if args else kwargs.get("type", kwargs.get("device"))
            # A number is an ordinal of the accelerator's.
            if _is_cuda(kind) or isinstance(kind, int):
                self.asked["torch.device"] += 1
                return _CPU
            return _REAL(*args, **kwargs)

        return _Devices("device", (), {"__new__": new, "__module__": "torch", "__doc__": _REAL.__doc__})
