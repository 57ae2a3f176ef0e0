"""Distribution matching (DM; Zhao and Bilen, WACV 2023), for every debias mode.

    L = sum over segments s of || sum_i w_i phi(A(x_i)) - mean_j phi(A(x~_j)) ||^2

with phi the embedding of a fresh random network, A a differentiable Siamese augmentation shared by the real and the
synthetic images of a class, and j over the synthetic images of the segment's class. One segment a class gives DM; one
a (class, group) gives FairDD's L = sum_y sum_a || E_{T_y^a}[phi] - E_{S_y}[phi] ||^2. Sums, not means, as published.

FairDD states its objective for any distance of the two means (its equations 1 and 4), so two others are here as well:

    l1    the sum over dimensions of |a - b|        cos   1 - <a, b> / (|a| |b| + 1e-6)

FairDD's theorem 5.1, that the optimum is the arithmetic mean of the groups' means, is for l2; the minimiser of l1 is
their coordinate-wise median, and with cos only the direction is determined: that of the sum of their directions.
"""

from collections.abc import Callable, Hashable
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fastdd import models, ops
from fastdd.core.graph import HostKeys, Keys
from fastdd.core.malloc import give_back_growth
from fastdd.core.settings import setting
from fastdd.data import DeviceImages
from fastdd.debias import Segments, modes_that_need
from fastdd.methods.matching import Matching, NetworksSettings
from fastdd.methods.parts.formation import Formation, Pixels
from fastdd.methods.parts.networks import Networks, Warmed
from fastdd.methods.parts.schedule import LR_SCHEDULES, cosine_share
from fastdd.methods.parts.training import SyntheticTraining

_PIXELS = Pixels()


