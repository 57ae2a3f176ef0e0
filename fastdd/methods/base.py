"""What every method has: settings, declared once, and steps that move the synthetic images."""

import math
import os
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import field_validator
from torch import Tensor, nn

from fastdd import debias, models, ops
from fastdd.core import settings
from fastdd.core.graph import Graphs, HostKeys, Keys, Outputs, Pool
from fastdd.core.settings import setting
from fastdd.data import Dataset, Zca
from fastdd.debias import Mode
from fastdd.methods.parts.formation import Formation, Pixels
from fastdd.methods.parts.networks import Stored

# Values that no image has, in units of the largest that the run begins with, or of 1.
_ABSURD = 1e4
# Of float32, in units of a value.
_LAST_BIT = 2.0**-24


class Settings(settings.Settings):
    """Settings of a run that every method has; :func:`fastdd.methods.configure` fills them from presets."""

    method: str = setting("how the synthetic images are learned (fastdd methods)", "dm")
    debias: str = setting(
        "how bias is handled (fastdd modes)", "none", default_help="none; with experts in place of real images, theirs"
    )
    dataset: str = setting("name of the data set")
    ipc: int = setting("synthetic images per class", 10, ge=1)
    iterations: int = setting(
        "length of the run: so many random networks to match on, or with experts so many students of theirs", ge=1
    )
    arch: str = setting("network that the images are matched on, such as ConvNet")
    width: int | None = setting("filters of each convolution", None, default_help="the network's own", ge=1)
    depth: int | None = setting("blocks of layers", None, default_help="the network's own", ge=1)
    lr_img: float = setting("learning rate of the synthetic images", gt=0)
    momentum: float = setting("momentum of the synthetic images' updates", ge=0, lt=1)
    inits: ClassVar[tuple[str, ...]] = ("real", "balanced", "noise")
    init: str = setting(
        "what the synthetic images are at first: real ones at random (real), as many of every group (balanced), noise, "
        "or those of a stored set (its file or run folder)"
    )
    dsa_strategy: str = setting(
        "augmentations of real and synthetic images alike, joined by _, such as color_crop_flip; or none"
    )
    seed: int = setting("number that every random draw follows from", 0, ge=0)
    memory: Literal["auto", "low"] = setting(
        "auto, or low to compute small parts at a time on GPUs too: slower, in less memory", "auto"
    )

    @field_validator("arch")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return models.canonical_name(value)

    @field_validator("init")
    @classmethod
    def _word_or_path(cls, value: str) -> str:
        # The file may be gone when a run that started from it is resumed: only the spelling can be judged here.
        if value not in cls.inits and not {"/", os.sep, "."} & set(value):
            raise ValueError(f"must be one of {', '.join(cls.inits)}, or the path of a stored set, such as ./{value}")
        return value

    @field_validator("debias")
    @classmethod
    def _known_mode(cls, value: str) -> str:
        debias.mode(value)
        return value

    @field_validator("dsa_strategy")
    @classmethod
    def _known_operations(cls, value: str) -> str:
        return "_".join(ops.parse_strategy(value)) or "none"

    @property
    def mode(self) -> Mode:
        """The debias mode."""
        return debias.mode(self.debias)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.iterations

    @property
    def can_be_extended(self) -> bool:
        """Whether the first steps of a run are those of one with more iterations."""
        return True

    @classmethod
    def usual(cls, ipc: int) -> dict[str, Any]:
        """Settings that follow from the IPC, where neither the user nor a preset gives them."""
        return {}


class Experts(Protocol):
    """Stored experts, as a method follows them (:class:`fastdd.experts.Experts`)."""

    number: int
    epochs: int
    manifest: dict[str, Any]
    zca: Zca | None

    def at(self, expert: int, epoch: int, device: torch.device | str = "cpu") -> Tensor: ...

    def check_network(self, net: nn.Module, name: str) -> None: ...

    def check_epochs(self, max_start_epoch: int, expert_epochs: int) -> None: ...


@dataclass(frozen=True)
class Context:
    """What a method works on, besides its settings.

    Attributes:
        dataset: the real images.
        device: where.
        images: float32 [C * IPC, channels, H, W], normalised, class-major: the first synthetic images; copied.
        weights: float [N], of the training images, where the debias mode needs them.
        experts: where the method needs them; their classes and images are the synthetic set's.
        classes: those whose images the steps change; None: all.
        gather: makes all classes' rows of the images those of whoever changed them, in place; None in one process.
        networks: trained ones that are matched on, in place of random ones.
    """

    dataset: Dataset
    device: torch.device
    images: Tensor
    weights: Tensor | None = None
    experts: Experts | None = None
    classes: range | None = None
    gather: Callable[[], None] | None = None
    networks: Stored | None = None


