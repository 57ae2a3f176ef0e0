"""How one call ended: right by float64, refused in one line, or a fault."""

from collections.abc import Callable
from typing import Any

import torch
from calls import TARGETS, Arguments, Draw, Target
from modes import DERIVATIVES, ITS_OWN_WORDS, MODES, SHAPES_ONLY, TRACED, pick_mode, tensors_of
from spoil import spoil
from torch import Tensor

REFUSALS = (ValueError, TypeError, RuntimeError)
INTERNAL = ("INTERNAL ASSERT", "please report a bug", "torch_call_dispatcher(")
# Of PyTorch's own: of quantised tensors that it no longer keeps in order, and of a dtype that is none.
ITS_OWN_FAULTS = ("ATen/quantized", "Cannot access accelerator")
# Winograd's transforms add up to nine pixels before they multiply: what is not finite spreads to its neighbours.
SPREADS = (
    "augment_uint8",
    "conv3x3",
    "conv3x3_weight",
    "ConvBlock",
    "conv_block",
    "Conv2d",
    "conv_norm_act_pool",
    "group_grad",
)
LARGE = 1e15  # whose squares are near the largest number of float32
Outcome = tuple[str, str]


def attempt(call: Callable[[], Any]) -> tuple[list[Tensor] | None, Exception | None]:
    try:
        return tensors_of(call()), None
    except Exception as error:
        return None, error


def _parts(value: Any) -> list[Tensor]:
    return [t for t in (value if isinstance(value, list) else [value]) if isinstance(t, Tensor)]


def _dense(t: Tensor) -> bool:
    return t.layout == torch.strided and t.device.type == "cpu" and not t.is_quantized and not t.is_nested


def _bits(arguments: Arguments) -> list[tuple[Tensor, Tensor]]:
    kept = [t for value in arguments.values() for t in _parts(value) if _dense(t)]
    return [(t, t.detach().clone()) for t in kept]


def _unchanged(kept: list[tuple[Tensor, Tensor]]) -> bool:
    return all(torch.equal(_bytes(t.detach()), _bytes(copy)) for t, copy in kept)


def _bytes(t: Tensor) -> Tensor:
    whole = t.resolve_neg().resolve_conj().clone(memory_format=torch.contiguous_format)
    return whole.view(-1).view(torch.uint8) if t.numel() else torch.empty(0)


def _widened(arguments: Arguments) -> Arguments:
    def wide(value: Any) -> Any:
        if isinstance(value, list):
            return [wide(part) for part in value]
        if isinstance(value, torch.dtype):
            return torch.float64 if value.is_floating_point else value
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return {name: wide(value) for name, value in arguments.items()}


def _floats(arguments: Arguments) -> list[Tensor]:
    tensors = [t.detach() for value in arguments.values() for t in _parts(value) if _dense(t) and t.numel()]
    return [t.double() for t in tensors if t.is_floating_point()]


def _largest(arguments: Arguments) -> float:
    return max((t[t.isfinite()].abs().max().item() for t in _floats(arguments) if t.isfinite().any()), default=0.0)


def _extreme(arguments: Arguments) -> bool:
    """Numbers that wrappers refuse."""
    return any(
        isinstance(v, float | int) and not isinstance(v, bool) and not 1 / LARGE < abs(v) < LARGE
        for v in arguments.values()
    )


def _finite(arguments: Arguments) -> bool:
    return all(t.isfinite().all() for t in _floats(arguments))


def clear(error: Exception, target: Target, mode: str) -> bool:
    """Whether an error says what is wrong with the call, in one line, or is PyTorch's own before the call gets here."""
    text = str(error)
    if any(words in text for words in INTERNAL):
        return any(words in text for words in ITS_OWN_FAULTS)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return True
    if not target.public or mode in ITS_OWN_WORDS:
        # Plain PyTorch says of what is no tensor that it has no shape, or no dtype.
        kinds = (*REFUSALS, IndexError) if target.public else (*REFUSALS, IndexError, AttributeError)
        return isinstance(error, kinds) or type(error).__module__.startswith("torch")
    return isinstance(error, REFUSALS) and "\n" not in text.strip() and 0 < len(text) < 500


def differs(native: Tensor, plain: Tensor, truth: Tensor | None, scale: float, spreads: bool, infinite: bool) -> str:
    """What two results differ in, beyond twice plain PyTorch's error; empty where they agree."""
    if native.shape != plain.shape or native.dtype != plain.dtype:
        return f"{native.dtype} {list(native.shape)} and {plain.dtype} {list(plain.shape)} of the reference"
    if not native.numel() or not _dense(native) or not _dense(plain) or native.dtype == torch.bool:
        return ""
    n, p = native.detach().double(), plain.detach().double()
    t = p if truth is None or truth.shape != p.shape else truth.detach().double()
    seen = [torch.isfinite(v) for v in (n, p, t)]
    if not infinite and (seen[0] & p.isnan() & t.isnan()).any():
        return "a number where the reference has none"
    if (~seen[0] & seen[1]).any() and not spreads:
        return "no number where the reference has one"
    both = seen[0] & seen[1] & seen[2]
    if not both.any():
        return ""
    eps = torch.finfo(native.dtype).eps if native.is_floating_point() else 0
    eps *= 64 if native.dtype == torch.float64 else 1  # the truth is no more exact
    errors = [(v - t)[both].abs().max().item() for v in (n, p)]
    limit = 2 * errors[1] + 8 * eps * max(scale, t[both].abs().max().item()) + 1e-35
    return (
        "" if errors[0] <= limit else f"errors {errors[0]:.3g} and {errors[1]:.3g}, of {t[both].abs().max().item():.3g}"
    )


