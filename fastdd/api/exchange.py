"""``import`` and ``export``: synthetic sets from and for other projects, and fastdd's own from files."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastdd import exchange, models
from fastdd.api.device import pick_device
from fastdd.core import plugins
from fastdd.data import Dataset, SyntheticSet
from fastdd.exchange.importing import Imported, Origin, import_set
from fastdd.methods import METHODS, Settings, preset
from fastdd.session.folder import SYNTHETIC


def load_synthetic(path: str | os.PathLike) -> SyntheticSet:
    """The synthetic set in a file or in a run folder.

    Raises:
        FileNotFoundError: there is none.
        RuntimeError: the file is not one, or damaged.
        ValueError: it is another project's, which :func:`import_synthetic` reads.
    """
    path = Path(path)
    run = path / SYNTHETIC
    if (path.is_file() or not run.exists()) and path.exists() and exchange.is_foreign(path):
        raise ValueError(f"{path} is another project's: first fastdd import {path} --out FILE.safetensors")
    if path.is_dir():
        path = run
    if not path.exists():
        raise FileNotFoundError(f"no synthetic set at {path} (a run writes it when it ends; --resume continues one)")
    made = SyntheticSet.load(path)
    plugins.recall(made.metadata.get("plugins"))
    return made


def import_synthetic(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    dataset: str | os.PathLike | Dataset | None = None,
    root: str | os.PathLike | None = None,
    data_options: dict[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    method: str | None = None,
    debias: str | None = None,
    arch: str | None = None,
    labels: str = "probabilities",
    learning_rate: float | None = None,
    zca: bool = False,
    device: str = "auto",
    **options: Any,
) -> SyntheticSet:
    """A synthetic set of another project's, or one that :func:`export_synthetic` wrote. Nothing in the file is run.

    What images are normalised with is never guessed: it is in the file, or given by ``dataset`` or by ``mean`` and
    ``std``. Of a data set that published code has, it is that code's; of another, the data set's own.

    Args:
        path: file or folder.
        format: dc (DatasetCondensation and its forks), mtt (also TESLA, FTD, DATM), idc (also DREAM, NCFM), dcbench,
            npz, folder (of images), webdataset, hf or parquet; by default what the content looks like.
        dataset: that the set was distilled from: a name (``fastdd.data.available()``), a packed store, or the data set.
        root: folder of the publisher's files, which are read only if published code has no such data set, or to
            fit ``zca``.
        data_options: of the data set, such as ``bias_ratio``; the evaluation uses the same.
        mean, std: one value a channel, for pixels scaled to [0, 1].
        method, debias: what it was distilled with, as far as the file does not tell; debias is none by default.
        arch: network to evaluate it on; by default that in the file's name, or the preset's for the data set.
        labels: what soft labels are: probabilities, or logits whose softmax they are.
        learning_rate: step size learned with the images, in place of the file's.
        zca: the images are whitened: the published ZCA is fitted on ``dataset``.
        device: where ZCA is fitted.
        **options: of the format: experiment (dc: from 0, default the last), iteration (mtt: best or a number; idc:
            of a folder of steps), factor (dc, idc: multi-formation) and decoder (idc), ipc (dcbench).

    Returns:
        The set; ``metadata["source"]`` has the files with their SHA-256, published accuracies, and notes on what was
        chosen.

    Raises:
        FileNotFoundError: no such file, or no files of the data set where they are needed.
        ValueError: normalisation that is not known, content that is not of the format, settings that do not fit.
        RuntimeError: a damaged file, or one that would run code when it is read.
    """
    opened = dataset if isinstance(dataset, Dataset) else None
    origin = Origin(dataset if opened is None else opened.name, root, data_options, opened)
    imported = import_set(
        path,
        origin,
        format=format,
        mean=mean,
        std=std,
        method=method,
        debias=debias,
        labels=labels,
        learning_rate=learning_rate,
        zca=zca,
        device=pick_device(device) if zca else "cpu",
        **options,
    )
    return _to_evaluate(imported, arch)


def _to_evaluate(imported: Imported, arch: str | None) -> SyntheticSet:
    """An imported set with what it is evaluated with: as published, and on its own network."""
    metadata, notes = imported.synthetic.metadata, list(imported.notes)
    run = metadata.get("run")
    if not run:
        method, dataset = metadata.get("method"), metadata.get("dataset", "")
        method = method if method in METHODS else Settings.model_fields["method"].default
        shipped = preset(method, dataset, imported.stored_per_class, metadata["debias"])
        run = {name: shipped.get(name) for name in ("arch", "width", "depth", "dsa_strategy")}
        if arch is None and imported.model is not None:
            try:
                arch = models.canonical_name(imported.model)
            except ValueError:
                notes.append(f"{imported.model}, its network, is not known here: {run['arch']} is evaluated instead")
    if arch is not None:
        run |= {"arch": models.canonical_name(arch), "width": None, "depth": None}
    source = {**metadata["source"], "notes": notes}
    return replace(imported.synthetic, metadata={**metadata, "run": run, "source": source})


def export_synthetic(
    made: SyntheticSet | str | os.PathLike,
    path: str | os.PathLike,
    *,
    to: str,
    method: str | None = None,
    hard_labels: bool = False,
    force: bool = False,
) -> exchange.Export:
    """Write a synthetic set for another project. What pickled files hold is read by ``torch.load(weights_only=True)``.

    Args:
        made: the set, or the path of one or of a run folder.
        path: a file, or a folder; as the format has it.
        to: dc, mtt, idc, dcbench, folder, npz, webdataset (a .tar of samples), hf (a folder of the package datasets) or
            parquet, as :func:`import_synthetic` reads them. npz holds all that the set
            does; for the others what has no place is in ``fastdd.json`` beside, or in the file itself, for
            :func:`import_synthetic`.
        method: dcbench: under which method to put it; by default its own.
        hard_labels: leave soft labels out.
        force: replace files that are there.

    Returns:
        The files, and notes: what the reader must be told, and what is lost.

    Raises:
        ValueError: a set that the format can't hold, or a path that is taken.
        OSError: a file can't be written.
    """
    made = made if isinstance(made, SyntheticSet) else load_synthetic(made)
    if hard_labels:
        made = replace(made, soft_labels=None)
    return exchange.write(made, path, to, force=force, method=method)
