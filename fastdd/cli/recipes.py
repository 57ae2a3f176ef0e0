"""``fastdd recipes``."""

from rich.table import Table

from fastdd.cli.console import console
from fastdd.cli.options import Command, Json, new_app
from fastdd.core import files
from fastdd.report import document, write_json
from fastdd.training import RECIPES

app = new_app()


@app.command(cls=Command)
def recipes(json: Json = None) -> None:
    """How a network is trained on biased images (--training), and the constants of each recipe."""
    if json is not None:
        files.check_writable(json)
        rows = [
            {
                **{"name": name, "about": kind.about, "source": kind.source, "goes_by": list(kind.goes_by())},
                "constants": {key: field.default for key, field in kind.Settings.model_fields.items()},
            }
            for name, kind in RECIPES.items()
        ]
        write_json(json, document(rows))
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
