"""``fastdd audit``."""

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdd import api, report
from fastdd import data as datasets
from fastdd.cli.console import bar, console
from fastdd.cli.datasets import BiasRatio, Name, Options, Root, data_options, load_dataset
from fastdd.cli.options import Command, Config, Device, Full, Json, new_app, with_settings
from fastdd.cli.origin import with_dataset
from fastdd.core import files
from fastdd.core.settings import given
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import DoubtfulFigures
from fastdd.evaluation.audit import AuditSettings

app = new_app()

Target = Annotated[
    str,
    typer.Argument(help="Run folder or synthetic set; or a data set by its name or store.", metavar="RUN|SET|DATASET"),
]


@app.command(cls=Command)
@with_settings({"audit": AuditSettings}, after="data_option", everyone="Audit")
def audit(
    target: Target,
    dataset: Name = None,
    data_root: Root = None,
    bias_ratio: BiasRatio = None,
    data_option: Options = None,
    config: Config = None,
    full: Full = False,
    device: Device = "auto",
    json: Json = None,
    **settings: Any,
) -> None:
    """What bias is in the data, in a synthetic set, and what distillation did to it."""
    if json is not None:
        files.check_writable(json)
    synthetic, data = _to_audit(target, dataset, data_root, data_options(data_option, bias_ratio=bias_ratio))
    run = Path(target) if synthetic is not None and Path(target).is_dir() else None
    if run is not None:
        files.check_writable(run / report.AUDIT)
    with bar(f"auditing {target}") as update, warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulFigures)  # the line below the tables is theirs
        found = api.audit(data, synthetic, device=device, progress=update, **given(settings))
    document = report.audit_document(found, synthetic, dataset_digest=data.digest())
    for path in filter(None, (run and run / report.AUDIT, json)):
        report.write_json(path, document)
    for table in report.audit_tables(
        found, f"{target}, {data.name}" if synthetic is not None else data.name, full=full
    ):
        console.print(table)
    for line in report.audit_summary(found):
        console.print(line)
    if synthetic is not None:
        for name, meaning in report.LEGEND.items():
            console.print(f"{name}: {meaning}")
    for line in found.doubts:
        console.print(f"warning: {line}")
    if run is not None:
        console.print(f"in {run / report.AUDIT}, and marked in the page of fastdd report {run}")


def _to_audit(
    target: str, dataset: str | None, root: Path | None, options: dict[str, Any]
) -> tuple[SyntheticSet | None, Dataset]:
    """The synthetic set, if the target is one, and the data set."""
    is_data = datasets.is_store(target) or (target in datasets.available() and not Path(target).exists())
    if not is_data:
        synthetic = api.load_synthetic(target)
        return synthetic, with_dataset(target, synthetic, dataset, root, options)
    if dataset is not None:
        raise ValueError(f"{target} is a data set itself: --dataset {dataset} is for a synthetic set, leave it out")
    return None, load_dataset(target, root, options)
