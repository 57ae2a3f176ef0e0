"""How embeddings become weights."""

import math
from dataclasses import dataclass

import torch

from fastdd import ops
from fastdd.core.text import one_of

# Its square root and its inverse are then far from the ends of float32.
_LEAST_VARIANCE, _LARGEST_VARIANCE = 1e-30, 1e30
SCORES = ("none", "median", "mean", "minmax")
SCOPES = ("class", "batch", "dataset")
DENSITIES = ("exact", "knn")
NORMALISATIONS = ("softmax", "sum")


@dataclass(frozen=True)
class KdeSettings:
    """How embeddings become weights. The defaults are measured (``fastdd study kde``): with an image's density in
    units of its class's median, a rare image counts at most exp((3 - 1) / 0.5) = 55 times as much as a common one.

    The paper as it is written is ``KdeSettings(temperature=0.1, score="none", clip=None)``: its weights rest on one or
    two images a class, as 1 / density reaches 0.8 n and exp(10 / density) leaves the largest alone.

    Attributes:
        variance: sigma^2 of the kernel, in squared units of the embedding (0.1, as published, for the unit sphere).
        temperature: of the softmax over scores; higher is more even.
        score: what a score is: ``none`` 1 / density as it is; ``median`` and ``mean`` 1 / density in units of that of
            its class; ``minmax`` scaled to 0..1 within the class.
        normalise: what makes a class's scores its weights: their ``softmax`` with ``temperature``, or each over their
            ``sum``, so that weights are in proportion to 1 / density (the paper: "such as softmax").
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
    normalise: str = "softmax"

    def __post_init__(self):
        for name in ("variance", "temperature", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, not {value}")
        if not _LEAST_VARIANCE <= self.variance <= _LARGEST_VARIANCE:
            raise ValueError(
                f"variance {self.variance:g} is not one of {_LEAST_VARIANCE:g} to {_LARGEST_VARIANCE:g}: scale the "
                "embeddings to rows of about unit length instead"
            )
        for name, known in (
            ("score", SCORES),
            ("scope", SCOPES),
            ("density", DENSITIES),
            ("normalise", NORMALISATIONS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; {one_of(getattr(self, name), known)}")
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