class Part(NamedTuple):
    """A part of an iteration, for estimates.

    Attributes:
        call: does it once, given a count from 0.
        times: how often an iteration has it.
        by_class: whether its cost is that of the classes.
    """

    call: Callable[[int], object]
    times: int
    by_class: bool


class Method:
    """A distillation method: one step after another, on synthetic images that it holds.

    A method is a subclass with a step, and a line of :data:`fastdd.methods.METHODS`; from its attributes follow the
    command line, Python, presets, estimates, reports and the conformance tests.

    Args:
        config: its settings.
        context: what it works on.

    Attributes:
        images: the synthetic images of all classes, as they are stored (in the space that ``formation`` says), a leaf
            that requires a gradient.
        momentum: SGD's buffer, of their shape; after the first step their gradient.
        classes: those whose images the steps change.
        about: one line for people.
        source: the paper.
        Settings: the model of its settings.
        presets: the file of its presets; None: one of its name.
        quick: settings of a run of minutes (``fastdd reproduce --budget quick``).
        needs_experts: whether it follows stored experts.
        experts: settings of experts that it is published with, where they are not the shipped ones.
        debias_of_experts: whether its debias mode is that of its experts, as it looks at no real images itself.
        classes_apart: whether a step of a class depends on no other class, so that ranks can share the classes.
        by_class: whether images are made class by class (:class:`fastdd.methods.Decoupled`), not in steps on all.
        looks_at_logits: whether it looks at the last layer of the networks that it matches on, too.
        formation: what networks see of the stored images.

    Raises:
        ValueError: classes that are not consecutive ones of the set.
    """

    about: ClassVar[str]
    source: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    presets: ClassVar[str | None] = None
    quick: ClassVar[Mapping[str, Any]] = {}
    needs_experts: ClassVar[bool] = False
    debias_of_experts: ClassVar[bool] = False
    experts: ClassVar[Mapping[str, Any]] = {}
    classes_apart: ClassVar[bool] = True
    by_class: ClassVar[bool] = False
    looks_at_logits: ClassVar[bool] = True
    formation: Formation

    def __repr__(self) -> str:
        config = self._config
        return f"{type(self).__name__}({config.debias}, {config.dataset}, IPC {config.ipc}, {config.arch})"

    def __init__(self, config: Any, context: Context):
        self._config, self._gather = config, context.gather
        device, classes = context.device, context.classes
        self.formation = self._make_formation(context)
        images = self.formation.store(context.images.to(device))
        every = range(len(images) // config.ipc)
        self.classes = every if classes is None else classes
        if not (len(self.classes) and self.classes.step == 1 and self.classes[0] >= 0 and self.classes[-1] in every):
            raise ValueError(f"classes must be consecutive ones of the {len(every)} that there are, not {classes}")
        self._rows = slice(self.classes.start * config.ipc, self.classes.stop * config.ipc)
        self.images = images.clone().requires_grad_()
        self.momentum = torch.zeros_like(images)
        self._absurd = _ABSURD * max(1.0, images.abs().max().item())
        self._pool = Pool()
        self._steps = Graphs(
            self._do, self.keys, device, f"a step of {config.method}", phase=self.phase, pool=self._pool
        )

    @classmethod
    def takes(cls, what: str, mode: Mode) -> bool:
        """Whether a run with a debias mode takes ``groups``, or ``weights``, of the training images."""
        return mode.needs == what and not cls.debias_of_experts

    @classmethod
    def noise(cls, normal: Tensor, dataset: Dataset) -> Tensor:
        """The first images of ``init=noise``, normalised, of standard normal numbers: these themselves by default."""
        return normal

    def _make_formation(self, context: Context) -> Formation:
        """What networks see of the stored images; themselves by default."""
        return Pixels()

    def step(self, number: int) -> Tensor:
        """Do step ``number`` of the run. Returns its loss, a scalar: that of ``classes``."""
        return self._steps(number)

    def keys(self, number: int) -> HostKeys:
        """What step ``number`` draws with, by name, the same names for every step (:mod:`fastdd.core.graph`)."""
        return {}

    def phase(self, number: int) -> Hashable | None:
        """What the host decides by a step's number, besides keys: on a GPU steps of one phase are a graph, replayed.

        None where a step can't be one, as by default: as the device is waited for, or something read from the host.
        """
        return None

    def _do(self, number: int, keys: Keys, *inputs: Tensor) -> Outputs:
        """Do step ``number`` with these keys, as :class:`fastdd.core.graph.Graphs` wants it. Returns its loss."""
        raise NotImplementedError

    def parts(self) -> list[Part]:
        """The parts of an iteration, in their order."""
        return [Part(self.step, 1, self.classes_apart)]

    @torch.no_grad()
    def _update(self, gradient: Tensor) -> None:
        """SGD of the images of ``classes``, whose gradient this is."""
        momentum, images = self.momentum[self._rows], self.images.detach()[self._rows]
        # The fused kernel goes through memory, whatever the strides say.
        if momentum.is_cuda and all(t.is_contiguous() for t in (images, gradient, momentum)):
            _sgd_in_one_launch(images, gradient, momentum, self._config.momentum, self._config.lr_img)
            return
        momentum.mul_(self._config.momentum).add_(gradient)
        images.sub_(momentum, alpha=self._config.lr_img)

    def of_classes(self) -> list[Tensor]:
        """Tensors of :meth:`state` with as many rows a class, of which steps change those of ``classes``."""
        return [self.images, self.momentum]

    def state(self) -> dict[str, Tensor]:
        """What the steps to come depend on, besides the run's configuration: the tensors themselves, not copies."""
        return {"images": self.images.detach(), "momentum": self.momentum}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` was."""
        tensors = self.state()
        if tensors.keys() != state.keys():
            raise ValueError(f"a checkpoint of other tensors: {', '.join(sorted(tensors.keys() ^ state.keys()))}")
        for name, tensor in tensors.items():
            found = state[name]
            if found.shape != tensor.shape or found.dtype != tensor.dtype:  # a digest knows bytes only
                raise ValueError(
                    f"a checkpoint of other tensors: {name} are {found.dtype} {list(found.shape)}, "
                    f"not {tensor.dtype} {list(tensor.shape)}"
                )
        for name, tensor in tensors.items():
            tensor.copy_(state[name])

    def learned(self) -> dict[str, Any]:
        """What else the synthetic set has than images and classes: arguments of :class:`fastdd.data.SyntheticSet`."""
        return {}

    def trouble(self, number: int, loss: float) -> str | None:
        """What is wrong with step ``number``, which had this loss, and what to do about it; None if nothing is.

        Asked step by step, as losses are read, which is later than the steps."""
        if math.isfinite(loss):
            return None
        return f"the loss is {loss:.4g}; lower lr_img ({self._config.lr_img:g})"

    def reach(self) -> float:
        """The largest absolute value of the images of ``classes``, which a GPU is waited for; NaN where one is NaN."""
        return self.images.detach()[self._rows].abs().max().item()

    def absurd(self, reach: float) -> str | None:
        """What is wrong with images of this :meth:`reach`, and what to do about it; None if nothing is."""
        if reach <= self._absurd:
            return None
        what = f"the images reach {reach:.3g}" if math.isfinite(reach) else "the images are not finite"
        return f"{what}; lower lr_img ({self._config.lr_img:g})"


def _sgd_in_one_launch(images: Tensor, gradient: Tensor, buffer: Tensor, momentum: float, lr: float) -> None:
    """SGD with momentum, by the kernel of PyTorch's fused optimiser."""
    torch._fused_sgd_(
        [images],
        [gradient],
        [buffer],
        weight_decay=0.0,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


def moved(start: Tensor, end: Tensor) -> bool:
    """Whether values have changed, on the whole, by more than their last bit: zeros alone move by any rate."""
    return not (end - start).norm() <= _LAST_BIT * start.norm()


class Recent:
    """Numbers of the last steps, left on their device until the steps' losses are read.

    Args:
        most: steps that are kept, at least as many as losses wait for.
    """

    def __init__(self, most: int = 256):
        self._values: deque[tuple[int, Tensor]] = deque(maxlen=most)

    def add(self, step: int, values: Tensor) -> None:
        """Keep a copy of a step's numbers."""
        self._values.append((step, values.detach().clone()))

    def of(self, step: int) -> Any:
        """A step's numbers, as ``Tensor.tolist`` has them; None where they are not kept."""
        return next((values.tolist() for number, values in reversed(self._values) if number == step), None)


def build_network(
    config: Settings, channels: int, num_classes: int, size: tuple[int, int], device: torch.device
) -> nn.Module:
    """The run's network, whose parameters need no gradient."""
    net = models.build(config.arch, channels, num_classes, size, width=config.width, depth=config.depth, device=device)
    return net.train().requires_grad_(False)