def _joined(parts: list[Tensor]) -> Tensor:
    """All rows; those of one part as they are, not a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def real_embeddings(
    net: nn.Module, real: DeviceImages, segments: Segments, params: Tensor, precision: str = "fp32"
) -> Tensor:
    """Embeddings of the segments' samples, [M, D], without a gradient; images are read in chunks.

    float32, or bfloat16 for ``precision="bf16"``.

    On CPUs a chunk has images of one class, so that its rounding does not depend on which classes there are. Networks
    with batch norm take each class as one batch, as their statistics would otherwise mix classes (or chunks).
    """
    dtype = torch.bfloat16 if precision == "bf16" else None
    classes = segments.sample_classes
    most = len(segments.rows)
    if not models.couples_samples(net):
        most = models.embedder_chunk(net, real, dtype)
    sizes: int | list[int] = most
    if models.couples_samples(net) or classes.device.type == "cpu":
        of_classes = torch.bincount(classes, minlength=len(params)).tolist()
        sizes = [min(most, size - start) for size in of_classes for start in range(0, size, most)]
    embed = net.embedder(dtype)
    return _joined(
        [
            embed(real.read(rows, params, of, dtype=dtype))
            for rows, of in zip(segments.rows.split(sizes), classes.split(sizes), strict=True)
        ]
    )


def seen_by(
    net: nn.Module,
    look: Callable[[Tensor], Tensor],
    synthetic: Tensor,
    params: Tensor,
    formation: Formation,
) -> Tensor:
    """What ``look`` of ``net``, its ``embed`` say, finds of the augmented synthetic images, [C * per class, D].

    In chunks, but for networks with batch norm, which take each class as one batch.
    """
    per_class = len(synthetic) * formation.per_image // len(params)
    classes = torch.arange(len(params), device=synthetic.device).repeat_interleave(per_class)
    images = formation.augmented(synthetic, params, classes)
    chunk = per_class if models.couples_samples(net) else models.chunk_size(net, images)
    return _joined([look(some) for some in (images.split(chunk) if chunk < len(images) else [images])])


def distances(
    net: nn.Module,
    real: DeviceImages,
    segments: Segments,
    synthetic: Tensor,
    params: Tensor,
    precision: str = "fp32",
    formation: Formation = _PIXELS,
    metric: str = "l2",
) -> Tensor:
    """Distance of every segment's mean embedding to its class's, [S], differentiable in the synthetic images.

    Arguments as those of :func:`loss_and_gradient`.
    """
    pulling = real_embeddings(net, real, segments, params, precision)
    embeddings = seen_by(net, net.embed, synthetic, params, formation)
    if metric == "l2":
        return ops.embedding_match(
            pulling, embeddings, segments.offsets, segments.weights, segments.classes, len(params)
        )
    targets = ops.segment_mean(pulling, segments.offsets, segments.weights)
    means = embeddings.unflatten(0, (len(params), -1)).mean(1)
    # These distances of gradients are those of vectors: an embedding is one layer with one row.
    return ops.gradient_match([targets], [means], segments.classes, metric=metric, present=segments.present)


def loss_and_gradient(
    net: nn.Module,
    real: DeviceImages,
    segments: Segments,
    synthetic: Tensor,
    params: Tensor,
    *,
    precision: str = "fp32",
    at_once: int | None = None,
    formation: Formation = _PIXELS,
    metric: str = "l2",
) -> tuple[Tensor, Tensor]:
    """DM's loss of one step and its gradient in the synthetic images.

    Args:
        net: a network with ``embed``; no gradient is taken in its parameters, so they should not require one.
        real: the real images.
        segments: the step's real samples, for C classes, the same number of segments for each.
        synthetic: float32 [C * IPC, channels, H, W], normalised, class-major.
        params: [C, P], augmentation parameters (:mod:`fastdd.ops.augment`), one row a class, shared by its real and
            its synthetic images.
        precision: ``fp32``, or ``bf16`` for the real images' embeddings (mean embeddings within about 1e-3). Their
            means, the synthetic side and its gradient stay float32.
        at_once: classes at a time, which bounds memory; None: all.
        formation: what the network sees of the synthetic images.
        metric: distance of two means: ``l2`` (squared, as published), ``l1`` or ``cos``.

    Returns:
        Scalar, the distances summed over embedding dimensions, segments and classes; and its gradient, of the synthetic
        images' shape.

    Cost: one forward of the real batch, one forward and one backward to the images of the synthetic set; the number
    of groups adds only rows to one segmented mean. Memory: the embeddings of the real images of the classes at hand,
    and the graph of their synthetic images. Two runs are bitwise equal. So are, on CPUs with this package's kernels
    (:class:`fastdd.ops.ConvBlock`, :func:`fastdd.ops.conv3x3`), the results of other numbers of classes at a time;
    elsewhere a convolution's rounding depends on how many images there are.
    """
    num_classes = len(params)
    if at_once is None or at_once >= num_classes:
        whole = segments.to(synthetic.device)
        _, loss, gradient = _all_at_once(net, real, whole, synthetic, params, precision, formation, metric)
        give_back_growth()
        return loss, gradient
    ipc = len(synthetic) // num_classes
    # Filled in place: what outlives the temporaries around it would break malloc's heap up.
    found, gradient = synthetic.new_empty(len(segments.classes)), torch.empty_like(synthetic)
    per_class = len(segments.classes) // num_classes
    for first, last, some in segments.by_classes(num_classes, at_once):
        of_classes = slice(first * ipc, last * ipc)
        each, _, gradient[of_classes] = _all_at_once(
            net,
            real,
            some.to(synthetic.device),
            synthetic[of_classes],
            params[first:last],
            precision,
            formation,
            metric,
        )
        found[first * per_class : last * per_class] = each
        del each
        give_back_growth()
    return segments.to(synthetic.device).total(found), gradient


def _all_at_once(
    net: nn.Module,
    real: DeviceImages,
    segments: Segments,
    synthetic: Tensor,
    params: Tensor,
    precision: str,
    formation: Formation,
    metric: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Every segment's distance, their loss and its gradient."""
    with torch.enable_grad():
        images = synthetic.detach().requires_grad_()
        each = distances(net, real, segments, images, params, precision, formation, metric)
        total = segments.total(each)
    gradient = torch.autograd.grad(total, images)[0]
    return each.detach(), total.detach(), gradient


# As published (COBRA): plain SGD at this learning rate, in batches of so many synthetic images.
_WARM_UP_LR, _WARM_UP_BATCH = 0.01, 256


