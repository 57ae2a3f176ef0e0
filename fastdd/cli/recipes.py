"""``fastdd recipes``."""

from rich.table import Table

from fastdd.cli.console import console
from fastdd.cli.options import Command, new_app
from fastdd.training import RECIPES

app = new_app()


@app.command(cls=Command)
def recipes() -> None:
    """How a network is trained on biased images (--training), and the constants of each recipe."""
    table = Table(box=None, show_edge=False, pad_edge=False, header_style="bold")
    for title in ("recipe", "what it does", "goes by", "constants"):
        table.add_column(title, no_wrap=title == "recipe", overflow="fold")
    for name, kind in RECIPES.items():
        fields = kind.Settings.model_fields.items()
        constants = ", ".join(
            f"{key} {field.default:g}" if isinstance(field.default, float) else f"{key} {field.default}"
            for key, field in fields
        )
        table.add_row(name, f"{kind.about} ({kind.source})", ", ".join(kind.goes_by()), constants)
    console.print(table, soft_wrap=False)