def largest(results: list[Tensor] | None) -> float:
    """Of all finite numbers, 0 without one: what results of one call may be rounded by."""
    values = [t.detach().double().abs() for t in results or [] if _dense(t) and t.numel()]
    return max((v[v.isfinite()].max().item() for v in values if v.isfinite().any()), default=0.0)


def case(seed: int, number: int) -> tuple[str, str, Arguments, list[str], str]:
    """Function, mode, arguments, what was done to them, and the text that all else is drawn from."""
    text = f"{seed}/{number}"
    draw = Draw(text)
    name = draw.pick(*TARGETS)
    right = TARGETS[name].draw(draw)
    arguments, told = spoil(draw, right)
    mode = pick_mode(draw)
    # Of autocast the dispatcher's ops know nothing, and plain PyTorch does.
    beyond = (mode in TRACED and not TARGETS[name].traces) or (mode == "autocast" and not TARGETS[name].public)
    return name, "plain" if beyond else mode, arguments, told, text


def judge(name: str, mode: str, arguments: Arguments, text: str) -> Outcome:
    """The outcome of one call, as ``tally`` names them, and what is wrong."""
    target = TARGETS[name]

    def called(mode: str, backend: str, given: Arguments) -> tuple[list[Tensor] | None, Exception | None]:
        def run(**named: Any) -> Any:
            return target.run(backend, **named)

        return attempt(lambda: MODES[mode](run, given, Draw(text)))

    kept = _bits(arguments)
    native, error = called(mode, "auto", arguments)
    mode = "looped" if mode == "vmap" else mode
    if not _unchanged(kept):
        return "silent difference", "an argument was changed"
    if isinstance(error, AssertionError) and "different bits" in str(error):
        return "silent difference", str(error)
    if error is not None and not clear(error, target, mode):
        _, refused = called(mode, "reference", arguments)
        if mode in ITS_OWN_WORDS and str(error) == str(refused):
            return "clear error", ""  # PyTorch's own fault, whoever asks
        return "traceback", f"{type(error).__name__}: {str(error)[:300]!r}"
    if mode in SHAPES_ONLY:
        if error is not None and not target.public:
            return "clear error", ""  # ranks of tensors that are wrong
        return _shapes(native, error, *called("plain", "auto", arguments))
    if native and all(t.device.type == "meta" for t in native):
        return "right", ""  # nothing was computed
    plain, refused = called(mode, "reference", arguments)
    if error is not None:
        if refused is None and target.public and mode not in ITS_OWN_WORDS:
            return "silent difference", f"refused ({error}), and the reference is not"
        return "clear error", ""
    if refused is not None:
        own = isinstance(refused, OverflowError) or any(words in str(refused) for words in ITS_OWN_FAULTS)
        own = own or _extreme(arguments) or not any(t.numel() for t in native)
        if not target.compares or (own and not target.public):
            return "right", ""
        return "silent difference", f"the reference refuses ({type(refused).__name__}: {str(refused)[:200]})"
    if not target.compares or (mode in DERIVATIVES and not target.derives):
        return "right", ""
    truth, _ = called("plain" if mode == "autocast" else mode, "reference", _widened(arguments))
    if not plain and not any(t.any() for t in native):
        return "right", ""  # no graph, and a derivative of zero
    if len(native) != len(plain):
        return "silent difference", f"{len(native)} tensors and {len(plain)}"
    if not _finite(arguments) and mode in DERIVATIVES:
        return "right", ""  # of what is not finite there is no derivative
    spreads = name.rsplit(".", 1)[-1].removesuffix("_backward") in SPREADS and not _finite(arguments)
    spreads = spreads or ("backward" in name and not _finite(arguments))
    # What overflows is told: it is no number.
    spreads = spreads or _largest(arguments) > LARGE or (not target.public and _extreme(arguments))
    # Infinite factors are in no formula; the norm subtracts the shift of a convolution again, which kernels leave out.
    infinite = any(t.isinf().any() for t in _floats(arguments)) or not _finite({"shift": arguments.get("shift")})
    scale = largest(truth)
    if "bandwidth" in arguments:  # squared distances in units of it are what a density is rounded by
        x = arguments["x"].double()
        scale = max(scale, 2 * x.shape[1] * x.abs().max().item() ** 2 / arguments["bandwidth"] ** 2 if x.numel() else 0)
    for i, (a, b) in enumerate(zip(native, plain, strict=True)):
        words = differs(a, b, truth[i] if truth and len(truth) == len(plain) else None, scale, spreads, infinite)
        if words:
            return "silent difference", words
    return "right", ""


def _shapes(
    fake: list[Tensor] | None, error: Exception | None, real: list[Tensor] | None, refused: Exception | None
) -> Outcome:
    """Of a call on tensors without contents, beside the real one."""
    if refused is not None or real is None:
        return ("clear error" if error else "right"), ""  # what is wrong may be the contents
    if error is not None:
        data = "DataDependent" in type(error).__name__ or "data-dependent" in str(error)
        return ("clear error", "") if data else ("silent difference", f"refused ({error}), and what is real is not")
    for a, b in zip(fake, real, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return "silent difference", f"{a.dtype} {list(a.shape)}, and really {b.dtype} {list(b.shape)}"
    return "right", ""
