"""From another project's file, and what the user knows of it, to a synthetic set."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fastdd import data as datasets
from fastdd import exchange
from fastdd.core.version import __version__
from fastdd.data import Dataset, SyntheticSet, Zca
from fastdd.exchange.found import Found
from fastdd.exchange.published import Published

Constants = tuple[Sequence[float] | None, Sequence[float] | None]


@dataclass(frozen=True)
class Origin:
    """The data set that a set was distilled from, as far as it is known.

    Args:
        name: of the catalog, or the folder of a packed store; None: unknown.
        root: folder of the publisher's files.
        options: the data set's own, such as ``bias_ratio``.
        dataset: the data set, where it is opened.

    Raises:
        ValueError: an option that the data set does not have.
    """

    name: str | os.PathLike | None
    root: str | os.PathLike | None = None
    options: Mapping[str, Any] | None = None
    dataset: Dataset | None = None

    def __post_init__(self):
        if self.name is not None and self.dataset is None:
            for option in set(self.options or {}) - set(datasets.options(self.name)):
                raise ValueError(f"{self.name} has no {option}: leave it out")

    def opened(self) -> "Origin":
        """With the data set, which is loaded; itself where it is open, or not known."""
        if self.name is None or self.dataset is not None:
            return self
        return replace(self, dataset=datasets.load(self.name, self.root, **(self.options or {})))

    def describe(self) -> dict[str, Any]:
        """The metadata of a set that tell of it."""
        if self.name is None:
            return {}
        if self.dataset is not None:
            return {"dataset": self.dataset.name, "provenance": self.dataset.provenance}
        options = {name: value for name, value in (self.options or {}).items() if value is not None}
        return {"dataset": self.name, "provenance": {"parameters": options}}


@dataclass(frozen=True)
class Imported:
    """A set from elsewhere.

    Attributes:
        synthetic: the set; its metadata do not say yet what it is evaluated with.
        model: the network that its file or its name tells, as its project calls it.
        stored_per_class: images that are stored for a class: its IPC, where classes have as many.
        notes: what the user should know.
    """

    synthetic: SyntheticSet
    model: str | None
    stored_per_class: int
    notes: list[str]


def import_set(
    path: str | os.PathLike,
    origin: Origin,
    *,
    format: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    method: str | None = None,
    debias: str | None = None,
    labels: str = "probabilities",
    learning_rate: float | None = None,
    zca: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Imported:
    """Read a set, find what its images are normalised with, and put it together.

    Arguments and errors are those of :func:`fastdd.import_synthetic`. The data set is opened only where ZCA is fitted
    on it, or where nothing else tells the normalisation.
    """
    if (mean is None) != (std is None):
        raise ValueError("mean and std go together: give both or neither")
    if zca and origin.name is None:
        raise ValueError("ZCA is fitted on a data set: give --dataset")
    format, found = exchange.read(path, format, hints={"dataset": origin.name, "method": method}, **options)
    if found.whitened and not zca:
        raise ValueError(f"the images of {path} are whitened: give --zca, and the --dataset that it is fitted on")
    record, published = found.record or {}, exchange.constants(str(origin.name), format)
    constants = _told_constants((mean, std), record, published)
    if zca or constants[0] is None:
        origin = origin.opened()
    if constants[0] is None and origin.dataset is not None:
        constants = origin.dataset.mean, origin.dataset.std
    if constants[0] is None and not zca:
        raise exchange.unknown_normalisation(format, found)
    known = origin.dataset or published
    if found.class_names is None and record.get("class_names"):
        found.class_names = tuple(record["class_names"])
    source, model = _source(format, found), found.about.pop("model", None)
    metadata = {
        **found.about,
        **record,
        "source": source,
        "debias": debias or record.get("debias", "none"),
        "versions": {"fastdd": __version__, "torch": torch.__version__},
        **({} if method is None else {"method": method}),
        **origin.describe(),
    }
    synthetic = exchange.assemble(
        found,
        mean=constants[0],
        std=constants[1],
        class_names=tuple(known.class_names if known else record.get("class_names", ())) or None,
        labels=labels,
        learning_rate=learning_rate,
        zca=_fitted(origin, found, device) if zca else None,
        metadata=metadata,
    )
    return _counted(synthetic, model, found)


def _told_constants(given: Constants, record: Mapping[str, Any], published: Published | None) -> Constants:
    """Mean and std as the user, else the file, else its project has them: a name says only what is usual."""
    if given[0] is not None:
        return given
    if record.get("mean") is not None:
        return record["mean"], record.get("std")
    return (None, None) if published is None else (published.mean, published.std)


def _fitted(origin: Origin, found: Found, device: torch.device | str) -> Zca:
    zca = Zca.fit(origin.dataset.train.images, device=device)
    if isinstance(found.whitened, str) and found.whitened != zca.digest():
        found.notes.append("ZCA as fitted here is not, bit for bit, that of the images")
    return zca


def _source(format: str, found: Found) -> dict[str, Any]:
    files = exchange.describe_files(found.files)
    return {"format": format, "files": files, **found.about.pop("source", {})}


def _counted(synthetic: SyntheticSet, model: str | None, found: Found) -> Imported:
    """With its IPC, where all classes have as many images."""
    metadata = synthetic.metadata
    counts = torch.bincount(synthetic.labels, minlength=len(metadata["class_names"]))
    stored = metadata["source"].get("stored", len(synthetic.labels)) / len(counts)
    if counts.min() == counts.max():
        metadata["ipc"] = round(stored)
    return Imported(synthetic, model, max(1, round(stored)), found.notes)
