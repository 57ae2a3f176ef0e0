"""What every training recipe has: a loss of a batch, what it depends on, and the network that predicts afterwards."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastdd import ops
from fastdd.core import rng, settings
from fastdd.data import DeviceImages
from fastdd.models.network import Network


class Settings(settings.Settings):
    """Constants of a recipe; those of plain training: none."""


@dataclass(frozen=True)
class TrainingImages:
    """The images that a network is trained on, as it sees them.

    Attributes:
        images: on their device.
        labels: int64 [N] classes, or float32 [N, C] probabilities, on that device.
        num_classes: C.
        groups: int64 [N], on that device; None where they are not known.
        num_groups: G.
        dsa_strategy: augmentation: one operation a batch, drawn from this list, parameters an image.
    """

    images: DeviceImages
    labels: Tensor
    num_classes: int
    groups: Tensor | None = None
    num_groups: int = 1
    dsa_strategy: str = "none"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def conflicting(self) -> Tensor | None:
        """bool [N], bias-conflicting: outside the largest group of their class. None where that is not known."""
        if self.groups is None or self.labels.is_floating_point():
            return None
        counts = torch.bincount(self.cells, minlength=self.num_classes * self.num_groups)
        aligned = counts.cpu().numpy().reshape(self.num_classes, self.num_groups).argmax(1)
        return self.groups != torch.as_tensor(aligned, device=self.device)[self.labels]

    @property
    def device(self) -> torch.device:
        return self.labels.device

    @property
    def cells(self) -> Tensor:
        """int64 [N], the (class, group) of every image: y G + b."""
        return self.labels * self.num_groups + self.groups

    def spread(self, number: int) -> "TrainingImages":
        """So many of the images, or all if there are fewer, at even distances."""
        number = min(number, len(self))
        rows = torch.arange(number) * len(self) // number
        here = rows.to(self.device)
        pixels = self.images.pixels[rows.to(self.images.pixels.device)]
        groups = None if self.groups is None else self.groups[here]
        return replace(self, images=replace(self.images, pixels=pixels), labels=self.labels[here], groups=groups)

    def read(self, rows: Tensor, key: tuple) -> Tensor:
        """Images of these rows (on the pixels' device), augmented as ``key`` (seed, stream and counters) says."""
        return self.images.read(rows, self._augmentation(len(rows), key))

    def read_batches(self, rows: Tensor, batch: int, key: tuple) -> Tensor:
        """Images of several batches in one read: those that :meth:`read` gives of each by itself.

        Args:
            rows: int64 [M], on the pixels' device, batch after batch.
            batch: images of each.
            key: of the first; those of the others have the counts that follow.
        """
        sizes = [len(some) for some in rows.split(batch)]
        params = [self._augmentation(size, (*key[:-1], key[-1] + number)) for number, size in enumerate(sizes)]
        return self.images.read(rows, torch.cat(params))

    def _augmentation(self, count: int, key: tuple) -> Tensor:
        lanes = rng.lanes(rng.key(*key), count, self.device)
        return ops.dsa_params(self.dsa_strategy, lanes, self.images.size, shared_op=True)


class Recipe:
    """How a network is trained: what a batch's loss is, and in what order batches come.

    A recipe is a subclass with :meth:`loss` and a line of :data:`fastdd.training.RECIPES`. The optimiser is the
    caller's: one over :meth:`parameters`, a step a batch.

    Args:
        config: its constants.
        data: what is trained on.
        net: the network to train, at its start.
        another: builds a network of the same kind, at a random start that follows from the name given.
        key: seed, stream and counters that the recipe's own draws follow from.

    Attributes:
        name: as :data:`fastdd.training.RECIPES` has it.
        about: one line for people.
        source: the paper.
        Settings: the model of its constants.
        needs_groups: whether it looks at the images' groups.
        needs_classes: whether labels must be classes, not probabilities.
        needs_validation: whether :meth:`finish` looks at held-out images.
        net_predicts: whether the network alone predicts, as it is after any epoch.
        modules: what else is trained with the same optimiser, by name.

    Raises:
        ValueError: groups or hard labels that it needs and the data do not have.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    source: ClassVar[str]
    Settings: ClassVar[type[Settings]] = Settings
    needs_groups: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = True
    needs_validation: ClassVar[bool] = False
    net_predicts: ClassVar[bool] = True

    def __init__(self, config: Any, data: TrainingImages, net: Network, another: Callable[[str], Network], key: tuple):
        if self.needs_groups and data.groups is None:
            raise ValueError(
                f"training {self.name} looks at groups, and those of these images are not known; of a synthetic set's "
                "they can be given (groups)"
            )
        if self.needs_classes and data.labels.is_floating_point():
            raise ValueError(f"training {self.name} is of classes, and these images have soft labels; use erm")
        self.config, self.data, self.net, self._another, self._key = config, data, net, another, key
        self.modules: dict[str, nn.Module] = {}

    @classmethod
    def goes_by(cls) -> list[str]:
        """What of a data set it looks at besides images and classes: groups, validation images."""
        needs = {"groups": cls.needs_groups, "validation images": cls.needs_validation}
        return [what for what, needed in needs.items() if needed]

    def read(self, rows: Tensor, key: tuple) -> Tensor:
        """The images of a batch as the network sees them; its rows are on the pixels' device, its key is the loss's."""
        return self.data.read(rows, key)

    def loss(self, rows: Tensor, images: Tensor, key: tuple) -> Tensor:
        """The loss of a batch, a scalar whose gradient the optimiser takes.

        Args:
            rows: int64 [B], on the data's device.
            images: [B, channels, H, W], as the network sees them.
            key: of the batch: draws follow from it.
        """
        raise NotImplementedError

    def rate(self) -> float:
        """What the optimiser's learning rate is multiplied by in the next step."""
        return 1.0

    def order(self, key: tuple) -> Tensor | None:
        """int64 [N], the rows of an epoch, batch after batch; None: every row once, in random order."""
        return None

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimiser trains."""
        for module in (self.net, *self.modules.values()):
            yield from module.parameters()

    def train(self) -> None:
        """All networks in training mode."""
        for module in (self.net, *self.modules.values()):
            module.train()

    def finish(self, validation: TrainingImages | None) -> None:
        """What follows the last epoch, if anything does, on held-out images."""

    def predictor(self) -> nn.Module:
        """What predicts: logits of images."""
        return self.net

    @classmethod
    def network_of(cls, predictor: nn.Module) -> nn.Module:
        """The network in what :meth:`predictor` returned, as others look at its features."""
        return predictor

    @classmethod
    def empty_predictor(cls, make: Callable[[], Network], num_classes: int) -> nn.Module:
        """A module whose state dict is that of :meth:`predictor`, to be filled."""
        return make()

    def image_weights(self) -> dict[str, Tensor]:
        """How much each image counts, [N] by what it is of, once an epoch is done: what the recipe finds by itself."""
        return {}

    def tables(self) -> dict[str, Tensor]:
        """Tensors, besides the networks' own, that later steps depend on: themselves, not copies."""
        return {}

    def state(self) -> dict[str, Any]:
        """All that later steps depend on besides the network and the optimiser."""
        return {
            "tables": {name: table.clone() for name, table in self.tables().items()},
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
        }

    def bytes(self) -> int:
        """What :meth:`state` takes once there have been steps."""
        states = [self.tables(), *(module.state_dict() for module in self.modules.values())]
        return sum(tensor.nbytes for state in states for tensor in state.values())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` was."""
        for name, table in self.tables().items():
            table.copy_(state["tables"][name])
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
