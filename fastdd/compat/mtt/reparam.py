"""MTT's ReparamModule: a network whose parameters are one vector, which a call may bring along."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ReparamModule"]


class ReparamModule(nn.Module):
    """``net(x, flat_param=theta, buffers=None)``: what the module says of x with the parameters theta.

    The module's parameters become one, ``flat_param`` [``param_numel``], in the order of its layers, a shared one
    once; in their places are views of it, or, during a call, of the vector that the call brings. Differentiable in it,
    any number of times.

    Args:
        module: changed in place: its parameters are no parameters any more.

    Raises:
        ValueError: parameters of several dtypes.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        first: dict[nn.Parameter, tuple[str, str]] = {}
        infos, shared, parameters = [], [], []
        for path, layer in self.named_modules():
            for name, parameter in layer.named_parameters(recurse=False):
                if parameter in first:
                    shared.append((path, name, *first[parameter]))
                else:
                    first[parameter] = path, name
                    infos.append((path, name))
                    parameters.append(parameter.detach())
        dtypes = {parameter.dtype for parameter in parameters}
        if len(dtypes) > 1:
            raise ValueError(f"the parameters are of several dtypes, {', '.join(map(str, dtypes))}: convert the module")
        self._param_infos, self._shared_param_infos = tuple(infos), tuple(shared)
        self._param_numels = tuple(parameter.numel() for parameter in parameters)
        self._param_shapes = tuple(parameter.shape for parameter in parameters)
        self.flat_param = nn.Parameter(torch.cat([parameter.reshape(-1) for parameter in parameters]))
        self.param_numel = self.flat_param.numel()
        for path, name, *_ in (*infos, *shared):
            delattr(self.get_submodule(path), name)
        self._put(self._views(self.flat_param))
        self._buffer_infos = tuple(
            (path, name, buffer)
            for path, layer in self.named_modules()
            for name, buffer in layer.named_buffers(recurse=False)
        )
        self._traced_self: Any = None

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split(self._param_numels)
        return [part.view(shape) for part, shape in zip(parts, self._param_shapes, strict=True)]

    def _put(self, tensors: Sequence[Tensor | None]) -> None:
        """Plain attributes in the places of the parameters."""
        for (path, name), tensor in zip(self._param_infos, tensors, strict=True):
            setattr(self.get_submodule(path), name, tensor)
        for path, name, source, of_source in self._shared_param_infos:
            setattr(self.get_submodule(path), name, getattr(self.get_submodule(source), of_source))

    def clear_views(self) -> None:
        """Nothing in the places of the parameters, until the next call puts views there."""
        self._put([None] * len(self._param_infos))

    @contextmanager
    def unflattened_param(self, flat_param: Tensor) -> Iterator[None]:
        """Inside, the module has the parameters ``flat_param``."""
        before = [getattr(self.get_submodule(path), name) for path, name in self._param_infos]
        self._put(self._views(flat_param))
        try:
            yield
        finally:
            self._put(before)

    @contextmanager
    def replaced_buffers(self, buffers: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the module has these buffers."""
        before = [getattr(self.get_submodule(path), name) for path, name, _ in self._buffer_infos]
        for (path, name, _), buffer in zip(self._buffer_infos, buffers, strict=False):
            setattr(self.get_submodule(path), name, buffer)
        try:
            yield
        finally:
            for (path, name, _), buffer in zip(self._buffer_infos, before, strict=True):
                setattr(self.get_submodule(path), name, buffer)

    def _forward_with_param(self, flat_param: Tensor, *inputs: Any, **kwinputs: Any) -> Any:
        with self.unflattened_param(flat_param):
            return self.module(*inputs, **kwinputs)

    def _forward_with_param_and_buffers(
        self, flat_param: Tensor, buffers: Sequence[Tensor], *inputs: Any, **kwinputs: Any
    ) -> Any:
        with self.unflattened_param(flat_param), self.replaced_buffers(buffers):
            return self.module(*inputs, **kwinputs)

    def forward(
        self,
        *inputs: Any,
        flat_param: Tensor | None = None,
        buffers: Sequence[Tensor] | None = None,
        **kwinputs: Any,
    ) -> Any:
        """The module's output.

        Args:
            flat_param: [P], or [1, P], as DataParallel hands it out; None: the module's own.
            buffers: in place of the module's own, in their order.
            inputs, kwinputs: the module's.
        """
        # As published, but None, which that code means to take and fails on.
        flat_param = self.flat_param if flat_param is None else flat_param.squeeze()
        if buffers is None:
            return self._forward_with_param(flat_param, *inputs, **kwinputs)
        return self._forward_with_param_and_buffers(flat_param, tuple(buffers), *inputs, **kwinputs)

    def trace(self, example_input: Tensor | Sequence[Tensor], **trace_kwargs: Any) -> "ReparamModule":
        """Calls run as ``torch.jit.trace`` saw one of ``example_input``, from now on; returns self.

        Raises:
            RuntimeError: it is traced already.
        """
        if self._traced_self is not None:
            raise RuntimeError("this ReparamModule is already traced")
        inputs = (example_input,) if isinstance(example_input, Tensor) else tuple(example_input)
        flat = self.flat_param.detach().clone()
        buffers = tuple(buffer.detach().clone() for _, _, buffer in self._buffer_infos)
        examples = {"_forward_with_param": (flat, *inputs)}
        if buffers:
            examples["_forward_with_param_and_buffers"] = (flat, buffers, *inputs)
        self._traced_self = torch.jit.trace_module(self, examples, **trace_kwargs)
        for name in examples:
            setattr(self, name, getattr(self._traced_self, name))
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> "ReparamModule":
        if self._traced_self is not None:
            self._traced_self._apply(*args, **kwargs)
            return self
        return super()._apply(*args, **kwargs)
