"""``fastdd modes``."""

from rich.table import Table

from fastdd.cli.console import console
from fastdd.cli.options import Command, Json, new_app
from fastdd.core import files
from fastdd.debias import MODES
from fastdd.report import document, write_json

app = new_app()

_NEEDS = {
    "nothing": "",
    "groups": "protected groups (--groups)",
    "weights": "weights (--weights)",
    "embeddings": "the step's network",
}


@app.command(cls=Command)
def modes(json: Json = None) -> None:
    """The ways to handle bias (--debias), and what each of them goes by."""
    if json is not None:
        files.check_writable(json)
        rows = [
            {"name": name, "about": mode.about, "goes_by": mode.needs, "of_experts": mode.in_training is not None}
            for name, mode in MODES.items()
        ]
        write_json(json, document(rows))
    table = Table(box=None, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("mode", no_wrap=True)
    table.add_column("what it does", overflow="fold")
    table.add_column("goes by", overflow="fold")
    table.add_column("experts", overflow="fold")
    for name, mode in MODES.items():
        table.add_row(name, mode.about, _NEEDS[mode.needs], "yes" if mode.in_training is not None else "no")
    console.print(table, soft_wrap=False)
    console.print("experts: whether fastdd experts can train with it, for methods that follow experts")
