"""Data sets with a protected attribute, the packed store, the sampler and the synthetic set."""

from fastdd.data.catalog import (
    available,
    build,
    built_with,
    image_paths,
    load,
    objects_in,
    options,
    published_counts,
    registered_name,
)
from fastdd.data.dataset import Dataset, Split
from fastdd.data.device import DeviceImages
from fastdd.data.files.store import check_store, is_store, open_store, save_store
from fastdd.data.sampler import Sampler
from fastdd.data.synthetic import SyntheticSet
from fastdd.data.zca import Zca

__all__ = [
    "Dataset",
    "DeviceImages",
    "Sampler",
    "Split",
    "SyntheticSet",
    "Zca",
    "available",
    "build",
    "built_with",
    "check_store",
    "image_paths",
    "is_store",
    "load",
    "objects_in",
    "open_store",
    "options",
    "published_counts",
    "registered_name",
    "save_store",
]
