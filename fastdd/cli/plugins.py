"""``--plugin FILE``: a user's own parts, loaded before a command's options are made of them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main

from fastdd.core import plugins

OPTION = "--plugin"
# Of a file of settings: no run's is near.
_LARGEST = 1 << 20


def before_command(arguments: Sequence[str]) -> int:
    """How many words before the command are plugins."""
    words = 0
    while words < len(arguments) and arguments[words].partition("=")[0] == OPTION:
        words += 1 if "=" in arguments[words] else 2
    return min(words, len(arguments))


def take_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files that ``--plugin`` names, and all other words.

    Raises:
        ValueError: an option without a file.
    """
    files, others, taken = [], [], iter(arguments)
    for word in taken:
        if word == OPTION:
            file = next(taken, None)
            if file is None or file.startswith("-"):
                raise ValueError(f"{OPTION} is followed by a Python file")
            files.append(file)
        elif word.startswith(f"{OPTION}="):
            files.append(word.partition("=")[2])
        else:
            others.append(word)
    return files, others


def load_plugins(files: Sequence[str], arguments: Sequence[str]) -> None:
    """Load these, those that the environment names, and what the runs on the command line record of theirs.

    Raises:
        FileNotFoundError, ValueError: as :func:`fastdd.load_plugin`.
    """
    for file in files:
        plugins.load(file)
    plugins.load_named()
    for word in arguments:
        for records in _recorded_by(Path(word.partition("=")[2] if word.startswith("--") else word)):
            plugins.recall(records)


def _recorded_by(path: Path) -> Iterator[Any]:
    """What a run's folder, or its ``config.yaml``, says of plugins; nothing where it can't be read."""
    import yaml  # not for help and version

    from fastdd.core import bounds

    for file in (path, path / "config.yaml", path / "manifest.json"):
        try:
            if file.suffix not in (".yaml", ".json") or not file.is_file() or file.stat().st_size > _LARGEST:
                continue
            text = file.read_text(encoding="utf-8")
            content = json.loads(text) if file.suffix == ".json" else bounds.load_yaml(text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(content, dict):
            yield content.get("plugins")


def add_option(command: Any) -> None:
    """Show ``--plugin`` in a command's help, and in that of those under it; :func:`take_plugins` has taken it out."""
    for each in (command, *getattr(command, "commands", {}).values()):
        each.params.append(_option())


def _option() -> Any:
    """The option as Typer makes it, in whatever version; the command's function does not see it."""

    def with_it(plugin: Annotated[list[str] | None, PLUGIN] = None) -> None: ...

    app = typer.Typer(add_completion=False)
    app.command()(with_it)
    (option,) = (parameter for parameter in typer.main.get_command(app).params if parameter.name == "plugin")
    option.expose_value = False
    return option


def _load(files: list[str] | None) -> list[str] | None:
    """Those of ``--config FILE``."""
    for file in files or ():
        plugins.load(file)
    return files


PLUGIN = typer.Option(
    OPTION,
    metavar="FILE",
    help="Python file with your own networks, methods, modes or data sets; repeatable, also before the command.",
    show_default=False,
    callback=_load,
    rich_help_panel="Plugins",
)
