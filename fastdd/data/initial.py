"""What a run starts from: first synthetic sets, which are also the baseline to beat, and a digest of the rest."""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdd.core import rng
from fastdd.core.version import __version__
from fastdd.data import Dataset, Sampler, SyntheticSet, Zca


def check_ipc(dataset: Dataset, ipc: int) -> None:
    """ValueError if a class has fewer than ``ipc`` real images."""
    counts = dataset.train.counts(dataset.num_classes, dataset.num_groups).sum(1)
    smallest = int(counts.argmin())
    if ipc < 1:
        raise ValueError(f"IPC must be at least 1, not {ipc}")
    if counts[smallest] < ipc:
        raise ValueError(
            f"IPC {ipc} is larger than class {dataset.class_names[smallest]!r} of {dataset.name}, "
            f"which has {counts[smallest]} training images"
        )


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


def mosaics(images: Tensor, factor: int) -> Tensor:
    """``factor`` x ``factor`` images, each shrunk to a part, in one: what multi-formation starts from (IDC, Kim et al.,
    ICML 2022; ``init=mix``).

    Parts take the nearest pixel; where ``factor`` does not divide a side, its first parts are a pixel larger, as
    published.

    Args:
        images: [factor^2 N, C, H, W]: first the N upper left parts, then the N to their right, and so on.

    Returns:
        [N, C, H, W], of images' dtype.

    >>> mosaics(torch.arange(4.0).view(4, 1, 1, 1).expand(-1, -1, 2, 2), 2)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    parts = images.unflatten(0, (factor**2, -1))
    result = torch.empty_like(parts[0])
    of_part = iter(parts)
    heights, widths = ([(side + factor - 1 - i) // factor for i in range(factor)] for side in images.shape[2:])
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
    factor: int = 1,
) -> SyntheticSet:
    """``ipc`` random real images per class, class-major, normalised: the baseline, and the start of ``init=real``.

    With ``zca`` the same images, whitened by it. With ``balanced`` (``init=balanced``) every group that a class has
    gives as many, or all that it has (:class:`fastdd.data.Sampler`, ``stratified``). With a ``factor`` (``init=mix``)
    every image is of ``factor`` x ``factor`` real ones (:func:`mosaics`); a class that has too few gives some again.

    Raises:
        ValueError: a class with fewer than ``ipc`` images, or a ``zca`` of another size.
    """
    check_ipc(dataset, ipc)
    labels, groups = torch.as_tensor(dataset.train.labels), torch.as_tensor(dataset.train.groups)
    mode = "stratified" if balanced else "random"
    sampler = Sampler(labels, groups, dataset.num_classes, dataset.num_groups, ipc * factor**2, mode=mode)
    rows = sampler.draw(rng.key(seed, "real-images"))
    if factor > 1:
        wanted = torch.arange(ipc * factor**2)
        rows = torch.cat([of_class[wanted % len(of_class)] for of_class in rows.split(sampler.counts.tolist())])
    pixels = dataset.train.images[rows.numpy()]
    if zca is not None:
        images = zca.whiten(pixels)
    else:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
        images = (torch.from_numpy(pixels).float() / 255 - mean) / std
    if factor > 1:
        images = torch.cat([mosaics(of_class, factor) for of_class in images.chunk(dataset.num_classes)])
    metadata = describe(dataset, ipc, zca, method="random", debias="none", seed=seed)
    classes = labels[rows].view(dataset.num_classes, -1)[:, :ipc] if factor > 1 else labels[rows]
    return SyntheticSet(images, classes.flatten().clone(), metadata, zca=zca)


def input_digest(
    dataset: Dataset, weights: np.ndarray | None, groups: np.ndarray | None, experts: str | None = None
) -> str:
    """SHA-256 of everything besides the configuration that decides a run; ``experts`` by their own digest."""
    arrays = [np.ascontiguousarray(values) for values in (weights, groups) if values is not None]
    extra = [a.dtype.str.encode() + a.tobytes() for a in arrays]
    if experts is not None:
        extra.append(experts.encode())
    if not extra:
        return dataset.digest()
    return hashlib.sha256(b"".join([dataset.digest().encode(), *extra])).hexdigest()
