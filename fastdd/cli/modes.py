"""``fastdd modes``."""

from rich.table import Table

from fastdd.cli.console import console
from fastdd.cli.options import Command, new_app
from fastdd.debias import MODES

app = new_app()

_NEEDS = {
    "nothing": "",
    "groups": "protected groups (--groups)",
    "weights": "weights (--weights)",
    "embeddings": "the step's network",
}


@app.command(cls=Command)
def modes() -> None:
    """The ways to handle bias (--debias), and what each of them goes by."""
    table = Table(box=None, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("mode", no_wrap=True)
    table.add_column("what it does", overflow="fold")
    table.add_column("goes by", overflow="fold")
    table.add_column("experts", overflow="fold")
    for name, mode in MODES.items():
        table.add_row(name, mode.about, _NEEDS[mode.needs], "yes" if mode.in_training is not None else "no")
    console.print(table, soft_wrap=False)
    console.print("experts: whether fastdd experts can train with it, for methods that follow experts")
