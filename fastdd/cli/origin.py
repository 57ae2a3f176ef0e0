"""The data set that a run, a synthetic set or a network was made from, where a command is not given one."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastdd import data as datasets
from fastdd.cli.datasets import load_dataset
from fastdd.data import Dataset, SyntheticSet
from fastdd.session.folder import CONFIG, read_config, store_of_run
from fastdd.session.trained import StoredNetwork


def with_dataset(
    target: str, synthetic: SyntheticSet, dataset: str | None, data_root: Path | None, options: dict[str, Any]
) -> Dataset:
    """The data set that the options name, else the one that the set at ``target`` was made from."""
    if dataset is None:
        return _own_dataset(target, synthetic, data_root, options)
    if dataset in (synthetic.metadata.get("dataset"), datasets.registered_name(synthetic.metadata)):
        options = datasets.built_with(synthetic.metadata, dataset) | options
    return load_dataset(dataset, data_root, options)


def warn_of_other_data(data: Dataset, digest: str | None, target: object) -> None:
    """A warning where the data set is not the one of the digest."""
    if data.digest() != digest:
        warnings.warn(f"{data.name} is not, bit for bit, what {target} was made from", stacklevel=3)


def _own_dataset(target: str, synthetic: SyntheticSet, data_root: Path | None, options: dict[str, Any]) -> Dataset:
    """The data set that a set was made from: the packed store that its run names, or that of its metadata's name."""
    name, store, known = (
        synthetic.metadata.get("dataset"),
        store_of_run(target),
        datasets.registered_name(synthetic.metadata),
    )
    if store is None:
        if name is not None and known is None:
            raise ValueError(
                f"{target} is of {name!r}, which is no data set's name here: give the packed store that it was made "
                "from, --dataset STORE (fastdd.data.save_store writes one)"
            )
        own = {} if known is None else datasets.built_with(synthetic.metadata, known)
        return load_dataset(known, data_root, own | options)
    if options or not datasets.is_store(store):
        data = _by_name(known, data_root, synthetic.metadata, options)
        if data is None:
            raise ValueError(
                f"{target} was made from the packed store {store}, which is not there: give --dataset STORE"
            )
    else:
        data = load_dataset(str(store), None, {})
    warn_of_other_data(data, synthetic.metadata.get("dataset_digest"), target)
    return data


def _by_name(
    name: str | None, data_root: Path | None, metadata: Mapping[str, Any], options: dict[str, Any]
) -> Dataset | None:
    """The data set of a name; None where there is none, or its files are not here."""
    if name is None:
        return None
    try:
        return load_dataset(name, data_root, datasets.built_with(metadata, name) | options)
    except FileNotFoundError:
        return None


def dataset_of_run(folder: Path) -> str | None:
    """What ``--dataset`` was for the run of a folder, to go on with it: its packed store, or its data set's name.

    Other data of the name are told by the run's digest.
    """
    if not (folder / CONFIG).exists():
        return None
    store = store_of_run(folder)
    if store is None:
        return read_config(folder / CONFIG)["run"].get("dataset")
    if not datasets.is_store(store):
        raise ValueError(f"{folder} was made from the packed store {store}, which is not there: give --dataset STORE")
    return str(store)


def dataset_of_network(
    stored: StoredNetwork, dataset: str | None, data_root: Path | None, options: dict[str, Any]
) -> Dataset:
    """The data set that the options name, else the one that a network's file says it was trained for."""
    of = stored.about.get("data")
    if dataset is not None or not isinstance(of, dict):
        return load_dataset(dataset, data_root, options)
    store, known = of.get("store"), datasets.registered_name({"dataset": of.get("name"), "provenance": of})
    if store is not None and not options and datasets.is_store(store):
        data = load_dataset(store, None, {})
        warn_of_other_data(data, of.get("digest"), stored.path)
        return data
    if known is None:
        where = (
            f"the packed store {store}, which is not there"
            if store
            else f"{of.get('name')!r}, which is no data set's name here"
        )
        raise ValueError(f"{stored.path} was trained on {where}: give --dataset STORE")
    return load_dataset(known, data_root, datasets.built_with({"provenance": of}, known) | options)