class EmbeddingSettings(NetworksSettings):
    """Settings of methods that match embeddings."""

    embed_warmup: int = setting(
        "epochs of every random network on the synthetic images beforehand (COBRA: 10, 50 at IPC 50, 100 at IPC 100)",
        0,
        ge=0,
    )
    match_width: int | None = setting(
        "filters of each convolution of the networks that are matched on, in place of width, which then is that of the "
        "networks that evaluate the set; fewer are faster, and the loss, a sum over them, smaller: raise lr_img alike",
        None,
        default_help="width",
        ge=1,
    )
    lr_schedule: LR_SCHEDULES = setting(
        "how lr_img goes over the run: constant (as published), or cosine, which falls from lr_img to nothing",
        "constant",
    )

    @model_validator(mode="after")
    def _width_of_random_convnets(self) -> "EmbeddingSettings":
        if self.match_width is not None and not (self.networks is None and models.is_convnet(self.arch)):
            what = "trained networks" if self.networks else self.arch
            raise ValueError(f"match_width {self.match_width} is of random ConvNets, not of {what}: leave it out")
        return self

    @property
    def can_be_extended(self) -> bool:
        return self.lr_schedule == "constant"


class DmSettings(EmbeddingSettings):
    """Settings of distribution matching."""

    preset: Literal["published", "fast"] = setting(
        "shipped settings that hold where none is given: the published ones, or fast, which come near their accuracy "
        "in a hundredth of the time (docs: records)",
        "published",
    )
    metric: Literal["l2", "l1", "cos"] = setting(
        "distance between mean embeddings: l2 (squared, as published), l1 (absolute differences) or cos", "l2"
    )

    @model_validator(mode="after")
    def _fast_by_groups(self) -> "DmSettings":
        if self.preset == "fast" and self.mode.needs != "groups":
            able = ", ".join(modes_that_need("groups"))
            raise ValueError(f"preset fast draws evenly over groups: it is for debias {able}, not {self.debias}")
        return self


class Dm(Matching):
    """Distribution matching; with ``embed_warmup`` of networks that have seen the synthetic images."""

    about = "distribution matching: mean embeddings of random networks"
    source = "Zhao and Bilen, WACV 2023"
    Settings = DmSettings
    looks_at_logits = False
    quick = MappingProxyType({"iterations": 300})

    def _matched_on(self) -> EmbeddingSettings:
        config = self._config
        return config if config.match_width is None else config.model_copy(update={"width": config.match_width})

    def _make_networks(self, net: nn.Module) -> Networks:
        if not self._config.embed_warmup:
            return self._begun(net)
        how = {"lr": _WARM_UP_LR, "batch": _WARM_UP_BATCH, "dsa_strategy": self._config.dsa_strategy}
        self._training = SyntheticTraining(net, self._synthetic_labels, **how)
        # The host gathers what other ranks have.
        phase = 0 if self._gather is None else None
        return Warmed(self._begun(net), self._warm_up, self._warm_up_keys, phase)

    def phase(self, number: int) -> Hashable | None:
        # Each class is a batch of the real images that it has, a number that the device knows.
        return None if models.couples_samples(self._networks.net) else super().phase(number)

    def keys(self, number: int) -> HostKeys:
        found, config = super().keys(number), self._config
        if config.lr_schedule == "constant":
            return found
        return {**found, "share of rate": cosine_share(number, config.steps)}

    @torch.no_grad()
    def _move(self, gradient: Tensor, keys: Keys) -> None:
        if self._config.lr_schedule == "constant":
            self._update(gradient)
            return
        # By a scalar on the device, maybe, which the fused update does not take.
        images, momentum = self.images.detach()[self._rows], self.momentum[self._rows]
        momentum.mul_(self._config.momentum).add_(gradient)
        images.sub_(momentum * (keys["share of rate"] * self._config.lr_img))

    def _warm_up_keys(self, number: int) -> HostKeys:
        return {
            f"warm-up {epoch} {name}": key
            for epoch in range(self._config.embed_warmup)
            for name, key in self._training.keys((self._config.seed, "warm-up", number, epoch)).items()
        }

    def _warm_up(self, net: nn.Module, keys: Keys) -> None:
        images = self._all_images()
        for epoch in range(self._config.embed_warmup):
            start = f"warm-up {epoch} "
            own = {name.removeprefix(start): keys[name] for name in keys if name.startswith(start)}
            self._training.epoch(images, own)

    @property
    def metric(self) -> str:
        """The distance between means."""
        return self._config.metric

    def signal(self, net: nn.Module) -> nn.Module:
        """What is matched: the ``embed`` of this network."""
        return net

    def _loss_and_gradient(
        self, net: nn.Module, segments: Segments, images: Tensor, params: Tensor
    ) -> tuple[Tensor, Tensor]:
        return loss_and_gradient(
            self.signal(net),
            self._real,
            segments,
            images,
            params,
            precision=self._config.precision,
            at_once=self._at_once,
            formation=self.formation,
            metric=self.metric,
        )
