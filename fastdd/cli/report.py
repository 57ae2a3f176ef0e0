"""``fastdd report``."""

from pathlib import Path
from typing import Any

from fastdd import data as datasets
from fastdd.cli.console import console
from fastdd.core import files
from fastdd.data import Dataset
from fastdd.report.page import write_page
from fastdd.report.record import Record, read_record

NAME = "report.html"


def run_report(
    runs: list[Path],
    *,
    out: Path | None,
    dataset: str | None,
    data_root: Path | None,
    options: dict[str, Any],
    embedding: str,
    seed: int,
) -> None:
    records = [read_record(run) for run in runs]
    if out is None:
        first = records[0].path
        out = first / NAME if len(records) == 1 and first.is_dir() else Path(NAME)
    files.check_writable(out)
    data, why = _dataset(records, dataset, data_root, options)
    if why:
        console.print(f"without real images and embeddings: {why}")
    write_page(out, records, data, embedding=embedding, seed=seed)
    console.print(f"report in {out}")


def _dataset(
    records: list[Record], name: str | None, root: Path | None, options: dict[str, Any]
) -> tuple[Dataset | None, str]:
    """The runs' data set, and, where it can't be had and was not asked for, why not."""
    asked = name is not None or root is not None or bool(options)
    names = {record.dataset for record in records} - {None}
    if name is None:
        if len(names) != 1:
            found = (
                f"the runs are of several data sets ({', '.join(sorted(names))})" if names else "no run names its own"
            )
            if asked:
                raise ValueError(f"{found}: give --dataset")
            return None, found
        (name,) = names
    try:
        return datasets.load(name, root, **records[0].data_options(name) | options), ""
    except (ValueError, OSError) as error:
        if asked:
            raise
        return None, str(error)
