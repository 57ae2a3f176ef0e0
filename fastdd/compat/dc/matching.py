"""The matching losses of DM, DC, DSA and FairDD under their published names, and in place of the scripts' loops."""

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import handle_torch_function, has_torch_function

from fastdd import models, ops
from fastdd.compat.dc.augmentation import DiffAugment, ParamDiffAug
from fastdd.compat.shared import randomness
from fastdd.core import rng as draws

if TYPE_CHECKING:
    from fastdd.data import DeviceImages, Sampler
    from fastdd.debias import Segments

__all__ = [
    "RealImages",
    "dc_loss",
    "distance_wb",
    "dm_loss",
    "fairdd_dc_loss",
    "fairdd_dm_loss",
    "match_loss",
]

_METRICS = ("ours", "mse", "cos")


def _distance(real: Sequence[Tensor], synthetic: Sequence[Tensor], metric: str) -> Tensor:
    classes = torch.zeros(1, dtype=torch.int64, device=real[0].device)
    return ops.gradient_match([r[None] for r in real], [s[None] for s in synthetic], classes, metric=metric)[0]


def distance_wb(gwr: Tensor, gws: Tensor) -> Tensor:
    """Sum over the rows of one layer's gradients of ``1 - <r, s> / (|r| |s| + 1e-6)``; 0 for a vector.

    Args:
        gwr: real, [out, in, h, w], [C, H, W] or [out, in], whose rows are those of its first dimension.
        gws: synthetic, of that shape.
    """
    if gwr.dim() < 2:
        return torch.tensor(0.0, device=gwr.device)
    return _distance([gwr], [gws], "ours")


def match_loss(gw_syn: Sequence[Tensor], gw_real: Sequence[Tensor], args: Namespace) -> Tensor:
    """Distance of synthetic and real gradients, one tensor a parameter: :func:`fastdd.ops.gradient_match`.

    Args:
        gw_syn, gw_real: of all parameters; differentiable to any order.
        args: ``dis_metric`` is ``ours``, ``mse`` or ``cos``.

    Raises:
        SystemExit: another metric.
    """
    metric = _checked_metric(args.dis_metric)
    if has_torch_function((*gw_syn, *gw_real)):
        return handle_torch_function(match_loss, (*gw_syn, *gw_real), gw_syn, gw_real, args)
    if metric != "ours":
        # One vector, one op: the rows of all parameters are summed anyway.
        real, synthetic = (torch.cat([g.reshape(-1) for g in gradients]) for gradients in (gw_real, gw_syn))
        return _distance([real], [synthetic], metric)
    pairs = [(r, s) for r, s in zip(gw_real, gw_syn, strict=True) if r.dim() > 1]
    if not pairs:
        return torch.tensor(0.0, device=args.device)
    return _distance(*zip(*pairs, strict=True), metric)


def _checked_metric(metric: str) -> str:
    if metric not in _METRICS:
        raise SystemExit(f"unknown distance function: {metric}")
    return metric


