"""KDE reweighting: images count by how rare they are in their class, so that no group of them has to be known.

"Mitigating Bias in Dataset Distillation" (sections 4.1 and 4.2): weights N(1 / density) of the training images. No
public code exists; what the paper leaves open (its score, the cut-off score of its appendix A.6) is an option here.
"""

import itertools
import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd import ops
from fastdd.core import ranks, rng
from fastdd.core.files import write_atomic
from fastdd.core.version import __version__
from fastdd.data import Dataset

SCORES = ("none", "median", "mean", "minmax")
SCOPES = ("class", "batch", "dataset")
DENSITIES = ("exact", "knn")
SCHEMA = 1
_KEY = "fastdd-weights"
# Fewer images than this, in effect, are no sample of a class.
_LEAST_ESS = 5.0
# Four bins a decade of n * w, which is 1 for every image where all count alike.
_EDGES = 10.0 ** (np.arange(-16, 17) / 4)


@dataclass(frozen=True)
class KdeSettings:
    """How embeddings become weights. The defaults are measured (``bench/studies/kde.py``): with an image's density in
    units of its class's median, a rare image counts at most exp((3 - 1) / 0.5) = 55 times as much as a common one.

    The paper as it is written is ``KdeSettings(temperature=0.1, score="none", clip=None)``: its weights rest on one or
    two images a class, as 1 / density reaches 0.8 n and exp(10 / density) leaves the largest alone.

    Attributes:
        variance: sigma^2 of the kernel, in squared units of the embedding (0.1, as published, for the unit sphere).
        temperature: of the softmax over scores; higher is more even.
        score: what a score is: ``none`` 1 / density as it is; ``median`` and ``mean`` 1 / density in units of that of
            its class; ``minmax`` scaled to 0..1 within the class.
        clip: largest score, in the units of ``score``; None for no limit.
        scope: the images that an image's density, and its score's units, are taken over: its ``class``; a ``batch`` of
            its class; or the whole ``dataset``, where a bias that classes share hides what is rare within each.
        density: ``exact``, or ``knn`` (FAISS), which comes with a bound.
        k: neighbours, for ``knn``.
        batch: images, for scope ``batch``.
        seed: of the batches, and of the far field's sample of ``knn``.

    Raises:
        ValueError: a value out of its range, or an unknown name.
    """

    variance: float = 0.1
    temperature: float = 0.5
    score: str = "median"
    clip: float | None = 3.0
    scope: str = "class"
    density: str = "exact"
    k: int = 256
    batch: int = 256
    seed: int = 0

    def __post_init__(self):
        for name in ("variance", "temperature", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, not {value}")
        for name, known in (("score", SCORES), ("scope", SCOPES), ("density", DENSITIES)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; one of: {', '.join(known)}")
        if self.k < 1:
            raise ValueError(f"k must be at least 1 neighbour, not {self.k}")
        if self.batch < 2:
            raise ValueError(f"batch must be at least 2 images, not {self.batch}")

    def check_backend(self, device: torch.device) -> None:
        """RuntimeError, with the cure, where density ``knn`` can't run on the device."""
        if self.density == "knn":
            row = next(row for row in ops.implementations(device.type) if row.op == "knn_kde")
            if row.active != "faiss":
                raise RuntimeError(f"density knn: {row.others['faiss']}; density exact needs no package")


@dataclass(frozen=True)
class Diagnostics:
    """What weights do to every class.

    Attributes:
        counts: images, int [C].
        ess: effective sample size (sum w)^2 / sum w^2: n where all count alike, 1 where one counts alone; [C].
        largest: the largest n * w, [C].
        edges: of the histogram's bins, n * w, log-spaced, [B + 1]; the first and last bin take what is beyond.
        histogram: images per class and bin, int [C, B].
        conflict_share: of bias-conflicting images, those outside the largest group of their class; [C]. None where no
            groups are known.
        conflict_mass: weight on them, [C]; likewise.
        conflict_histogram: ``histogram`` of them alone; likewise.
        gap: how far apart the bounds of the density are at worst, in nats; None for an exact one.
    """

    counts: list[int]
    ess: list[float]
    largest: list[float]
    edges: list[float]
    histogram: list[list[int]]
    conflict_share: list[float] | None = None
    conflict_mass: list[float] | None = None
    conflict_histogram: list[list[int]] | None = None
    gap: float | None = None


def diagnose(
    weights: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, gap: float | None = None
) -> Diagnostics:
    """The :class:`Diagnostics` of weights [N] of images with labels int64 [N] and, where known, groups int64 [N].

    Weights of any scale: they are normalised over each class first.

    >>> made = diagnose(np.array([1.0, 1.0, 2.0]), np.zeros(3, np.int64), np.array([0, 0, 1]))
    >>> made.ess, made.conflict_mass
    ([2.6666666666666665], [0.5])
    """
    check_weights(weights, len(labels), labels)
    counts, ess, largest, histogram = [], [], [], []
    share, mass, of_conflicting = [], [], []

    def bins(values: np.ndarray) -> list[int]:
        inside = np.clip(values, _EDGES[0], np.nextafter(_EDGES[-1], 0))
        return np.histogram(inside, _EDGES)[0].tolist()

    for label in range(int(labels.max()) + 1):
        own = labels == label
        w = weights[own].astype(np.float64)
        w /= w.sum()
        counts.append(len(w))
        ess.append(float(1 / (w**2).sum()))
        largest.append(float(len(w) * w.max()))
        histogram.append(bins(len(w) * w))
        if groups is not None:
            conflicting = groups[own] != np.bincount(groups[own]).argmax()
            share.append(float(conflicting.mean()))
            mass.append(float(w[conflicting].sum()))
            of_conflicting.append(bins(len(w) * w[conflicting]))
    known = (share, mass, of_conflicting) if groups is not None else (None, None, None)
    return Diagnostics(counts, ess, largest, _EDGES.tolist(), histogram, *known, gap)


@dataclass(frozen=True, eq=False)
class KdeWeights:
    """Weights of a data set's training images, and what they were made of.

    Attributes:
        weights: float32 [N], at least 0; they sum to 1 over every class.
        log_density: float32 [N], log of the paper's equation 3 within the scope.
        embeddings: float32 [N, D].
        metadata: JSON-able: ``kde`` (the settings), ``gap``, ``versions``; of :func:`fastdd.kde_weights` also
            ``dataset``, ``dataset_digest``, ``embedding`` and ``diagnostics``.
    """

    weights: np.ndarray
    log_density: np.ndarray
    embeddings: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)

    def diagnostics(self, labels: np.ndarray, groups: np.ndarray | None = None) -> Diagnostics:
        """What they do to every class; ``groups``, int64 [N], where known, tell the bias-conflicting images."""
        return diagnose(self.weights, labels, groups, self.metadata.get("gap"))

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file, atomically; equal content gives equal bytes.

        Raises:
            OSError: naming the file; it is then as it was.
        """
        from safetensors.numpy import save

        names = ("weights", "log_density", "embeddings")
        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in names}
        metadata = json.dumps({**self.metadata, "schema": SCHEMA}, sort_keys=True, allow_nan=False)
        content = save(tensors, metadata={_KEY: metadata})
        write_atomic(path, lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "KdeWeights":
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: naming it: truncated, not a safetensors file, not weights, or a newer schema.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there are no weights {path}")
        try:
            with safe_open(path, "numpy") as file:
                text = (file.metadata() or {}).get(_KEY)
                if text is None:
                    raise RuntimeError(f"{path} is a safetensors file but has no weights of fastdd")
                metadata = json.loads(text)
                if (schema := metadata.pop("schema", None)) != SCHEMA:
                    raise RuntimeError(f"{path} has the schema {schema}, this version reads {SCHEMA}")
                made = cls(*(file.get_tensor(name) for name in ("weights", "log_density", "embeddings")), metadata)
            check_weights(made.weights, len(made.embeddings))
        except (SafetensorError, ValueError, AttributeError) as error:
            raise RuntimeError(f"{path} is damaged, or no safetensors file: {error}") from None
        return made


def check_weights(weights: np.ndarray, n: int, labels: np.ndarray | None = None) -> None:
    """ValueError unless weights are real numbers [n], finite, at least 0 and not all 0, in no class of ``labels``."""
    if weights.dtype.kind not in "fiu" or weights.shape != (n,):
        raise ValueError(f"weights must be numbers [{n}], one a training image, not {weights.dtype} {weights.shape}")
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(wrong):
        raise ValueError(f"weights must be finite and at least 0; that of row {wrong[0]} is {weights[wrong[0]]}")
    if not weights.any():
        raise ValueError("weights are all 0")
    if labels is not None:
        sums = np.bincount(labels, weights)
        empty = np.flatnonzero((sums == 0) & (np.bincount(labels) > 0))
        if len(empty):
            raise ValueError(f"all weights of class {empty[0]} are 0")


def load_weights(path: str | os.PathLike, dataset: Dataset) -> np.ndarray:
    """Weights float32 [N] of the data set's training images, from a file of :meth:`KdeWeights.save` or a ``.npy``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of another data set, or that are no weights (:func:`check_weights`), naming the file.
        RuntimeError: a file that can't be read.
    """
    path = Path(path)
    weights = load_array(path) if path.suffix == ".npy" else _load_of(path, dataset).weights
    try:
        check_weights(weights, len(dataset.train), dataset.train.labels)
    except ValueError as error:
        raise ValueError(f"{path}, for {dataset.name}: {error}") from None
    return weights.astype(np.float32)


def load_embeddings(path: str | os.PathLike, dataset: Dataset) -> np.ndarray:
    """Embeddings [N, D] of the data set's training images, from a file of :meth:`KdeWeights.save` or a ``.npy``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another data set.
        RuntimeError: a file that can't be read.
    """
    path = Path(path)
    return load_array(path) if path.suffix == ".npy" else _load_of(path, dataset).embeddings


def _load_of(path: Path, dataset: Dataset) -> KdeWeights:
    made = KdeWeights.load(path)
    digest = made.metadata.get("dataset_digest")
    if digest is not None and digest != dataset.digest():
        raise ValueError(
            f"{path} is of {made.metadata.get('dataset')} with digest {digest[:12]}, "
            f"not of this {dataset.name} with digest {dataset.digest()[:12]}"
        )
    return made


def load_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RuntimeError(f"{path} is not a .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray):
        raise RuntimeError(f"{path} holds several arrays; save one with numpy.save")
    return array


def check_embeddings(embeddings: np.ndarray | Tensor, n: int) -> Tensor:
    """float32 [N, D] on its device; ValueError unless it is finite numbers, one row for each of the n images."""
    tensor = embeddings.detach() if isinstance(embeddings, Tensor) else torch.from_numpy(np.asarray(embeddings))
    if tensor.dim() != 2 or len(tensor) != n or tensor.shape[1] == 0 or tensor.is_complex():
        raise ValueError(f"embeddings must be [{n}, D], one row a training image, not {list(tensor.shape)}")
    tensor = tensor.to(torch.float32)
    wrong = (~tensor.isfinite().all(1)).nonzero()
    if len(wrong):
        raise ValueError(f"embeddings must be finite; row {int(wrong[0])} is not ({len(wrong)} rows in all)")
    return tensor


def check_labels(labels: np.ndarray) -> None:
    """ValueError for a class with fewer than 2 samples: nothing can be rare in it."""
    counts = np.bincount(labels)
    few = np.flatnonzero(counts < 2)
    if len(few):
        raise ValueError(f"class {few[0]} has {counts[few[0]]} training images; a density needs at least 2")


def _segments(labels: np.ndarray, settings: KdeSettings) -> tuple[Tensor, Tensor]:
    """Rows sorted by the segment that their density is taken over, int64 [N], and the segments' offsets."""
    classes = torch.from_numpy(labels)
    if settings.scope == "dataset":
        return torch.arange(len(labels)), torch.tensor([0, len(labels)])
    order = torch.argsort(classes, stable=True)
    counts = torch.bincount(classes)
    if settings.scope == "class":
        return order, torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    parts, sizes = [], []
    for label, rows in enumerate(order.split(counts.tolist())):
        rows = rows[rng.permutation(rng.key(settings.seed, "kde-batches", label), len(rows))]
        batches = rows.tensor_split(-(-len(rows) // settings.batch))  # even sizes
        parts += batches
        sizes += [len(batch) for batch in batches]
    return torch.cat(parts), torch.tensor([0, *sizes]).cumsum(0)


def _log_density(rows: Tensor, offsets: Tensor, settings: KdeSettings) -> tuple[Tensor, float | None]:
    """Of equation 3, float64, and the gap of its bounds. Each rank takes some rows, against all of their segments."""
    bandwidth, gap = math.sqrt(settings.variance), None
    first, last = _own_rows(offsets.tolist(), settings.density == "exact" and rows.device.type == "cpu")
    if settings.density == "knn":
        made = ops.knn_kde(
            rows, bandwidth=bandwidth, k=settings.k, offsets=offsets, seed=settings.seed, rows=(first, last)
        )
        density, gap = made.log_density, max(ranks.exchange(made.gap))
    else:
        density = _exact(rows, offsets, first, last, bandwidth)
    if ranks.world() > 1:
        density = torch.from_numpy(np.concatenate(ranks.exchange(density.cpu().numpy())))
    # The paper's kernel has the normalisation of one dimension, whatever D.
    per_dimension = math.log(bandwidth) + math.log(2 * math.pi) / 2
    return density.double().cpu() + (rows.shape[1] - 1) * per_dimension, gap


def _exact(rows: Tensor, offsets: Tensor, first: int, last: int, bandwidth: float) -> Tensor:
    """Log-density of rows first..last-1, each against all of its segment."""
    parts, whole = [], []
    for start, end in itertools.pairwise(offsets.tolist()):
        if first <= start and end <= last:
            whole += [start, end]
        elif first < end and start < last:
            queries = rows[max(first, start) : min(last, end)]
            parts.append((max(first, start), ops.kde(rows[start:end], queries, bandwidth=bandwidth)))
    if whole:
        own = torch.tensor([whole[0], *whole[1::2]], device=rows.device) - whole[0]
        parts.append((whole[0], ops.kde(rows[whole[0] : whole[-1]], bandwidth=bandwidth, offsets=own)))
    return torch.cat([rows.new_empty(0), *(part for _, part in sorted(parts, key=lambda part: part[0]))])


def _own_rows(ends: list[int], symmetric: bool) -> tuple[int, int]:
    """The rows whose densities this rank takes: those of whole segments, where there are enough of them.

    ``symmetric``: a pair within a segment is computed once for both its rows, but not where the segment is cut, which
    so pays off for three ranks and more.
    """
    sizes = np.diff(ends)
    if len(sizes) * (1 + symmetric) >= ranks.world():
        own = ranks.share((sizes.astype(float) ** 2).tolist())[ranks.rank()]
        return ends[own.start], ends[own.stop]
    own = ranks.share(sizes.repeat(sizes).tolist())[ranks.rank()]
    return own.start, own.stop


def _scores(log_density: Tensor, settings: KdeSettings) -> Tensor:
    """1 / density of the images of a segment in the units of ``score``, clipped; float64, from logarithms.

    An image is in its own density, as in equation 3, so 1 / density is at most n / K(0) and nothing overflows.
    """
    logs = -log_density
    if settings.score == "median":
        logs = logs - logs.quantile(0.5)
    elif settings.score == "mean":
        logs = logs - (logs.logsumexp(0) - math.log(len(logs)))
    elif settings.score == "minmax":
        relative = (logs - logs.max()).exp()
        spread = relative - relative.min()
        logs = (spread / spread.max().clamp(min=torch.finfo(torch.float64).tiny)).log()
    if settings.clip is not None:
        logs = logs.clamp(max=math.log(settings.clip))
    return logs.exp()


def kde_weights(
    embeddings: np.ndarray | Tensor,
    labels: np.ndarray,
    *,
    class_names: Sequence[str] | None = None,
    **settings: Any,
) -> KdeWeights:
    """Weights that count images of a class by how rare they are in it: softmax(clip(1 / density) / temperature).

        f(x_i) = (1/n) sum_j exp(-|z_i - z_j|^2 / (2 sigma^2)) / (sigma sqrt(2 pi))     (equation 3)
        w_i = softmax over the class of min(s_i, clip) / temperature,  s_i = 1 / f(x_i) in units of ``score``

    An image is in its own density, as in the equation: without itself, one that is alone would have no density at all.
    The ranks of a job share the densities and all return the same weights. A class's weights are normalised over the
    class. A batch of the class takes them in proportion, which is the
    softmax over that batch.

    Args:
        embeddings: [N, D], one row a training image; :func:`fastdd.debias.density.embedding.train` makes them.
        labels: int64 [N].
        class_names: for messages.
        **settings: of :class:`KdeSettings`: variance, temperature, score, clip, scope, density, k, batch, seed.

    Raises:
        ValueError: a setting out of range, embeddings of another length, not 2-D or not finite, a class with fewer
            than 2 images.
        RuntimeError: density ``knn`` without FAISS.

    Warns:
        RuntimeWarning: a class whose weights amount to fewer than 5 images.

    Deterministic. On several ranks the same bits as on one where each takes whole segments (classes, batches), as is so
    while there are as many segments as ranks; else equal to rounding, as are those of density ``knn``. Cost: the
    density's, n^2 D / 2 multiply-adds a class on the CPU (C-MNIST: 0.2 s on two cores).

    >>> z = np.array([0.0] * 18 + [1.0] * 2)[:, None]
    >>> weights = kde_weights(z, np.zeros(20, np.int64), clip=2.0).weights
    >>> weights[[0, -1]].round(3), (weights[-1] / weights[0]).round(2), np.exp((2 - 1) / 0.5).round(2)
    (array([0.031, 0.225], dtype=float32), np.float32(7.39), np.float64(7.39))
    """
    chosen = KdeSettings(**settings)
    check_labels(labels)
    rows = check_embeddings(embeddings, len(labels))
    chosen.check_backend(rows.device)
    order, offsets = _segments(labels, chosen)
    sorted_density, gap = _log_density(rows[order.to(rows.device)], offsets.to(rows.device), chosen)
    scores = torch.empty_like(sorted_density)
    log_density = torch.empty_like(sorted_density)
    log_density[order] = sorted_density
    scores[order] = torch.cat([_scores(part, chosen) for part in sorted_density.split(offsets.diff().tolist())])
    weights = torch.empty_like(scores)
    for label in range(int(labels.max()) + 1):
        own = torch.from_numpy(labels == label)
        # The largest first: differences can't overflow, however low the temperature.
        weights[own] = torch.softmax((scores[own] - scores[own].max()) / chosen.temperature, 0)
    metadata = {
        "kde": asdict(chosen),
        "gap": gap,
        "versions": {"fastdd": __version__, "torch": torch.__version__},
    }
    made = KdeWeights(weights.float().numpy(), log_density.float().numpy(), rows.cpu().numpy(), metadata)
    _warn(made.diagnostics(labels), class_names)
    return made


def _warn(diagnostics: Diagnostics, class_names: Sequence[str] | None) -> None:
    few = [label for label, ess in enumerate(diagnostics.ess) if ess < _LEAST_ESS]
    if few:
        worst = min(few, key=lambda label: diagnostics.ess[label])
        name = worst if class_names is None else class_names[worst]
        rest = f" ({len(few)} classes have fewer than {_LEAST_ESS:g})" if len(few) > 1 else ""
        warnings.warn(
            f"the weights of class {name} amount to {diagnostics.ess[worst]:.1f} of its {diagnostics.counts[worst]} "
            f"images{rest}: raise the temperature, or lower clip",
            RuntimeWarning,
            stacklevel=3,
        )
