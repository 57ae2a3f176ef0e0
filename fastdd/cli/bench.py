"""``fastdd bench``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from fastdd.api import pick_device
from fastdd.bench import cases
from fastdd.bench.framework import plot as draw
from fastdd.bench.framework import prediction_file, runner, schema
from fastdd.bench.framework.model import GPUS
from fastdd.bench.framework.overhead import overhead_table, overheads
from fastdd.bench.framework.table import table
from fastdd.bench.framework.upstream import Upstream
from fastdd.cli import bench_trees
from fastdd.cli.console import bar, console
from fastdd.cli.options import Command, Device, Json, new_app, picture_file
from fastdd.core.files import check_writable, is_stream
from fastdd.report import write_json

app = new_app()

Case = Annotated[
    list[str] | None,
    typer.Option(
        "--case", help="Cases by name or glob, such as 'augment/*'; repeatable.", show_default="all but some scale/*"
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Also draw speed-ups and roofline to this PNG file.",
        show_default=False,
        callback=picture_file,
    ),
]
UpstreamFolder = Annotated[
    Path | None,
    typer.Option("--upstream", help="Checkout of DatasetCondensation or FairDD, to time too.", show_default=False),
]
Reps = Annotated[int | None, typer.Option(help="Least number of timed calls.", show_default="7; quick 3", min=1)]
Budget = Annotated[
    float | None,
    typer.Option(
        help="Seconds that timing a case takes at most, but for one call of each backend; with --reps: at least, "
        "once there are so many calls.",
        show_default="7 calls and 5 s; quick 3 calls",
        min=0,
    ),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", show_default="all", min=1)]
InputSeed = Annotated[int, typer.Option("--seed", help="Of all inputs.", min=0)]
ShowList = Annotated[bool, typer.Option("--list", help="List the cases and exit.")]
Quick = Annotated[bool, typer.Option("--quick", help="Tiny inputs: does it work? Says nothing about speed.")]
Memory = Annotated[bool, typer.Option("--memory", help="Also measure peak memory, of steps; takes twice as long.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the --json file: keep the cases that it has.")]
DefaultMalloc = Annotated[
    bool, typer.Option("--default-malloc", help="Don't keep freed memory (other commands always do).")
]


Model = Annotated[
    str | None,
    typer.Option(
        metavar="GPU|FILE",
        help=f"Measure nothing; predict what the cases take on this GPU: {', '.join(GPUS)}; or show the predictions in "
        "a file that --json wrote.",
        show_default=False,
    ),
]
Measured = Annotated[
    list[Path] | None,
    typer.Option(
        help="Of --model: put this file's measurements beside the predictions; repeatable.",
        metavar="FILE",
        show_default="those in bench/results",
    ),
]

Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Measure this tree against another commit: results held together, calls in turns, ratios with intervals.",
        metavar="REF",
        show_default=False,
    ),
]
History = Annotated[
    bool,
    typer.Option(
        "--history", help="Measure nothing; show all committed results by case and machine (--plot draws them)."
    ),
]


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    case: Case = None,
    device: Device = "auto",
    json: Json = None,
    resume: Resume = False,
    plot: Plot = None,
    upstream: UpstreamFolder = None,
    reps: Reps = None,
    budget: Budget = None,
    threads: Threads = None,
    seed: InputSeed = 0,
    quick: Quick = False,
    memory: Memory = False,
    default_malloc: DefaultMalloc = False,
    show_list: ShowList = False,
    model: Model = None,
    measured: Measured = None,
    base: Base = None,
    history: History = False,
) -> None:
    """Speed beside published code and plain PyTorch, where results match.

    Exit code 1 if a case fails, or a result of fastdd's does not match.
    """
    if context.invoked_subcommand is not None:
        return
    if measured and model is None:
        raise ValueError("--measured goes with --model: it is put beside predictions")
    if model is not None:
        _predict(case or [], model, measured, json, seed)
        return
    if history:
        for path in filter(None, (json, plot)):
            check_writable(path)
        bench_trees.show_history(case or [], plot, json)
        return
    selected = cases.select(case or [])
    if show_list:
        _list(selected if case else cases.CASES)
        return
    target = pick_device(device)
    if base is not None:
        _check_base({"plot": plot, "upstream": upstream, "memory": memory, "resume": resume})
    for path in filter(None, (json, plot)):
        check_writable(path)
    document = _earlier(json) if resume else None
    selected = runner.missing(selected, document)
    code = None if upstream is None else Upstream.open(upstream)
    if threads is not None:
        torch.set_num_threads(threads)
    how = _timing(reps, budget, quick) | {"seed": seed, "quick": quick}
    # Files are shared and committed; folders of a machine have no place in them.
    how["argv"] = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    if base is not None:
        bench_trees.against(base, selected, target, json=json, **how)
        return
    how |= {"limit": None if reps is not None else budget, "memory": memory, "upstream": code, "before": document}
    document = _measure(selected, target, how, json)
    if plot is not None:
        draw.write(plot, document)
    _tell(document, quick)


def _timing(reps: int | None, budget: float | None, quick: bool) -> dict[str, Any]:
    """Least calls, and seconds, of a case: a budget by itself is a limit, and takes one call."""
    usual = 1 if budget is not None else 3 if quick else 7
    return {"reps": usual if reps is None else reps, "budget": (0.0 if quick else 5.0) if budget is None else budget}


def _tell(document: dict[str, Any], quick: bool) -> None:
    """The table; RuntimeError for results that are wrong or missing."""
    console.print(table(document))
    if not quick and (cost := overheads(document["rows"])):
        console.print(overhead_table(cost))
    if problems := runner.failed(document):
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise RuntimeError("; ".join(problems[:3]) + more)


def _list(listed: Sequence[Any]) -> None:
    shown = Table(box=None, show_header=False)
    for one in listed:
        shown.add_row(one.label, one.about)
    console.print(shown)


def _check_base(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value:
            raise ValueError(f"--{name} is not for --base: leave it out")


def _measure(selected: Sequence[Any], target: torch.device, how: dict[str, Any], json: Path | None) -> dict[str, Any]:
    """The document of all cases; it is written after every one, so that a run that is stopped keeps what it has."""
    document = how["before"]
    with bar("bench") as update:
        for number, document in enumerate(runner.run(selected, target, **how), 1):
            update(number, len(selected), selected[number - 1].label)
            if json is not None and (number == len(selected) or not is_stream(json)):
                schema.write(json, document)
    return document


def _earlier(json: Path | None) -> dict[str, Any] | None:
    """The document to go on with; None where there is none yet."""
    if json is None or is_stream(json):
        raise ValueError("--resume goes on with a file: name it with --json")
    if not json.exists():
        return None
    document = schema.read(json)
    if document["schema"] != schema.SCHEMA:
        raise ValueError(f"{json} has schema {document['schema']}: only files of schema {schema.SCHEMA} are resumed")
    return document


def _predict(globs: list[str], model: str, measured: list[Path] | None, json: Path | None, seed: int) -> None:
    """Predictions, ones that are made now or a file's, and measurements beside them."""
    if model not in GPUS and not Path(model).is_file():
        raise ValueError(f"--model {model} is not one of {', '.join(GPUS)}, nor a file")
    if json is not None:
        check_writable(json)
    if model in GPUS:
        document = prediction_file.predicted(cases.select(globs), model, seed)
    else:
        document = prediction_file.read(model, globs)
    sources = measured or prediction_file.results_of(GPUS[document["meta"]["model"]])
    compared = prediction_file.beside(document, sources)
    if json is not None:
        # Without --measured the file is what is held against the next measurement, whatever an older one was.
        write_json(json, compared if measured else document)
    console.print(prediction_file.table(compared))


@app.command(cls=Command)
def validate(
    files: Annotated[list[Path], typer.Argument(help="Files that --json wrote.", metavar="F...")],
) -> None:
    """Check result files against their schema."""
    for path in files:
        document = schema.read(path)
        matching = sum(row["match"] for row in document["rows"])
        console.print(f"{path}: valid, {len(document['rows'])} rows, {matching} match")
