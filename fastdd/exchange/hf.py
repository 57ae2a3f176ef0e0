"""A folder of the package ``datasets`` (``save_to_disk``): columns image (PNG), label, soft_label; 8 bits."""

from pathlib import Path

from fastdd.core.files import partial_folder, take_place
from fastdd.data.sets.shards import huggingface
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange.folder import rounded
from fastdd.exchange.found import Content, Export, Found, read_record, write_record
from fastdd.exchange.image_table import found_in, table_of

DESCRIPTION = "a folder that datasets.load_from_disk reads"
_STATE = ("state.json", "dataset_dict.json")


def matches(content: Content) -> bool:
    return content.value is None and any((content.path / name).is_file() for name in _STATE)


def read(content: Content) -> Found:
    """All rows, in order."""
    files = _files(content.path)
    return found_in(content.path, files, read_record(content.path, files))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.arrow"))


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """The folder, which must be new or empty; ``fastdd.json`` has the set's metadata."""
    del force  # what else lies in a folder is not ours to remove
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is not an empty folder; give another")
    notes = rounded(made)
    datasets = huggingface()
    columns, features = table_of(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(path) as building:
        bars = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(building))
        finally:
            if not bars:
                datasets.enable_progress_bars()
        write_record(building, _files(building), made)
        take_place(building, path)
    return Export([path], notes)
