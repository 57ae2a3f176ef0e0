"""``fastdd methods``."""

from typing import Annotated, Any

import typer
from rich.table import Table

from fastdd import methods as registry
from fastdd.cli.completion import words
from fastdd.cli.console import console
from fastdd.cli.options import Command, Json, choices, new_app, setting_help
from fastdd.core import files
from fastdd.report import document, write_json

app = new_app()

_ALWAYS_GIVEN = ("method", "dataset")


@app.command(cls=Command)
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A method, to see its settings.",
            metavar="[NAME]",
            show_default=False,
            autocompletion=words(registry.METHODS),
        ),
    ] = None,
    json: Json = None,
) -> None:
    """The distillation methods, or the settings of one."""
    if name is not None:
        registry.method(name)
    if json is not None:
        files.check_writable(json)
        write_json(json, document([_row(one) for one in (registry.METHODS if name is None else [name])]))
    if name is None:
        _list()
    else:
        _settings(name, registry.method(name))


def _row(name: str) -> dict[str, Any]:
    method = registry.METHODS[name]
    settings = {
        setting: {
            "about": info.description,
            "default": None if info.is_required() else info.default,
            "choices": list(choices(info)),
        }
        for setting, info in method.Settings.model_fields.items()
        if setting not in _ALWAYS_GIVEN
    }
    about = {"about": method.about, "source": method.source, "needs_experts": method.needs_experts}
    return {"name": name, **about, "settings": settings}


def _list() -> None:
    table = _table("method", "what it does", "source", "needs")
    for name, method in registry.METHODS.items():
        needs = "experts (fastdd experts)" if method.needs_experts else "a teacher" if method.by_class else ""
        table.add_row(name, method.about, method.source, needs)
    console.print(table, soft_wrap=False)
    console.print("the settings of one: fastdd methods NAME")


def _settings(name: str, method: type[registry.Method]) -> None:
    console.print(f"{name}: {method.about} ({method.source})", soft_wrap=False)
    if method.needs_experts:
        console.print("It follows experts: fastdd experts trains them, --experts names their folder.", soft_wrap=False)
    if method.by_class:
        console.print("Its images are chosen or made by a trained network: --teacher names it.", soft_wrap=False)
    table = _table("setting", "what it is")
    for setting, info in method.Settings.model_fields.items():
        if setting not in _ALWAYS_GIVEN:
            words = choices(info)
            said = all(word in info.description for word in words)
            table.add_row(setting, setting_help(info, "" if said else f": {' or '.join(words)}"))
    console.print(table, soft_wrap=False)
    console.print(
        "Options of fastdd distill, with - for _. preset: from the values that ship with fastdd for the method, data "
        "set and IPC.",
        soft_wrap=False,
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, show_edge=False, pad_edge=False, header_style="bold")
    for number, title in enumerate(columns):
        table.add_column(title, no_wrap=number == 0, overflow="fold")
    return table
