"""Gradient matching (DC; Zhao, Mopuri and Bilen, ICLR 2021) and, with Siamese augmentation, DSA (Zhao and Bilen,
ICML 2021), for every debias mode.

    L = sum over segments s of D( sum_i w_i grad l(A(x_i), y_s), mean_j grad l(A(x~_j), y_s) )

with l the cross-entropy, grad with respect to the network's weights, A an augmentation shared by the real and the
synthetic images of a class (DSA; none for DC), j over the synthetic images of the segment's class, and D a distance of
:func:`fastdd.ops.gradient_match`. One segment a class gives DC, one a (class, group) gives FairDD, the weights of KDE
reweighting give its DSA form, W * grad l (eq. 4). The network is trained on the synthetic images between steps.
"""

import copy
import functools
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fastdd import models, ops
from fastdd.core import rng
from fastdd.core.graph import Graphs, HostKeys, Keys
from fastdd.core.malloc import give_back_growth
from fastdd.core.settings import setting
from fastdd.data import DeviceImages
from fastdd.debias import Segments
from fastdd.methods.base import Context, Part, Recent
from fastdd.methods.matching import Matching, NetworksSettings
from fastdd.methods.parts.formation import Formation, Pixels
from fastdd.methods.parts.networks import InTurns, Networks
from fastdd.methods.parts.training import SyntheticTraining

# Real gradients held at a time, in bytes. On CPUs those of six groups of a ConvNet with 320,010 parameters, so that
# a hundred groups take hardly more memory than one; on GPUs those of 200, where launches cost more than memory.
_GRADIENT_BYTES = {"cpu": 8 * 2**20, "cuda": 256 * 2**20}
# The published loops: IPC -> (matching steps an iteration, epochs of training between two of them).
_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
_LOOPS_ABOVE_50 = (100, 10)  # FairDD's
_PIXELS = Pixels()
_BUDGET = 500  # matching steps times epochs, about the same in every published row up to IPC 50


def loops(ipc: int) -> tuple[int, int]:
    """Matching steps an iteration, and epochs of the network's training after each but the last.

    The published values (``get_loops``) where there are any, FairDD's above 50; between them, IPC steps with as many
    epochs as keep the total of the published rows, at most the 50 of IPC 10.

    >>> loops(10), loops(25), loops(5), loops(100)
    ((10, 50), (25, 20), (5, 50), (100, 10))
    """
    if ipc > max(_LOOPS):
        return _LOOPS_ABOVE_50
    return _LOOPS.get(ipc) or (ipc, min(50, round(_BUDGET / ipc)))


