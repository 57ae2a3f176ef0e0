"""Steps on real images: what is drawn, which method makes a loss of it, and how the synthetic images follow."""

from collections.abc import Callable

import torch
from torch import Tensor

from fastdd import models, ops, rng
from fastdd.data import Dataset, DeviceImages, Sampler
from fastdd.data.trajectories import Trajectories
from fastdd.debias import Batch, Segments, mode
from fastdd.methods import dm, gm
from fastdd.methods.training import train_epoch
from fastdd.session.config import RunConfig
from fastdd.session.stepper_base import Stepper, build_network
from fastdd.session.trajectory_stepper import TrajectoryStepper

# As published: real images a class whose statistics batch norms are frozen at.
_BATCH_NORM_IMAGES = 16


class DistributionStepper(Stepper):
    """Steps of distribution matching.

    What a step does to a class does not depend on which classes are matched together: on CPUs, with this package's
    kernels, its images have the same bits, elsewhere they are the same to rounding.

    Args:
        config, device, images, classes: as those of :class:`Stepper`.
        dataset: its train split is matched.
        weights: float [N], of the training images, for ``debias=kde``.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        device: torch.device,
        images: Tensor,
        weights: Tensor | None = None,
        classes: range | None = None,
    ):
        super().__init__(config, device, images, classes)
        self._segments = mode(config.debias)
        self._num_classes, self._num_groups = dataset.num_classes, dataset.num_groups
        self._real = DeviceImages.of(dataset.train.images, dataset.mean, dataset.std, device)
        # Rows are drawn where the images are looked up, so that nothing has to wait for a GPU to know them.
        home = self._real.pixels.device
        self._labels, self._groups = (
            torch.as_tensor(values, device=home) for values in (dataset.train.labels, dataset.train.groups)
        )
        counts = dataset.train.counts(dataset.num_classes, dataset.num_groups)[self.classes]
        self._counts = torch.as_tensor(counts, device=home)
        self._weights = None if weights is None else weights.to(home)
        self._sampler = self._make_sampler(config.batch_real, config.sampling).part(
            self.classes.start, self.classes.stop
        )
        self._net = build_network(config, dataset.channels, dataset.num_classes, dataset.size, device)
        self._init = models.ParameterInit(self._net)
        self._at_once = models.classes_at_once(
            self._net, self.images, config.ipc, config.batch_real, low_memory=config.memory == "low"
        )

    def _make_sampler(self, batch: int, sampling: str) -> Sampler:
        return Sampler(
            self._labels,
            self._groups,
            self._num_classes,
            self._num_groups,
            batch,
            mode=sampling,
            weights=self._weights,
            device=self._labels.device,
        )

    def step(self, number: int) -> Tensor:
        return self.match(number)

    def match(self, number: int) -> Tensor:
        """The matching of step ``number``: a network, a batch, an augmentation, one update. Returns its loss."""
        seed = self._config.seed
        self._prepare_network(number)
        rows = self._sampler.draw(rng.key(seed, "batch", number))
        drawn_by_weight = self._weights is None or self._config.sampling == "weighted"
        batch = Batch(
            rows,
            self._sampler.classes - self.classes.start,
            self._groups[rows],
            len(self.classes),
            self._num_groups,
            self._counts,
            None if drawn_by_weight else self._weights[rows],
        )
        first, last = self.classes.start, self.classes.stop
        keys = rng.lanes(rng.key(seed, "dsa", number), last, self.images.device)[first:]
        params = ops.dsa_params(self._config.dsa_strategy, keys, self._real.size)
        loss, gradient = self._loss_and_gradient(self._segments(batch), params)
        self._update(gradient)
        return loss

    def _prepare_network(self, number: int) -> None:
        self._init.fill(rng.key(self._config.seed, "net", number))

    def _loss_and_gradient(self, segments: Segments, params: Tensor) -> tuple[Tensor, Tensor]:
        images = self.images.detach()[self._rows]
        return dm.loss_and_gradient(
            self._net, self._real, segments, images, params, precision=self._config.precision, at_once=self._at_once
        )


class GradientStepper(DistributionStepper):
    """Steps of gradient matching (DC, DSA): an iteration is one network, matched and trained in turns.

    A step is one matching step and, unless it is the iteration's last, the training of the network on the synthetic
    images that follows it.

    Args:
        config, dataset, device, images, weights, classes: as those of :class:`DistributionStepper`.
        gather: called before every training of the network: makes all classes' rows of ``images`` those of whoever
            matches them, in place.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        device: torch.device,
        images: Tensor,
        weights: Tensor | None = None,
        classes: range | None = None,
        gather: Callable[[], None] | None = None,
    ):
        super().__init__(config, dataset, device, images, weights, classes)
        self._gather = gather
        self.per_iteration = config.outer_loop
        self._net.requires_grad_(True)
        self._synthetic_labels = torch.arange(dataset.num_classes, device=device).repeat_interleave(config.ipc)
        if device.type == "cpu" or config.memory == "low":
            self._at_once = 1  # more are no faster
        norms = [layer for layer in self._net.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
        self._norm_sampler = self._make_sampler(_BATCH_NORM_IMAGES, "random") if norms else None

    def step(self, number: int) -> Tensor:
        loss = self.match(number)
        if (number + 1) % self.per_iteration:
            if self._gather is not None:
                self._gather()
            self.train(number)
        return loss

    def train(self, number: int) -> None:
        """The training of the network that follows matching step ``number``: plain SGD on the synthetic images."""
        config, images = self._config, DeviceImages(self.images.detach())
        self._net.train()
        sgd = torch.optim.SGD(self._net.parameters(), lr=config.lr_net)
        for epoch in range(config.inner_loop):
            train_epoch(
                self._net,
                images,
                self._synthetic_labels,
                sgd,
                batch=config.batch_train,
                dsa_strategy=config.dsa_strategy,
                key=(config.seed, "inner", number, epoch),
            )
        sgd.zero_grad()

    def _prepare_network(self, number: int) -> None:
        if number % self.per_iteration == 0:
            self._init.fill(rng.key(self._config.seed, "net", number // self.per_iteration))
        if self._norm_sampler is not None:
            rows = self._norm_sampler.draw(rng.key(self._config.seed, "norm-batch", number))
            gm.calibrate_norms(self._net, self._real, rows)

    def _loss_and_gradient(self, segments: Segments, params: Tensor) -> tuple[Tensor, Tensor]:
        config, images = self._config, self.images.detach()[self._rows]
        return gm.loss_and_gradient(
            self._net,
            self._real,
            segments,
            images,
            params,
            metric=config.metric,
            precision=config.precision,
            first_class=self.classes.start,
            at_once=self._at_once,
        )

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **{f"net.{name}": tensor for name, tensor in self._net.state_dict().items()}}


def make(
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    images: Tensor,
    weights: Tensor | None = None,
    experts: Trajectories | None = None,
    *,
    classes: range | None = None,
    gather: Callable[[], None] | None = None,
) -> Stepper:
    """The stepper of the run's method.

    Args:
        config, device, images, classes: as those of :class:`Stepper`.
        dataset, weights: as those of :class:`DistributionStepper`.
        experts: of mtt, which needs neither of them: its bias is in them.
        gather: of dc and dsa, as that of :class:`GradientStepper`; others train on no synthetic images.

    Raises:
        ValueError: some of the classes for mtt, whose steps need all of them.
    """
    if config.method == "mtt":
        if classes is not None:
            raise ValueError("a step of mtt is on the images of all classes: it can't be on some of them")
        return TrajectoryStepper(config, device, images, experts)
    if config.method == "dm":
        return DistributionStepper(config, dataset, device, images, weights, classes)
    return GradientStepper(config, dataset, device, images, weights, classes, gather)
