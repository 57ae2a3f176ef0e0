"""The audit of a data set, and of a synthetic set of it."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fastdd import models
from fastdd.core import rng
from fastdd.core.settings import Settings, setting
from fastdd.data import Dataset, DeviceImages, SyntheticSet
from fastdd.evaluation.audit import means
from fastdd.evaluation.audit.data_bias import check_groups, data_bias
from fastdd.evaluation.audit.findings import Audit, ClassOfData, ClassOfSet, Probe, SetBias
from fastdd.evaluation.audit.information import information_by_chance, mutual_information
from fastdd.evaluation.audit.probe import probabilities, train_probe
from fastdd.evaluation.plan import check_fits, in_order_of


class AuditSettings(Settings):
    """How a synthetic set is audited."""

    nets: int = setting("random networks that positions, bounds and coverage are over", 20, ge=1)
    per_cell: int = setting("real images of every class and group that stand for all of them", 100, ge=1)
    probe_steps: int = setting("training steps of the probe that tells groups", 300, ge=1)
    probe_accuracy: float = setting("percent, accuracy below which the probe says nothing", 80.0, ge=0, le=100)
    seed: int = setting("number that every random draw follows from", 0, ge=0)


def audit(
    data: Dataset,
    synthetic: SyntheticSet | None = None,
    settings: AuditSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """What bias is in the training images and in the set; arguments as those of :func:`fastdd.audit`.

    Raises:
        ValueError: a data set without groups, or a set of other classes or sizes.
    """
    check_groups(data)
    if synthetic is None:
        return Audit(data.name, data_bias(data))
    settings = settings or AuditSettings()
    check_fits(synthetic, data)
    found, of_data = in_order_of(data, synthetic), data_bias(data)
    images, labels = _seen(found, data)
    total = settings.probe_steps + settings.nets

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, total)

    of_images, probe = _probed(data, images, settings, device, tell)
    placed = _placed(data, images, labels, settings, device, lambda done: tell(settings.probe_steps + done))
    return Audit(data.name, of_data, _set_bias(of_data.classes, len(found.images), labels, of_images, probe, placed))


def probe_groups(
    data: Dataset,
    synthetic: SyntheticSet,
    settings: AuditSettings | None = None,
    *,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Probe]:
    """Of every stored image the group that the audit's probe takes it to be of, int64 [M], and how well it tells them.

    Those of an audit with the same settings; of an image that holds several, the likeliest over its parts.

    Raises:
        ValueError: a data set without groups, a set of other classes or sizes, or a probe that does not tell groups.

    Cost: ``probe_steps`` steps of 64 images.
    """
    check_groups(data)
    check_fits(synthetic, data)
    settings = settings or AuditSettings()
    images, _ = _seen(in_order_of(data, synthetic), data)
    of_images, probe = _probed(data, images, settings, device)
    if not probe.tells:
        raise ValueError(
            f"the probe tells the groups of {data.name} with an accuracy of {probe.accuracy:.1f} % (guessing "
            f"{probe.guessing:.1f} %), below {probe.needed:g} %: give the groups of the set's images yourself"
        )
    return of_images.unflatten(0, (len(synthetic.images), -1)).mean(1).argmax(1), probe


def _seen(found: SyntheticSet, data: Dataset) -> tuple[Tensor, Tensor]:
    """Images that networks see, as the data set's are normalised, and their classes: image after image, whatever its
    class's number is. Marks of images stay right where classes are renumbered."""
    seen = found.decoded()
    order = (found.parts @ torch.tensor([found.formation**2, 1])).argsort() if found.formation > 1 else slice(None)
    return as_normalised(seen, data)[order], seen.labels.cpu()[order]


def _probed(
    data: Dataset,
    images: Tensor,
    settings: AuditSettings,
    device: torch.device | str,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Probe]:
    """A probe's probabilities of every image, float64 [N, G], and the probe."""
    net, probe = train_probe(
        data,
        steps=settings.probe_steps,
        needed=settings.probe_accuracy,
        seed=settings.seed,
        device=device,
        progress=progress,
    )
    return probabilities(net, DeviceImages(images.to(device)), torch.arange(len(images))), probe


