"""``fastdd experts``."""

from pathlib import Path
from typing import Any

from fastdd import api, report
from fastdd.cli.console import bar, console
from fastdd.cli.runs import load_dataset
from fastdd.core import files, ranks
from fastdd.data import Dataset
from fastdd.experts import ExpertProgress
from fastdd.experts.buffers import export_buffers
from fastdd.experts.store import Experts


def train_with_bar(data: Dataset, **settings: Any) -> Experts:
    """:func:`fastdd.train_experts` under a progress bar."""
    with bar(f"experts {settings['debias']} {data.name}") as update:

        def progress(now: ExpertProgress) -> None:
            rate = (now.epoch - now.started) / now.seconds if now.seconds else None
            update(now.epoch, now.total, f"epochs  loss {now.loss:.4g}", rate)

        def embedding_progress(done: int, total: int) -> None:
            update(done, total, "bias embedding")

        return api.train_experts(data, progress=progress, embedding_progress=embedding_progress, **settings)


def run_train(
    *,
    dataset: str | None,
    data_root: Path | None,
    options: dict[str, Any],
    debias: str,
    out: Path | None,
    weights: Path | None,
    groups: str | None,
    json: Path | None,
    **settings: Any,
) -> None:
    if json is not None:
        ranks.first(lambda: files.check_writable(json))
    data = load_dataset(dataset, data_root, options)
    out = out or Path("runs") / f"experts-{debias}-{data.name}"
    trained = train_with_bar(data, out=out, debias=debias, weights=weights, groups=groups, **settings)
    if "kde" in trained.manifest:
        console.print(report.weight_summary(trained.manifest["kde"]["diagnostics"]))
    rows = report.expert_rows(trained.manifest)
    if rows:
        title = f"{trained.experts} experts of {data.name}, debias {debias}: test set, mean ± deviation, %"
        console.print(report.expert_summary(rows, title))
    if json is not None:
        about = {name: trained.manifest[name] for name in ("config", "dataset", "dataset_digest")}
        seconds = [entry["seconds"] for entry in trained.manifest["experts"]]
        document = report.document(rows, **about, digest=trained.digest(), expert_seconds=seconds)
        ranks.first(lambda: report.write_json(json, document))
    console.print(f"{_size(trained)} in {out}")


def run_import(
    *,
    paths: list[Path],
    dataset: str | None,
    data_root: Path | None,
    options: dict[str, Any],
    out: Path,
    **settings: Any,
) -> None:
    data = load_dataset(dataset, data_root, options)
    made = api.import_experts(sorted(paths, key=_buffer_number), data, out=out, **settings)
    console.print(f"{_size(made)} in {out}")


def run_export(folder: Path, *, out: Path, per_file: int) -> None:
    written = export_buffers(Experts.open(folder), out, per_file)
    console.print(f"{len(written)} buffers in {out}")


def run_check(folder: Path) -> None:
    opened = Experts.open(folder)
    damaged = opened.damaged()
    config = opened.manifest["config"]
    console.print(
        report.expert_table(
            opened.manifest, f"{opened.manifest['dataset']}, {config['arch']}, debias {config['debias']}"
        )
    )
    if damaged:
        raise RuntimeError(f"{folder}: the values of experts {', '.join(map(str, damaged))} are not those written")
    console.print(f"{_size(opened)}: every SHA-256 is right")


def _size(experts: Experts) -> str:
    return f"{experts.experts} experts, {experts.epochs} epochs, {experts.parameters:,} parameters"


def _buffer_number(path: Path) -> tuple[int, str]:
    """replay_buffer_10.pt comes after replay_buffer_2.pt, which a shell does not know."""
    digits = path.stem.removeprefix("replay_buffer_")
    return (int(digits) if digits.isdecimal() else -1, str(path))