def loss_and_gradient(
    net: nn.Module,
    real: DeviceImages,
    segments: Segments,
    synthetic: Tensor,
    params: Tensor,
    *,
    metric: str = "ours",
    precision: str = "fp32",
    first_class: int = 0,
    at_once: int | None = None,
    formation: Formation = _PIXELS,
    parameters: str | None = None,
    parts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of one matching step and its gradient in the synthetic images; the network's weights are constants.

    The second derivative is taken only of the weights' gradients with respect to the images: the distance gives a
    gradient v in the synthetic weight gradients s (first order), and d L / d images is v applied to d s / d images.

    Args:
        net: logits of images; layers that couple samples (batch norm) must be in evaluation mode
            (:func:`calibrate_norms`). Its parameters' ``requires_grad`` is not read.
        real: the real images.
        segments: the step's real samples, for C classes, the same number of segments for each.
        synthetic: float [C * IPC, channels, H, W], normalised, class-major.
        params: [C, P] or [C, passes, P], augmentation parameters (:func:`fastdd.ops.augment_passes`), one row a class,
            shared by its real and its synthetic images.
        metric: of :func:`fastdd.ops.gradient_match`.
        precision: ``fp32``, or ``bf16`` for the real images' forward and backward pass; gradients are summed and
            matched in float32.
        first_class: the network's output of the first of the C classes; the others' follow.
        at_once: classes at a time, which bounds memory; None: all.
        formation: what the network sees of the synthetic images.
        parameters: whose gradients are matched (:func:`fastdd.ops.group_grad`); None: with ``ours`` those of more than
            one dimension, otherwise all.
        parts: int64 [C, P], of what the network would see of a class, IPC times ``formation.per_image`` images, those
            that it does see; None: all.

    Returns:
        Scalar loss (a sum over segments, not a mean, as published) and its gradient, of the synthetic images' shape.

    Cost: one forward and backward of the real batch, whatever the number of groups; one forward, backward and second
    backward of the synthetic set. Memory: a chunk of real images, the real gradients of the segments at hand (at most
    8 MiB on CPUs and 256 MiB on GPUs, or those of one segment), and the graph of the synthetic images at hand. Two runs
    are bitwise equal; the results of other numbers of classes at a time are to rounding.
    """
    num_classes = len(params)
    ipc = len(synthetic) // num_classes
    of_real, dtype = net, None
    if precision == "bf16":
        of_real, dtype = copy.deepcopy(net).to(torch.bfloat16), torch.bfloat16
    parameters = parameters or ("weights" if metric == "ours" else "all")
    # Filled in place: what outlives the temporaries around it would break malloc's heap up.
    gradient, found = torch.empty_like(synthetic), []
    for first, last, own in segments.by_classes(num_classes, at_once or num_classes):
        seen_of_class = ipc * formation.per_image if parts is None else parts.shape[1]
        addresses = None if parts is None else _addresses(parts[first:last], ipc, formation.per_image)
        classes, offsets = _layout(last - first, seen_of_class, synthetic.device)
        own_params, to_label = params[first:last], first_class + first
        with torch.enable_grad():
            images = synthetic[first * ipc : last * ipc].detach().requires_grad_()
            graphs = ops.group_grad(
                net,
                formation.augmented(images, own_params, classes, addresses),
                classes + to_label,
                offsets,
                parameters=parameters,
                create_graph=True,
            ).values()
        pulled = [g.detach().requires_grad_() for g in graphs]
        pulls: list[Tensor] = []
        for here in _affordable(own, sum(p[0].nbytes for p in pulled), synthetic.device):
            some = here.to(synthetic.device)
            of_samples = some.sample_classes
            pulling = ops.group_grad(
                of_real,
                real.read(some.rows, own_params, of_samples, dtype=dtype),
                of_samples + to_label,
                some.offsets,
                some.weights,
                parameters=parameters,
            ).values()
            with torch.enable_grad():
                distances = ops.gradient_match([*pulling], pulled, some.classes, metric=metric, present=some.present)
                total = some.total(distances)
            found.append(distances.detach())
            more = torch.autograd.grad(total, pulled, materialize_grads=True)
            pulls = [pull.add_(other) for pull, other in zip(pulls, more, strict=True)] if pulls else [*more]
            del more
        of_images = torch.autograd.grad([*graphs], images, pulls)[0]
        if len(found) == 1 and last - first == num_classes and synthetic.is_cuda:  # nothing to put together
            return total.detach(), of_images
        gradient[first * ipc : last * ipc] = of_images
        give_back_growth()
    return segments.to(synthetic.device).total(torch.cat(found)), gradient


# Never forgotten: a captured graph reads them where they lie.
@functools.cache
def _layout(classes: int, each: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of so many classes with so many images each: every image's class, and where the classes start."""
    owners = torch.arange(classes, device=device).repeat_interleave(each)
    return owners, torch.arange(0, (classes + 1) * each, each, device=device)


def _addresses(parts: Tensor, ipc: int, per_image: int) -> Tensor:
    """Stored image, among those of all classes, and part of each of the ``parts`` of every class: int64 [N, 2]."""
    stored = parts // per_image + ipc * torch.arange(len(parts), device=parts.device)[:, None]
    return torch.stack([stored, parts % per_image], -1).flatten(0, 1)


def _affordable(segments: Segments, bytes_each: int, device: torch.device) -> Iterator[Segments]:
    """The segments, as many at a time as their gradients may take; all where their distances are compared."""
    most = max(1, _GRADIENT_BYTES[device.type] // bytes_each)
    if segments.worst or len(segments.classes) <= most:
        yield segments
        return
    for first in range(0, len(segments.classes), most):
        yield segments.part(first, min(first + most, len(segments.classes)))


@torch.no_grad()
def calibrate_norms(net: nn.Module, real: DeviceImages, rows: Tensor) -> None:
    """Batch norms as published: running statistics from one real batch in training mode, then frozen.

    Samples are then independent of one another. ``net`` is left in training mode but for its batch norms.

    Args:
        net: the network.
        real: the real images.
        rows: int64 [M], the batch, without augmentation (published: 16 images a class).
    """
    net.train()
    net(real.read(rows))
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


# As published: real images a class whose statistics batch norms are frozen at.
_BATCH_NORM_IMAGES = 16
# A cross-entropy that no network comes back from.
DIVERGED = 100.0
# Fewer steps between the networks' epochs would match networks that know nothing but colour: then a vanilla set of a
# biased data set learns nothing else (C-MNIST, IPC 10: 27 % after 90 steps with 5 epochs each, 47 % after 50 with 20).
_QUICK = MappingProxyType({"iterations": 10, "outer_loop": 10, "inner_loop": 20, "batch_real": 64, "lr_img": 1.0})


class GradientSettings(NetworksSettings):
    """Settings of gradient matching, with augmentation or without."""

    metric: Literal["ours", "mse", "cos"] = setting(
        "distance between gradients: ours (cosines of their rows, as published), mse or cos", "ours"
    )
    outer_loop: int = setting("matching steps of every random network", default_help="published for the IPC", ge=1)
    inner_loop: int = setting(
        "epochs that the network trains on the synthetic images between two matching steps",
        default_help="published for the IPC",
        ge=0,
    )
    lr_net: float = setting("learning rate of the network when it trains on the synthetic images", gt=0)
    batch_train: int = setting("synthetic images of a step of that training", ge=1)

    @property
    def steps(self) -> int:
        return self.iterations * self.outer_loop

    @classmethod
    def usual(cls, ipc: int) -> dict[str, Any]:
        return dict(zip(("outer_loop", "inner_loop"), loops(ipc), strict=True))


class DcSettings(GradientSettings):
    """Settings of gradient matching without augmentation."""

    @model_validator(mode="after")
    def _plain(self) -> "DcSettings":
        if self.dsa_strategy != "none":
            raise ValueError(f"dc has no augmentation; with {self.dsa_strategy!r} it is method dsa")
        return self


class Dc(Matching):
    """Gradient matching: an iteration is one network, matched and trained in turns.

    A step is one matching step and, unless it is the iteration's last, the training of the network on the synthetic
    images that follows it.
    """

    about = "gradient matching: weight gradients of networks that train on the synthetic images"
    source = "Zhao, Mopuri and Bilen, ICLR 2021"
    Settings = DcSettings
    quick = _QUICK
    _networks: InTurns

    def __init__(self, config: GradientSettings, context: Context):
        self._trainings = Recent()  # after every step: the training's loss, and how far the images reached in it
        super().__init__(config, context)
        if context.device.type == "cpu" or config.memory == "low":
            self._at_once = 1  # more are no faster
        norms = models.couples_samples(self._networks.net)
        self._norm_sampler = self._samples.sampler(_BATCH_NORM_IMAGES, "random") if norms else None

    def _make_networks(self, net: nn.Module) -> Networks:
        config = self._config
        begun = self._begun(net.requires_grad_(True))
        how = {"lr": config.lr_net, "batch": config.batch_train, "dsa_strategy": config.dsa_strategy}
        self._training = SyntheticTraining(net, self._synthetic_labels, **how)
        self._epochs = Graphs(
            lambda number, keys, images: self._training.epoch(images, keys),
            self._epoch_keys,
            self.images.device,
            f"training between steps of {config.method}",
            phase=lambda number: 0 if models.replays(net) else None,
            pool=self._pool,
        )
        return InTurns(begun, config.outer_loop, self._train)

    def step(self, number: int) -> Tensor:
        loss = self.match(number)
        if (number + 1) % self._config.outer_loop:
            self.train(number)
        return loss

    def train(self, number: int) -> None:
        """The training of the network that follows step ``number``."""
        self._networks.train(number)

    def parts(self) -> list[Part]:
        steps = self._config.outer_loop
        matching = Part(lambda count: self.match(count * steps), steps, True)
        # The last matching step of an iteration is not followed by training.
        return [matching, Part(self.train, steps - 1, False)] if steps > 1 else [matching]

    def _epoch_keys(self, number: int) -> HostKeys:
        """Of the run's epoch ``number``, as if one followed every step."""
        return self._training.keys((self._config.seed, "inner", *divmod(number, self._config.inner_loop)))

    def _train(self, net: nn.Module, number: int) -> None:
        images, epochs = self._all_images(), self._config.inner_loop
        for epoch in range(epochs):
            loss = self._epochs(number * epochs + epoch, images)
        if epochs:
            self._trainings.add(number, torch.stack([loss, images.abs().max()]))

    def trouble(self, number: int, loss: float) -> str | None:
        config = self._config
        # The network of this step was trained after the one before, but for an iteration's first.
        training = self._trainings.of(number - 1) if number % config.outer_loop else None
        if training is not None:
            of_network, reach = training
            if self.absurd(reach) is None and not of_network <= DIVERGED:
                knobs = f"lower lr_net ({config.lr_net:g}) or inner_loop ({config.inner_loop})"
                return f"the network diverged on the synthetic images (loss {of_network:.4g}); {knobs}"
        return super().trouble(number, loss)

    def _loss_and_gradient(
        self, net: nn.Module, segments: Segments, images: Tensor, params: Tensor, **more: Any
    ) -> tuple[Tensor, Tensor]:
        config = self._config
        return loss_and_gradient(
            net,
            self._real,
            segments,
            images,
            params,
            metric=config.metric,
            precision=config.precision,
            first_class=self.classes.start,
            at_once=self._at_once,
            formation=self.formation,
            **more,
        )

    def keys(self, number: int) -> HostKeys:
        norms = {"norm-batch": rng.key(self._config.seed, "norm-batch", number)}
        return {**super().keys(number), **(norms if self._norm_sampler is not None else {})}

    def _network(self, number: int, keys: Keys) -> nn.Module:
        net = super()._network(number, keys)
        if self._norm_sampler is not None:
            calibrate_norms(net, self._real, self._norm_sampler.draw(keys["norm-batch"]))
        return net