def as_normalised(synthetic: SyntheticSet, data: Dataset) -> Tensor:
    """The set's images as the data set's are normalised; whitened ones are unwhitened. The same bits where they are."""
    images, metadata = synthetic.images.detach(), synthetic.metadata
    if synthetic.zca is None and (metadata["mean"], metadata["std"]) == (list(data.mean), list(data.std)):
        return images
    own_mean, own_std, mean, std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (metadata["mean"], metadata["std"], data.mean, data.std)
    )
    pixels = images * own_std + own_mean if synthetic.zca is None else synthetic.zca.unwhiten(images)
    return ((pixels - mean) / std).float()


@torch.no_grad()
def _placed(
    data: Dataset,
    images: Tensor,
    labels: Tensor,
    settings: AuditSettings,
    device: torch.device | str,
    progress: Callable[[int], None],
) -> list[means.Positions]:
    """Of every random network what it says."""
    counts = torch.from_numpy(data.train.counts(data.num_classes, data.num_groups))
    cells = data.train.labels * data.num_groups + data.train.groups
    rows = means.stratified_rows(cells, counts.numel(), settings.per_cell, rng.key(settings.seed, "audit-rows"))
    real = DeviceImages.of(data.train.images[rows], data.mean, data.std, device)
    made, of_rows = DeviceImages(images.to(device)), torch.from_numpy(cells[rows])
    found = []
    for number in range(settings.nets):
        key = rng.key(settings.seed, "audit-net", number)
        net = models.build("ConvNet", data.channels, data.num_classes, data.size, key=key, device=device)
        embed = net.embedder()
        features = [
            torch.cat(
                [embed(some.read(part)).cpu() for part in torch.arange(count).split(models.chunk_size(net, some))]
            )
            for some, count in ((real, len(rows)), (made, len(images)))
        ]
        found.append(means.positions(features[0], of_rows, features[1], labels, counts))
        progress(number + 1)
    return found


def _set_bias(
    classes: tuple[ClassOfData, ...],
    stored: int,
    labels: Tensor,
    of_images: Tensor,
    probe: Probe,
    placed: list[means.Positions],
) -> SetBias:
    num_classes, num_groups = len(classes), len(classes[0].counts)
    joint = torch.zeros(num_classes, num_groups, dtype=torch.float64).index_add_(0, labels, of_images).numpy()
    certainty, groups = of_images.max(1)
    aligned = groups == torch.tensor([one.majority for one in classes])[labels]
    position = torch.stack([one.position for one in placed])
    residual, coverage, of_random = (
        torch.stack([getattr(one, name) for one in placed]) for name in ("residual", "coverage", "of_random")
    )
    rows = []
    for y, one in enumerate(classes):
        row = ClassOfSet(
            images=int((labels == y).sum()),
            shares=None,
            majority_share=None,
            conflicting=None,
            entropy=None,
            position=_figure(position[:, y].mean()),
            position_std=_figure(position[:, y].std(correction=0)),
            residual=_figure(residual[:, y].mean()),
            coverage=tuple(map(_figure, coverage[:, y].mean(0))),
            coverage_of_random=tuple(map(_figure, of_random[:, y].mean(0))),
        )
        if probe.tells and row.images:
            shares = joint[y] / row.images
            row = replace(
                row,
                shares=tuple(shares.tolist()),
                majority_share=float(shares[one.majority]),
                conflicting=1 - float(aligned[labels == y].double().mean()),
                entropy=_entropy(shares),
            )
        rows.append(row)
    places = [row.position for row in rows if row.position is not None]
    majority = sum(joint[y, one.majority] for y, one in enumerate(classes)) / len(labels)
    return SetBias(
        classes=tuple(rows),
        images=len(labels),
        condensed_ratio=stored / sum(sum(one.counts) for one in classes),
        probe=probe,
        groups=tuple(groups.tolist()) if probe.tells else None,
        certainty=tuple(round(one, 4) for one in certainty.tolist()) if probe.tells else None,
        majority_share=float(majority) if probe.tells else None,
        conflicting=1 - float(aligned.double().mean()) if probe.tells else None,
        information=mutual_information(joint) if probe.tells else None,
        by_chance=information_by_chance(len(labels), num_classes, num_groups),
        position=float(np.mean(places)) if places else None,
        bounds=means.bounds(torch.stack([one.losses for one in placed])),
        nets=len(placed),
    )


def _figure(value: Tensor) -> float | None:
    return None if math.isnan(value) else value.item()


def _entropy(shares: np.ndarray) -> float:
    here = shares[shares > 0]
    return float(-(here * np.log2(here)).sum()) + 0.0  # no -0
