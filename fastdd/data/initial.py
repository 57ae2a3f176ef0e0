"""What a run starts from: first synthetic sets, which are also the baseline to beat, and a digest of the rest."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd import ops
from fastdd.core import rng
from fastdd.core.version import __version__
from fastdd.data import Dataset, Sampler, SyntheticSet, Zca
from fastdd.data.class_names import places

# What ``init`` can be besides the path of a stored set.
INITS = ("real", "balanced", "noise", "mix", "kmean")
_LISTED = 20


def check_ipc(dataset: Dataset, ipc: int, init: str) -> None:
    """ValueError for an IPC below 1, a class without real images, or, to start from real ones, too few in all classes.

    An IPC that some classes have images for is fine (:func:`first_images`); one that none has is a slip.
    """
    counts = _at_least_one(ipc, dataset)
    if not counts.min():
        name = dataset.class_names[int(counts.argmin())]
        raise ValueError(f"class {name!r} of {dataset.name} has no training images: there is nothing to condense")
    if init in ("real", "balanced") and counts.max() < ipc:
        raise ValueError(
            f"IPC {ipc} is larger than every class of {dataset.name}, the largest of which has {counts.max()} training "
            "images: lower it, or start from noise (init noise)"
        )


def small_classes(dataset: Dataset, ipc: int) -> str | None:
    """The classes with fewer than ``ipc`` real images, for people; None if there are none."""
    counts = _class_counts(dataset)
    small = [f"{dataset.class_names[number]!r} has {counts[number]}" for number in np.flatnonzero(counts < ipc)]
    more = [f"{len(small) - _LISTED} more have too few"] if len(small) > _LISTED else []
    return ", ".join([*small[:_LISTED], *more]) or None


def _at_least_one(ipc: int, dataset: Dataset) -> np.ndarray:
    if ipc < 1:
        raise ValueError(f"IPC must be at least 1, not {ipc}")
    return _class_counts(dataset)


def _class_counts(dataset: Dataset) -> np.ndarray:
    return np.bincount(dataset.train.labels, minlength=dataset.num_classes)


def describe(dataset: Dataset, ipc: int, zca: Zca | None = None, **more: object) -> dict:
    """Metadata to use a synthetic set without its run: normalisation (none with ``zca``), classes, origin."""
    return {
        "schema": 1,
        "dataset": dataset.name,
        "dataset_digest": dataset.digest(),
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean) if zca is None else [0.0] * dataset.channels,
        "std": list(dataset.std) if zca is None else [1.0] * dataset.channels,
        "provenance": dataset.provenance,
        "ipc": ipc,
        "versions": {"fastdd": __version__, "torch": torch.__version__},
        **more,
    }


def mosaics(images: Tensor, factor: int, size: tuple[int, int] | None = None) -> Tensor:
    """``factor`` x ``factor`` images, each shrunk to a part, in one: what multi-formation starts from (IDC, Kim et al.,
    ICML 2022; ``init=mix``).

    Parts take the nearest pixel; where ``factor`` does not divide a side, its first parts are a pixel larger, as
    published.

    Args:
        images: [factor^2 N, C, H, W]: first the N upper left parts, then the N to their right, and so on.
        size: of the results; None: that of the images.

    Returns:
        [N, C, *size], of images' dtype.

    >>> mosaics(torch.arange(4.0).view(4, 1, 1, 1).expand(-1, -1, 2, 2), 2)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    parts = images.unflatten(0, (factor**2, -1))
    result = parts.new_empty((*parts.shape[1:3], *(size or parts.shape[3:])))
    of_part = iter(parts)
    heights, widths = ([(side + factor - 1 - i) // factor for i in range(factor)] for side in result.shape[2:])
    for rows in result.split(heights, 2):
        for part in rows.split(widths, 3):
            part.copy_(F.interpolate(next(of_part), size=part.shape[2:]))
    return result


def random_set(
    dataset: Dataset,
    ipc: int,
    seed: int = 0,
    zca: Zca | None = None,
    *,
    balanced: bool = False,
) -> SyntheticSet:
    """``ipc`` random real images per class, class-major, normalised: the baseline, and the start of ``init=real``.

    With ``zca`` the same images, whitened by it. With ``balanced`` (``init=balanced``) every group that a class has
    gives as many, or all that it has (:class:`fastdd.data.Sampler`, ``stratified``).

    Raises:
        ValueError: a class with fewer than ``ipc`` images, or a ``zca`` of another size.
    """
    counts = _at_least_one(ipc, dataset)
    if counts.min() < ipc:
        raise ValueError(
            f"IPC {ipc} is larger than class {dataset.class_names[int(counts.argmin())]!r} of {dataset.name}, "
            f"which has {counts.min()} training images"
        )
    images, labels = _real_images(dataset, ipc, seed, zca, balanced)
    begun = {"init": "balanced"} if balanced else {}
    metadata = describe(dataset, ipc, zca, method="random", debias="none", seed=seed, **begun)
    return SyntheticSet(images, labels, metadata, zca=zca)


def _real_images(
    dataset: Dataset, ipc: int, seed: int, zca: Zca | None, balanced: bool, factor: int = 1
) -> tuple[Tensor, Tensor]:
    """Up to ``ipc`` real images a class, as :func:`random_set` has them, or mosaics of them, and their classes."""
    rows = _real_rows(dataset, ipc, seed, balanced, factor)
    pixels = dataset.train.images[rows.numpy()]
    if zca is not None:
        images = zca.whiten(pixels)
    else:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
        images = (torch.from_numpy(pixels).float() / 255 - mean) / std
    if factor == 1:
        return images, torch.as_tensor(dataset.train.labels)[rows].clone()
    mixed = [mosaics(of_class, factor) for of_class in images.chunk(dataset.num_classes)]
    return torch.cat(mixed), torch.arange(dataset.num_classes).repeat_interleave(ipc)


def _real_rows(dataset: Dataset, ipc: int, seed: int, balanced: bool, factor: int = 1) -> Tensor:
    """Rows of the training images that :func:`_real_images` takes, class by class."""
    labels, groups = torch.as_tensor(dataset.train.labels), torch.as_tensor(dataset.train.groups)
    mode = "stratified" if balanced else "random"
    sampler = Sampler(labels, groups, dataset.num_classes, dataset.num_groups, ipc * factor**2, mode=mode)
    rows = sampler.draw(rng.key(seed, "real-images"))
    if factor > 1:
        wanted = torch.arange(ipc * factor**2)
        rows = torch.cat([of_class[wanted % len(of_class)] for of_class in rows.split(sampler.counts.tolist())])
    return rows


def starting_groups(synthetic: SyntheticSet, dataset: Dataset) -> Tensor | None:
    """The protected group of the real image that every image of a set was at first, int64 [M].

    None where that can't be known: a set of other data, or one that did not start from single real images drawn at
    random (``balanced`` draws by groups that may be another's than the data set's). Nothing is stored for it: the draw
    is a function of the run's seed.
    """
    about = synthetic.metadata
    run, ipc, seed = about.get("run") or {}, about.get("ipc"), about.get("seed")
    # Methods that make images of crops or of noise have no init in their runs.
    init = about.get("init", "real") if about.get("method") == "random" else run.get("init")
    started = init == "real" and synthetic.formation == 1 and None not in (ipc, seed)
    if not started or about.get("dataset_digest") != dataset.digest() or (_class_counts(dataset) < ipc).any():
        return None
    if not torch.equal(synthetic.labels, torch.arange(dataset.num_classes).repeat_interleave(ipc)):
        return None
    return torch.as_tensor(dataset.train.groups)[_real_rows(dataset, ipc, seed, balanced=False)].clone()


def first_images(
    dataset: Dataset,
    ipc: int,
    seed: int,
    init: str,
    zca: Zca | None = None,
    *,
    factor: int = 1,
    as_noise: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What a run starts from: float32 [C * IPC, channels, H, W], class-major, normalised or whitened.

    Args:
        init: real or balanced, as :func:`random_set` draws them, or noise. A class with fewer real images than ``ipc``
            gives all that it has, and the rest of its images are noise: copies of real ones would get the same
            gradients at every step, and so stay copies. With mix, every image is of ``factor`` x ``factor`` real ones
            (:func:`mosaics`), of which a class that has too few gives some again. Another word is as real.
        as_noise: makes noise of standard normal numbers; None: these are it.

    Raises:
        ValueError: a class without real images, a ``zca`` of another size, or a ``factor`` larger than the images.
    """
    if init == "mix":
        ops.check_factor(factor, dataset.size)
    shape = (dataset.num_classes * ipc, dataset.channels, *dataset.size)
    short = init != "mix" and bool((_class_counts(dataset) < ipc).any())
    if init == "noise" or short:
        noise = rng.normal(rng.key(seed, "noise-images"), int(np.prod(shape))).view(shape)
        noise = noise if as_noise is None else as_noise(noise)
    if init == "noise":
        return noise
    real, labels = _real_images(dataset, ipc, seed, zca, init == "balanced", factor if init == "mix" else 1)
    if not short:
        return real
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    in_class = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels]
    noise[labels * ipc + in_class] = real
    return noise


def images_of_set(
    synthetic: SyntheticSet, dataset: Dataset, ipc: int, zca: Zca | None = None, factor: int = 1
) -> Tensor:
    """A stored set's images as a run on ``dataset`` starts from them (:func:`first_images`).

    Classes go by their names (:func:`fastdd.data.class_names.places`). Images that are normalised otherwise than
    ``dataset`` are converted; of the same normalisation, they are the same bits. Its labels are those of the classes:
    soft ones, and a learned step size, are not looked at.

    Raises:
        ValueError: images of another shape or of another ``factor`` of multi-formation, other classes, not ``ipc``
            images of each, values that are not finite, or another whitening than ``zca``.
    """
    images, metadata = synthetic.images, synthetic.metadata
    shape, wanted = list(images.shape[1:]), [dataset.channels, *dataset.size]
    if shape != wanted:
        raise ValueError(f"its images are {shape}, those of {dataset.name} are {wanted} (channels, height, width)")
    if synthetic.formation != factor:
        own = synthetic.formation
        raise ValueError(f"its images hold {own} x {own} each, those of the run {factor} x {factor}: give the factor")
    names = metadata["class_names"]
    if len(names) != dataset.num_classes:
        raise ValueError(f"it has {len(names)} classes, {dataset.name} has {dataset.num_classes}")
    place = places(names, dataset.class_names)
    if place is None:
        raise ValueError(
            f"classes go by their names, and its are called {names[0]!r} ..., those of {dataset.name} "
            f"{dataset.class_names[0]!r} ...: rename them"
        )
    labels = torch.tensor(place)[synthetic.labels]
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    if (counts != ipc).any():
        other = int((counts != ipc).nonzero()[0])
        cure = f": give an IPC of {counts[0]}" if (counts == counts[0]).all() and counts[0] else ""
        raise ValueError(
            f"it has {counts[other]} images of class {dataset.class_names[other]!r}, and the IPC is {ipc}{cure}"
        )
    if not images.isfinite().all():
        raise ValueError("some values of its images are not finite")
    if (synthetic.zca and synthetic.zca.digest()) != (zca and zca.digest()):
        kinds = "not whitened" if synthetic.zca is None else "whitened (ZCA)"
        here = "does not whiten" if zca is None else "whitens by the ZCA of its experts"
        raise ValueError(f"its images are {kinds}, and the run {here}: they have to be whitened alike")
    images = images[labels.argsort(stable=True)].clone()
    if zca is None and (metadata["mean"], metadata["std"]) != (list(dataset.mean), list(dataset.std)):
        own_mean, own_std, mean, std = (
            torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
            for values in (metadata["mean"], metadata["std"], dataset.mean, dataset.std)
        )
        images = ((images * own_std + own_mean - mean) / std).float()
    return images


def input_digest(
    dataset: Dataset,
    weights: np.ndarray | None,
    groups: np.ndarray | None,
    experts: str | None = None,
    initial: Tensor | None = None,
) -> str:
    """SHA-256 of everything besides the configuration that decides a run; ``experts`` by their own digest.

    ``initial``: the images that it starts from, where they are those of a stored set.
    """
    initial = None if initial is None else initial.numpy()
    arrays = [np.ascontiguousarray(values) for values in (weights, groups, initial) if values is not None]
    extra = [a.dtype.str.encode() + a.tobytes() for a in arrays]
    if experts is not None:
        extra.append(experts.encode())
    if not extra:
        return dataset.digest()
    return hashlib.sha256(b"".join([dataset.digest().encode(), *extra])).hexdigest()
