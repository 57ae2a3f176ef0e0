"""Writes the reference pages of commands, methods, modes, settings and functions from what the program itself knows.

    python -m fastdd.cli.reference docs/reference

``tests/cli/test_reference.py`` fails where the pages are not what this writes.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import fastdd
from fastdd.cli.commands import COMMANDS, load
from fastdd.cli.options import choices, setting_help
from fastdd.debias import MODES
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS, Settings
from fastdd.training import RECIPES, TrainSettings

_WRITTEN = "<!-- Written by `python -m fastdd.cli.reference docs/reference`. -->\n"
_NEEDS = {
    "nothing": "nothing",
    "groups": "protected groups",
    "weights": "weights of the training images",
    "embeddings": "what the step's network sees",
}


def pages() -> dict[str, str]:
    """The text of every page, by its name."""
    return {
        "api.md": _api(),
        "commands.md": _commands(),
        "methods.md": _methods(),
        "modes.md": _modes(),
        "recipes.md": _recipes(),
        "settings.md": _settings(),
    }


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = [*header]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _api() -> str:
    names = [name for name in fastdd.__all__ if callable(getattr(fastdd, name))]
    of_data = [name for name in fastdd.data.__all__ if callable(getattr(fastdd.data, name))]
    homes = [f"{kind.__module__}.{name}" for name in names for kind in [getattr(fastdd, name)]]
    homes += [f"{kind.__module__}.{name}" for name in of_data for kind in [getattr(fastdd.data, name)]]
    return (
        f"{_WRITTEN}# API\n\nWhat `import fastdd` and `fastdd.data` have. Examples: [Python](../python.md).\n\n"
        + "\n".join(f"::: {home}\n" for home in homes)
    )


def _commands() -> str:
    parts = [
        f"{_WRITTEN}# Commands\n\nEvery command and its options, as `fastdd COMMAND --help` prints them. "
        "Settings of methods are options of `distill` too: [settings](settings.md).\n"
    ]
    for name in COMMANDS:
        command = load(name)
        parts.append(_command(f"fastdd {name}", command))
        for below, kind in getattr(command, "commands", {}).items():
            parts.append(_command(f"fastdd {name} {below}", kind))
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    about = " ".join((command.help or "").replace("\b", "").split())
    settings = set(Settings.model_fields).union(*(method.Settings.model_fields for method in METHODS.values()))
    rows = []
    for parameter in command.params:
        of_settings = name == "fastdd distill" and parameter.name in settings
        if not (getattr(parameter, "hidden", False) or of_settings or parameter.name == "help"):
            words = parameter.opts + parameter.secondary_opts if parameter.param_type_name == "option" else []
            shown = ", ".join(f"`{word}`" for word in words) or f"`{(parameter.metavar or parameter.name).upper()}`"
            rows.append((shown, getattr(parameter, "help", None) or ""))
    return f"## {name}\n\n{about}\n\n" + (_table(("option", "what it is"), rows) if rows else "")


def _methods() -> str:
    rows = [
        (f"[`{name}`](settings.md#{name})", method.about, method.source, _needs(method))
        for name, method in METHODS.items()
    ]
    return f"{_WRITTEN}# Methods\n\n`fastdd distill --method NAME`; `fastdd methods` prints this.\n\n" + _table(
        ("method", "what it does", "source", "needs"), rows
    )


def _needs(method: Any) -> str:
    return "experts" if method.needs_experts else "a teacher" if method.by_class else ""


def _modes() -> str:
    rows = [
        (f"`{name}`", mode.about, _NEEDS[mode.needs], "yes" if mode.in_training else "no")
        for name, mode in MODES.items()
    ]
    return f"{_WRITTEN}# Debias modes\n\n`fastdd distill --debias NAME`; `fastdd modes` prints this.\n\n" + _table(
        ("mode", "what it does", "goes by", "experts can be trained with it"), rows
    )


def _recipes() -> str:
    parts = [
        f"{_WRITTEN}# Training recipes\n\n`fastdd train --training NAME` and `fastdd evaluate --training NAME`, "
        "constants by `--constant NAME=VALUE`; `fastdd recipes` prints them. [How they are used](../training.md).\n\n"
        + _table(
            ("recipe", "what it does", "source", "goes by"),
            [(f"`{name}`", kind.about, kind.source, ", ".join(kind.goes_by())) for name, kind in RECIPES.items()],
        )
    ]
    for name, kind in RECIPES.items():
        if kind.Settings.model_fields:
            parts.append(f"## {name}\n\n{_fields(kind.Settings)}")
    return "\n".join(parts)


def _settings() -> str:
    parts = [
        f"{_WRITTEN}# Settings\n\nAn option of `fastdd distill` (with `-` for `_`), a keyword argument of "
        "`fastdd.distill`, a line of `--config FILE` and of a run's `config.yaml`. *preset*: from the values that ship "
        "for the method, data set and IPC, with their source, in `fastdd/presets/`.\n",
        f"## All methods\n\n{_fields(Settings)}",
    ]
    for name, method in METHODS.items():
        own = _fields(method.Settings, besides=Settings)
        parts.append(f"## {name}\n\n{method.about[0].upper()}{method.about[1:]} ({method.source}).\n\n{own}")
    parts.append(f"## Training\n\nOf `fastdd train` and `fastdd.train_network`.\n\n{_fields(TrainSettings)}")
    parts.append(f"## Experts\n\nOf `fastdd experts` and `fastdd.train_experts`.\n\n{_fields(ExpertSettings)}")
    return "\n".join(parts)


def _fields(kind: type[BaseModel], besides: type[BaseModel] | None = None) -> str:
    known = besides.model_fields if besides else {}
    rows = []
    for name, field in kind.model_fields.items():
        if name not in known:
            words = choices(field)
            said = all(word in field.description for word in words)
            rows.append((f"`{name}`", setting_help(field, "" if said else f": {' or '.join(words)}")))
    return _table(("setting", "what it is"), rows)


def main(folder: str) -> None:
    """Write the pages into a folder."""
    for name, text in pages().items():
        Path(folder, name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
