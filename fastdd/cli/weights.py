"""``fastdd weights``."""

from functools import partial
from pathlib import Path
from typing import Any

from fastdd import api, report
from fastdd.cli.console import bar, console
from fastdd.cli.runs import load_dataset
from fastdd.core import files, ranks


def run_weights(
    *,
    dataset: str | None,
    data_root: Path | None,
    options: dict[str, Any],
    embedding: Path | None,
    earlier: Path | None,
    clip: str,
    out: Path | None,
    plot: Path | None,
    json: Path | None,
    **settings: Any,
) -> None:
    if embedding is not None and earlier is not None:
        raise ValueError("--embedding and --from both name embeddings: leave one out")
    try:
        largest = None if clip == "none" else float(clip)
    except ValueError:
        raise ValueError(f"--clip must be a number above 0, or none, not {clip!r}") from None
    for path in filter(None, (out, plot, json)):
        ranks.first(partial(files.check_writable, path))
    data = load_dataset(dataset, data_root, options)
    if out is None:
        out = Path("runs") / f"weights-{data.name}.safetensors"
        ranks.first(lambda: out.parent.mkdir(exist_ok=True))
    with bar(f"bias embedding of {data.name}") as update:
        made = api.kde_weights(data, embedding=embedding or earlier, clip=largest, progress=update, **settings)
    ranks.first(lambda: made.save(out))
    found = made.diagnostics(data.train.labels, data.train.groups if data.num_groups > 1 else None)
    console.print(report.weight_table(found, data.class_names, f"{data.name}: weights of the training images"))
    if found.gap is not None:
        console.print(f"the density's bounds are at most {found.gap:.2f} nats apart")
    console.print(f"weights in {out}{f', picture in {plot}' if plot else ''}")
    if plot is not None:
        ranks.first(lambda: report.plot_weights(found, data.class_names, plot, f"{data.name}: KDE weights"))
    if json is not None:
        rows = report.weight_rows(found, data.class_names)
        ranks.first(lambda: report.write_json(json, report.document(rows, **made.metadata)))