class RealImages:
    """Random real images of a class: the scripts' ``get_images``, without a list of the class's rows to permute.

    Called with a class and a number, it returns images, or (images, labels, groups) where it has groups: as many as
    asked for, or all of the class, without replacement.

    Args:
        images_all: float [N, C, H, W], normalised.
        labels_all: int64 [N].
        groups_all: int64 [N], protected groups; None where there are none.
        rng: ``fast``: a function of the next key; ``legacy``: the published ``np.random.permutation`` of the class.
            None: the mode that is set when images are drawn.

    Raises:
        ValueError: a class without images.
    """

    def __init__(
        self, images_all: Tensor, labels_all: Tensor, groups_all: Tensor | None = None, *, rng: str | None = None
    ):
        self.images, self.labels, self.groups, self._rng = images_all, labels_all, groups_all, rng
        self.num_classes = int(labels_all.max()) + 1
        self._rows = [np.flatnonzero(labels_all.cpu().numpy() == c) for c in range(self.num_classes)]
        self._samplers: dict[tuple, Sampler] = {}

    def rows(self, c: int, n: int) -> Tensor:
        """int64 rows of ``n`` random images of class ``c``."""
        if randomness.mode(self._rng) == "legacy":
            return torch.from_numpy(np.random.permutation(self._rows[c])[:n])
        from fastdd.data import Sampler

        if n not in self._samplers:
            nowhere = torch.zeros_like(self.labels)
            self._samplers[n] = Sampler(self.labels, nowhere, self.num_classes, 1, n, device=self.images.device)
        if (n, c) not in self._samplers:
            self._samplers[n, c] = self._samplers[n].part(c, c + 1)
        return self._samplers[n, c].draw(randomness.next_key("real-images"))

    def __call__(self, c: int, n: int) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        rows = self.rows(c, n).to(self.images.device)
        if self.groups is None:
            return self.images[rows]
        return self.images[rows], self.labels[rows], self.groups[rows]


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient in the images was worked out with it."""

    @staticmethod
    def forward(ctx, images: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor, None, None]:
        return g * ctx.saved_tensors[0], None, None


@dataclass(frozen=True)
class _Step:
    """What one step matches: real images of every class, and the synthetic ones, augmented alike.

    ``synthetic`` is augmented already, and differentiable in the script's images, where every class's augmentation was
    a call of DiffAugment; ``params`` then change nothing.
    """

    real: "DeviceImages"
    segments: "Segments"
    counts: list[int]
    synthetic: Tensor
    params: Tensor

    @property
    def ipc(self) -> int:
        return len(self.synthetic) // len(self.params)


def _draw(
    get_images: Callable[[int, int], Any], image_syn: Tensor, args: Namespace, rng: str | None, by_group: bool
) -> _Step:
    num_classes = getattr(args, "num_classes", None) or len(image_syn) // args.ipc
    if len(image_syn) % num_classes:
        raise ValueError(f"image_syn has {len(image_syn)} images, which {num_classes} classes can't share alike")
    device, size = image_syn.device, (image_syn.shape[-2], image_syn.shape[-1])
    legacy = randomness.mode(rng) == "legacy"
    augmented = args.dsa and args.dsa_strategy not in ("none", "None", "")
    in_one_call = augmented and not legacy and _is_published(args.dsa_strategy, args.dsa_param)
    key = randomness.next_key("matching-loss") if augmented and not legacy else 0
    seeds = draws.lanes(key, num_classes)
    images, groups, synthetic = [], [], []
    for c, learned in enumerate(image_syn.chunk(num_classes)):
        drawn = get_images(c, args.batch_real)
        real, *others = drawn if isinstance(drawn, tuple | list) else (drawn,)
        if by_group:
            if len(others) < 2:
                raise ValueError("FairDD needs a get_images that returns (images, labels, groups)")
            groups.append(others[1].to(device))
        if augmented and not in_one_call:
            seed = int(time.time() * 1000) % 100000 if legacy else int(seeds[c])
            real, learned = (
                DiffAugment(x, args.dsa_strategy, seed=seed, param=args.dsa_param, rng=rng) for x in (real, learned)
            )
        images.append(real.to(device))
        synthetic.append(learned)
    dtype = torch.float64 if image_syn.dtype == torch.float64 else torch.float32
    params = ops.identity_params(num_classes, dtype=dtype, device=device)
    if in_one_call:
        params = ops.dsa_params(args.dsa_strategy, seeds.to(device), size, dtype=dtype)
    elif augmented:
        image_syn = torch.cat(synthetic)
    counts = [len(of_class) for of_class in images]
    segments = _segments(counts, torch.cat(groups) if by_group else None, device)
    from fastdd.data import DeviceImages

    return _Step(DeviceImages(torch.cat(images)), segments, counts, image_syn, params)


def _is_published(strategy: str, param: Any) -> bool:
    """Whether :func:`fastdd.ops.dsa_params` has these operations and ranges."""
    names = strategy.split("_")
    if not {*names} <= {*ops.DSA_OPS} or len({*names}) < len(names):
        return False
    return param is None or all(getattr(param, name, value) == value for name, value in vars(ParamDiffAug()).items())


def _segments(counts: list[int], groups: Tensor | None, device: torch.device) -> "Segments":
    """One segment a class, or one a (class, group); groups may have any numbers."""
    from fastdd.debias import Batch, fairdd, none

    rows = torch.arange(sum(counts), device=device)
    classes = torch.arange(len(counts), device=device).repeat_interleave(
        torch.tensor(counts, device=device), output_size=len(rows)
    )
    if groups is None:
        return none.segments(Batch(rows, classes, torch.zeros_like(classes), len(counts), 1))
    numbers, groups = groups.unique(return_inverse=True)
    return fairdd.segments(Batch(rows, classes, groups, len(counts), len(numbers)))


def _unwrapped(net: nn.Module) -> nn.Module:
    return net.module if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel) else net


def _at_once(net: nn.Module, step: _Step) -> int:
    return models.classes_at_once(net, step.synthetic, step.ipc, max(step.counts))


def _embedding_loss(net: nn.Module, step: _Step, mixes: str) -> Tensor:
    """DM's loss of a network of which only ``embed`` is known.

    ``mixes`` is what its batch norm mixes: ``nothing``, ``classes`` (each real and synthetic class by itself) or
    ``all`` (one batch of all real images, and one of all synthetic ones).
    """
    segments, num_classes = step.segments, len(step.params)
    classes = torch.arange(num_classes, device=step.synthetic.device).repeat_interleave(step.ipc)
    counts, sizes = (step.counts, [step.ipc] * num_classes)
    if mixes == "all":
        counts, sizes = [sum(counts)], [sum(sizes)]

    def embedded(images: Tensor) -> Tensor:
        chunk = models.chunk_size(net, images) if mixes == "nothing" else max(1, len(images))
        return torch.cat([net.embed(part).flatten(1) for part in images.split(chunk)])

    real, learned = [], []
    parts = segments.rows.split(counts), segments.sample_classes.split(counts)
    synthetic = ops.augment(step.synthetic, step.params, classes).split(sizes)
    for rows, of, images in zip(*parts, synthetic, strict=True):
        with torch.no_grad():
            real.append(embedded(step.real.read(rows, step.params, of)))
        learned.append(embedded(images))
    return segments.total(
        ops.embedding_match(
            torch.cat(real), torch.cat(learned), segments.offsets, segments.weights, segments.classes, num_classes
        )
    )


def _dm(net: nn.Module, step: _Step, *, by_group: bool) -> Tensor:
    net = _unwrapped(net)
    if models.couples_samples(net):
        return _embedding_loss(net, step, "classes" if by_group else "all")
    if not hasattr(net, "embedder"):
        return _embedding_loss(net, step, "nothing")
    from fastdd.methods import dm

    loss, gradient = dm.loss_and_gradient(
        net, step.real, step.segments, step.synthetic.detach(), step.params, at_once=_at_once(net, step)
    )
    return _WithGradient.apply(step.synthetic, loss, gradient)


def _gm(net: nn.Module, step: _Step, args: Namespace) -> Tensor:
    net = _unwrapped(net)
    metric = _checked_metric(getattr(args, "dis_metric", "ours"))
    for name, layer in net.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            raise ValueError(
                f"{name} ({type(layer).__name__}) is in training mode: put a batch of real images through the network "
                "and its batch norms into evaluation mode first, as the published loop does"
            )
    from fastdd.methods import dc

    loss, gradient = dc.loss_and_gradient(
        net,
        step.real,
        step.segments,
        step.synthetic.detach(),
        step.params,
        metric=metric,
        at_once=_at_once(net, step),
    )
    return _WithGradient.apply(step.synthetic, loss, gradient)


def dm_loss(
    net: nn.Module,
    get_images: Callable[[int, int], Any],
    image_syn: Tensor,
    args: Namespace,
    *,
    rng: str | None = None,
) -> Tensor:
    """DM's loss of one step, in place of the loop over classes: ``loss = dm_loss(net, get_images, image_syn, args)``.

    All classes go through the network at once, where it treats every image by itself; one with batch norm takes all
    real and then all synthetic images as one batch, as published.

    Args:
        net: with ``embed``; any (:mod:`fastdd.compat`'s own are fast). Its parameters get no gradient.
        get_images: ``get_images(c, n)``, random real images of a class; or (images, labels, groups).
        image_syn: float [C * IPC, channels, H, W], normalised, class-major.
        args: ``batch_real``, ``dsa``, ``dsa_strategy``, ``dsa_param``; ``num_classes``, or ``ipc``.
        rng: ``fast``: the augmentation of every class is a function of the next key; ``legacy``: of the time, as
            published, drawn from torch's global generator. None: the mode that is set.

    Returns:
        Scalar, the published sum over classes; ``backward()`` adds its gradient to ``image_syn.grad``.
    """
    return _dm(net, _draw(get_images, image_syn, args, rng, False), by_group=False)


def fairdd_dm_loss(
    net: nn.Module,
    get_images: Callable[[int, int], tuple[Tensor, Tensor, Tensor]],
    image_syn: Tensor,
    args: Namespace,
    *,
    rng: str | None = None,
) -> Tensor:
    """FairDD's loss with DM: :func:`dm_loss` summed over the groups that each class's batch has.

    ``get_images`` returns (images, labels, groups). The number of groups costs nothing. Networks with batch norm take
    one class after the other, as published.
    """
    return _dm(net, _draw(get_images, image_syn, args, rng, True), by_group=True)


def dc_loss(
    net: nn.Module,
    get_images: Callable[[int, int], Any],
    image_syn: Tensor,
    args: Namespace,
    *,
    rng: str | None = None,
) -> Tensor:
    """DC's loss of one step (DSA's, with ``args.dsa``), in place of the loop over classes.

    Arguments and result as those of :func:`dm_loss`; ``args.dis_metric`` is ``ours`` (where there is none), ``mse`` or
    ``cos``. The network's weights are constants, and get no gradient.

    Raises:
        ValueError: batch norm in training mode.
        SystemExit: an unknown metric.
    """
    return _gm(net, _draw(get_images, image_syn, args, rng, False), args)


def fairdd_dc_loss(
    net: nn.Module,
    get_images: Callable[[int, int], tuple[Tensor, Tensor, Tensor]],
    image_syn: Tensor,
    args: Namespace,
    *,
    rng: str | None = None,
) -> Tensor:
    """FairDD's loss with DC: :func:`dc_loss` summed over the groups that each class's batch has.

    ``get_images`` returns (images, labels, groups). One backward pass of the real images serves all groups.
    """
    return _gm(net, _draw(get_images, image_syn, args, rng, True), args)
