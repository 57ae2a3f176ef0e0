"""A Parquet file as the Hugging Face hub shows it: columns image (PNG), label, soft_label; 8 bits."""

import hashlib
import json
from pathlib import Path
from typing import Any

from fastdd.core.files import DAMAGE, write_atomic
from fastdd.core.reading import parse_json
from fastdd.data.sets.shards import huggingface
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange.folder import rounded
from fastdd.exchange.found import Content, Export, Found, as_record, check_free
from fastdd.exchange.image_table import found_in, table_of

DESCRIPTION = "a .parquet file with the columns image and label"
_KEY = b"fastdd"


def matches(content: Content) -> bool:
    return content.value is None and content.path.suffix == ".parquet"


def read(content: Content) -> Found:
    """All rows, in order."""
    huggingface()
    return found_in(content.path, [content.path], _record(content.path))


def _record(path: Path) -> dict[str, Any] | None:
    """The metadata in the file's schema; None if there are none, or if they are of other images."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        record = parse_json(table.schema.metadata[_KEY])
        return as_record(record["metadata"]) if record["sha256"] == _digest(table["image"].to_pylist()) else None
    except (pyarrow.ArrowException, *DAMAGE):
        return None


def _digest(images: list[dict[str, Any]]) -> str:
    return hashlib.sha256(b"".join(image["bytes"] for image in images)).hexdigest()


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """A file that ``datasets`` and the hub read with its types; the set's metadata are in its schema."""
    if path.suffix != ".parquet":
        raise ValueError(f"{path} must end in .parquet")
    check_free([path], force)
    notes = rounded(made)
    columns, features = table_of(made)
    import pyarrow
    import pyarrow.parquet

    metadata = made.metadata | ({} if made.zca is None else {"zca": made.zca.digest()})
    record = {"sha256": _digest(columns["image"]), "metadata": metadata}
    schema = features.arrow_schema
    about = {**schema.metadata, _KEY: json.dumps(record, sort_keys=True).encode()}
    table = pyarrow.Table.from_pydict(columns, schema=schema.with_metadata(about))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: pyarrow.parquet.write_table(table, pyarrow.PythonFile(file, "w")))
    return Export([path], notes)
