"""``fastdd export``."""

from pathlib import Path
from typing import Annotated

import typer

from fastdd import api
from fastdd.cli.completion import words
from fastdd.cli.console import console
from fastdd.cli.options import Command, new_app
from fastdd.exchange import FORMATS

app = new_app()


@app.command(cls=Command)
def export(
    target: Annotated[Path, typer.Argument(help="Run folder or synthetic set.", metavar="RUN|FILE")],
    to: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.", autocompletion=words(FORMATS))],
    out: Annotated[Path, typer.Option(help="File or folder, as the format has it.")],
    method: Annotated[
        str | None, typer.Option(help="dcbench: under which to put it.", show_default="the set's")
    ] = None,
    hard_labels: Annotated[bool, typer.Option("--hard-labels", help="Leave soft labels out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a synthetic set for DatasetCondensation, FairDD, MTT, IDC, DC-Bench and others."""
    written = api.export_synthetic(target, out, to=to, method=method, hard_labels=hard_labels, force=force)
    for file in written.files:
        console.print(str(file))
    for note in written.notes:
        console.print(f"note: {note}")
