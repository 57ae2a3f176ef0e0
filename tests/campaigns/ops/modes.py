"""Ways of calling a function: transformed, in threads, compiled, on fake tensors, differentiated once and twice."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from calls import Arguments, Draw
from spoil import Labelled
from torch import Tensor
from torch._subclasses import FakeTensorMode

Run = Callable[..., Any]


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors of what a function returns."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        return tensors_of([*result.values()])
    return [t for part in result for t in tensors_of(part)] if isinstance(result, tuple | list) else []


def _floats(arguments: Arguments) -> list[str]:
    return [
        name
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided
    ]


def _plain(run: Run, arguments: Arguments, draw: Draw) -> Any:
    return run(**arguments)


def _within(context: Callable[[], Any]) -> Run:
    def call(run: Run, arguments: Arguments, draw: Draw) -> Any:
        with context():
            return run(**arguments)

    return call


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # which also fills what is not yet written with NaN
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _twice(run: Run, arguments: Arguments, draw: Draw) -> Any:
    """Two runs, which have the same bits."""
    results = [tensors_of(run(**arguments)) for _ in range(2)]
    _same_bits(*results)
    return results[0]


def _same_bits(first: list[Tensor], second: list[Tensor]) -> None:
    for a, b in zip(first, second, strict=True):
        if a.device.type == "cpu" and a.layout == torch.strided:
            assert torch.equal(a.double().nan_to_num(7.5), b.double().nan_to_num(7.5)), "two runs have different bits"


def _threads(run: Run, arguments: Arguments, draw: Draw) -> Any:
    """Two threads at once, which have the same bits."""
    results: list[Any] = [None, None]
    errors: list[Exception] = []
    start = threading.Barrier(2)

    def work(place: int) -> None:
        start.wait()
        try:
            results[place] = tensors_of(run(**arguments))
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    _same_bits(*results)
    return results[0]


def _eighths(t: Tensor, draw: Draw) -> Tensor:
    """Like t, of numbers that every floating type has: the truth is of the same direction."""
    return (draw.normal(*t.shape) * 8).round().div(8).to(t.dtype)


def _leaves(arguments: Arguments, draw: Draw) -> tuple[Arguments, list[Tensor]]:
    """Arguments, some of which require gradients."""
    names = _floats(arguments)
    chosen = [name for name in names if draw.chance(0.6)] or names[:1]
    leaves = {name: arguments[name].detach().requires_grad_() for name in chosen}
    return {**arguments, **leaves}, [*leaves.values()]


def _weighed(results: list[Tensor], draw: Draw) -> Tensor | None:
    """One number of all that depends on what requires gradients: each result has its directions, used or not."""
    terms = [(t, _eighths(t, draw)) for t in results]
    used = [(t * v).sum(dtype=torch.float64) for t, v in terms if t.requires_grad and t.is_floating_point()]
    return sum(used) if used else None


def _pulled(run: Run, arguments: Arguments, draw: Draw) -> tuple[list[Tensor], list[Tensor]]:
    arguments, leaves = _leaves(arguments, draw)
    total = _weighed(tensors_of(run(**arguments)), draw)
    if total is None:
        return leaves, []
    return leaves, [*torch.autograd.grad(total, leaves, create_graph=True, materialize_grads=True)]


def _gradient(run: Run, arguments: Arguments, draw: Draw) -> Any:
    return [g.detach() for g in _pulled(run, arguments, draw)[1]]


def _second(run: Run, arguments: Arguments, draw: Draw) -> Any:
    leaves, gradients = _pulled(run, arguments, draw)
    total = _weighed(gradients, draw)
    if total is None:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return [*torch.autograd.grad(total, leaves, materialize_grads=True)]


def _over(run: Run, arguments: Arguments, draw: Draw, transform: Callable[[Run, Tensor], Any]) -> Any:
    """A transform of the function of one tensor."""
    names = _floats(arguments)
    if not names:
        return run(**arguments)
    name = draw.pick(*names)
    return transform(lambda t: tuple(tensors_of(run(**{**arguments, name: t}))), arguments[name])


def _vmap(run: Run, arguments: Arguments, draw: Draw) -> Any:
    return _over(run, arguments, draw, lambda f, t: torch.func.vmap(f)(torch.stack([t, 2 * t])))


def _looped(run: Run, arguments: Arguments, draw: Draw) -> Any:
    """What vmap is to return, one call after the other."""
    return _over(run, arguments, draw, lambda f, t: [torch.stack(parts) for parts in zip(f(t), f(2 * t), strict=True)])


def _jvp(run: Run, arguments: Arguments, draw: Draw) -> Any:
    def push(f: Run, t: Tensor) -> Any:
        return torch.func.jvp(f, (t,), (_eighths(t, draw),))[1]

    return _over(run, arguments, draw, push)


def _jacobian(run: Run, arguments: Arguments, draw: Draw) -> Any:
    def push(f: Run, t: Tensor) -> Any:
        return torch.func.jacfwd(f)(t) if t.numel() <= 20 else f(t)

    return _over(run, arguments, draw, push)


def _reverse(run: Run, arguments: Arguments, draw: Draw) -> Any:
    def pull(f: Run, t: Tensor) -> Any:
        return torch.func.grad(lambda x: sum(y.double().sum() for y in f(x) if y.is_floating_point()).to(x.dtype))(t)

    return _over(run, arguments, draw, pull)


def _mapped(function: Callable[[Tensor], Tensor], arguments: Arguments) -> Arguments:
    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(part) for part in value]
        return function(value) if isinstance(value, Tensor) else value

    return {name: of(value) for name, value in arguments.items()}


def _fake(run: Run, arguments: Arguments, draw: Draw) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        return run(**_mapped(mode.from_tensor, arguments))


def _meta(run: Run, arguments: Arguments, draw: Draw) -> Any:
    return run(**_mapped(lambda t: t.to("meta"), arguments))


def _labelled(run: Run, arguments: Arguments, draw: Draw) -> Any:
    return run(**_mapped(lambda t: t.as_subclass(Labelled), arguments))


def _compiled(backend: str) -> Run:
    def call(run: Run, arguments: Arguments, draw: Draw) -> Any:
        torch._dynamo.reset()
        return torch.compile(run, backend=backend, dynamic=draw.pick(None, True))(**arguments)

    return call


MODES: dict[str, Run] = {
    "plain": _plain,
    "no_grad": _within(torch.no_grad),
    "inference": _within(torch.inference_mode),
    "autocast": _within(lambda: torch.autocast("cpu", torch.bfloat16)),
    "deterministic": _within(_deterministic),
    "twice": _twice,
    "threads": _threads,
    "gradient": _gradient,
    "second": _second,
    "vmap": _vmap,
    "looped": _looped,
    "jvp": _jvp,
    "jacobian": _jacobian,
    "reverse": _reverse,
    "labelled": _labelled,
    "fake": _fake,
    "meta": _meta,
    "aot_eager": _compiled("aot_eager"),
    "inductor": _compiled("inductor"),
}
# Frequent ones first; compiling takes seconds.
WEIGHTS = {
    "plain": 8,
    "deterministic": 4,
    "gradient": 4,
    "fake": 4,
    "autocast": 2,
    "aot_eager": 0.06,
    "inductor": 0.015,
}
# Of these only shapes and types are known, or only they are alike.
SHAPES_ONLY = ("fake", "meta")
# That follow the function with tensors of no contents.
TRACED = (*SHAPES_ONLY, "aot_eager", "inductor", "labelled")
# What derivatives are taken of, where the target has them.
DERIVATIVES = ("gradient", "second", "jvp", "jacobian", "reverse")
# In which PyTorch itself may refuse, in words of its own.
ITS_OWN_WORDS = (
    "vmap",
    "looped",
    "jvp",
    "jacobian",
    "reverse",
    "fake",
    "meta",
    "aot_eager",
    "inductor",
    "second",
    "gradient",
)


def pick_mode(draw: Draw) -> str:
    names = [name for name in MODES if name != "looped"]
    return draw.random.choices(names, [WEIGHTS.get(name, 1) for name in names])[0]
