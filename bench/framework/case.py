"""What a benchmark case is: one computation, the backends that do it, and the truth that they are held to."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fastdd.bench.framework.upstream import Upstream

BASELINES = ("reference-loop", "torch", "upstream")
# In the order of the table's rows, with the methods of a case that do the work.
BACKENDS = {"reference-loop": "loop", "upstream": "upstream", "torch": "plain", "fastdd": "fastdd"}
# Four float32 roundings, whatever the dtype, as sums are float32: where plain PyTorch is exact by chance (a copy) or
# by luck (few elements), its error says nothing about what can be asked for.
FLOOR = 4 * torch.finfo(torch.float32).eps
# A row's error may be this many times plain PyTorch's at the same dtype. Published code only has to be the same
# computation: it sums whole batches at once, which alone costs a factor of 16 in a weight gradient of 256 images.
ALLOWED = {"fastdd": 2, "torch": 2, "reference-loop": 100, "upstream": 100}

Result = Tensor | tuple[Tensor, ...]


class Case:
    """One computation. Subclasses set the attributes and write the methods; a backend that isn't there isn't measured.

    Attributes:
        name: such as ``augment/flip``; ``--case`` globs match it.
        about: one line for ``--list``.
        dtype: of the inputs that matter.
        variant: what tells cases of the same name apart, as in their shapes: ``{"segments": 10}``.
        once: backends that take minutes: measured by a single call, which is the check as well.
        memory: whether its peak memory is of interest (``--memory``).
        by_name: whether it is measured only where it is asked for by its name, as one of a view of its own, or of
            kernels that CPUs don't have.
    """

    name: str
    about: str
    dtype = torch.float32
    variant: dict[str, int]
    once: frozenset[str] = frozenset()
    memory = False
    by_name = False

    def inputs(self, seed: int, device: torch.device, quick: bool) -> Any:
        """What all backends get; a function of the seed. ``quick``: as small as makes sense, for tests."""
        raise NotImplementedError

    def shape(self, inputs: Any) -> dict[str, int | list[int]]:
        """The sizes, as they stand in the row."""
        raise NotImplementedError

    def fastdd(self, inputs: Any) -> Result:
        """Ours."""
        raise NotImplementedError

    def plain(self, inputs: Any) -> Result:
        """``torch``: the best plain PyTorch that anyone would write."""
        raise NotImplementedError

    def loop(self, inputs: Any) -> Result:
        """``reference-loop``: the structure of published code."""
        raise NotImplementedError

    def upstream(self, inputs: Any, code: "Upstream") -> Result:
        """``upstream``: published code itself."""
        raise NotImplementedError

    def truth(self, inputs: Any) -> Result:
        """The result in fp64, by operations that share nothing with fastdd's."""
        raise NotImplementedError

    def bytes(self, inputs: Any) -> int:
        """The least that has to be read and written: every input and every output once."""
        raise NotImplementedError

    def flops(self, inputs: Any) -> int:
        """The least arithmetic; a multiply-add counts as two."""
        raise NotImplementedError

    def split_flops(self, inputs: Any) -> int:
        """Of :meth:`flops`, what :func:`fastdd.ops.conv3x3` would do on a GPU if its kernels were chosen there."""
        return 0

    def backends(self, code: "Upstream | None") -> list[str]:
        """Those that this case has, in the order of :data:`BACKENDS`."""
        own = [name for name, method in BACKENDS.items() if getattr(type(self), method) is not getattr(Case, method)]
        return [name for name in own if name != "upstream" or code is not None]

    def call(self, backend: str, inputs: Any, code: "Upstream | None") -> Result:
        """Do the work once: what is timed."""
        function = getattr(self, BACKENDS[backend])
        return function(inputs, code) if backend == "upstream" else function(inputs)

    def check(self, backend: str, inputs: Any, code: "Upstream | None", truth: Result) -> list[float]:
        """The error of every result of a backend. Where what is timed has no result to compare, a case overrides it."""
        return self.errors(self.call(backend, inputs, code), truth)

    def errors(self, results: Result, truth: Result) -> list[float]:
        """Of every result, the largest difference to the truth, in units of the truth's largest element."""
        return [((a.double() - b).abs().max() / b.abs().max()).item() for a, b in pairs(results, truth)]

    def floors(self, results: int) -> list[float]:
        """Of every result, an error that is always allowed."""
        return [FLOOR] * results

    @property
    def label(self) -> str:
        """Name, dtype if not float32, and variant, for people."""
        dtype = [] if self.dtype == torch.float32 else [str(self.dtype).removeprefix("torch.")]
        return " ".join([self.name, *dtype, *(f"{name}={value}" for name, value in self.variant.items())])


def pairs(results: Result, truth: Result) -> list[tuple[Tensor, Tensor]]:
    """Every result with its truth; ValueError if their shapes are not the same (broadcasting would hide it)."""
    results, truth = (r if isinstance(r, tuple) else (r,) for r in (results, truth))
    shapes = [[list(t.shape) for t in side] for side in (results, truth)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"results have shapes {shapes[0]}, the truth has {shapes[1]}")
    return list(zip(results, truth, strict=True))
