"""Options: those that settings declare, those that several commands share, and how help shows them."""

import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import typer.core
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fastdd.cli import settings_file
from fastdd.cli.completion import CompletionItem
from fastdd.cli.completion import words as of_words
from fastdd.cli.output import Output
from fastdd.cli.talk import EVERYWHERE
from fastdd.core import files

DATA, RUN, EVALUATION = "Data", "Run", "Evaluation"


def output_file(path: Path | None) -> Path | None:
    """The value of an option that names a file to write; ``-`` is standard output, which then has nothing else in it.

    What is said in words goes to standard error.
    """
    if path is None:
        return None
    path = files.STDOUT if str(path) == "-" else path
    if files.is_stdout(path) and isinstance(sys.stdout, Output):
        sys.stdout.words_to_stderr()
    return path


Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N.",
        rich_help_panel=RUN,
        autocompletion=of_words(["auto", "cpu", "cuda", "cuda:0"]),
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Also write the results to this file; - is standard output.",
        show_default=False,
        rich_help_panel=RUN,
        callback=output_file,
    ),
]


def constants_option(panel: str) -> Any:
    """The option ``--constant`` of a command that trains by a recipe."""
    option = typer.Option(
        "--constant",
        metavar="NAME=VALUE",
        help="A constant of the recipe (fastdd recipes shows them); repeatable.",
        show_default=False,
        rich_help_panel=panel,
    )
    return Annotated[list[str] | None, option]


def with_constants(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from a file, with the constants of a recipe as ``--constant`` has them."""
    constants = settings.get("constants") or {}
    others = {name: value for name, value in settings.items() if name != "constants"}
    return {**others, "constant": [f"{name}={value}" for name, value in constants.items()]}


Full = Annotated[
    bool, typer.Option("--full", help="Tables with all classes and groups, where they are many.", rich_help_panel=RUN)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Check everything, tell the plan and what it takes; write nothing.", rich_help_panel=RUN
    ),
]
Seed = Annotated[int, typer.Option(help="Every draw is a function of it.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file of options, named as here but with _ for -; those on the command line win.",
        show_default=False,
        rich_help_panel=RUN,
    ),
]


def page_file(path: Path | None) -> Path | None:
    """As :func:`output_file`, of an HTML page: ValueError for a name that says otherwise."""
    path = output_file(path)
    if path is not None and path.suffix.lower() not in ("", ".html", ".htm"):
        raise ValueError(f"the report is an HTML page: name it {path.with_suffix('.html').name}, not {path.name}")
    return path


def picture_file(path: Path | None) -> Path | None:
    """As :func:`output_file`, of a PNG: ValueError for a name that says otherwise."""
    path = output_file(path)
    if path is not None and path.suffix.lower() not in ("", ".png"):
        raise ValueError(f"the picture is a PNG: name it {path.with_suffix('.png').name}, not {path.name}")
    return path


# The first column's width, so that 80 columns leave the help most of them.
_FIRST_COLUMN = 28
_OF_ALL = "Any command"


class _Panels:
    """Help in plain text whose options are in groups, by their ``rich_help_panel``; ``-h`` asks for it too."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.context_settings.setdefault("help_option_names", ["--help", "-h"])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            found += [CompletionItem(word, help=EVERYWHERE[word]) for word in EVERYWHERE if word.startswith(incomplete)]
        return found

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panel = getattr(parameter, "rich_help_panel", None) or (_OF_ALL if _is_help(parameter) else usual)
                panels.setdefault(panel, []).append(_tidy(*record))
        panels[_OF_ALL] = [*EVERYWHERE.items(), *panels.pop(_OF_ALL, [])]
        for panel, records in panels.items():
            with formatter.section(panel):
                formatter.write_dl(records, col_max=_FIRST_COLUMN)
        if isinstance(self, typer.core.TyperGroup):
            commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
            with formatter.section("Commands"):
                formatter.write_dl([(name, first_line(command.help)) for name, command in commands])


class Command(settings_file.Reader, _Panels, typer.core.TyperCommand):
    """A command."""


class Group(settings_file.Reader, _Panels, typer.core.TyperGroup):
    """Commands under a name, which may be one itself."""


def new_app() -> typer.Typer:
    """What a module's commands are added to."""
    return typer.Typer(cls=Group, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _is_help(parameter: Any) -> bool:
    return "--help" in parameter.opts


def first_line(help: str | None) -> str:
    """The first line of a docstring."""
    return (help or "").strip().partition("\n")[0]


def _tidy(name: str, help: str) -> tuple[str, str]:
    """A line of help without what Typer puts around types, and around defaults that are words.

    >>> _tidy("--nets <int range>", "Networks.  [default: (the protocol's, or 5); x>=1]")
    ('--nets INT', "Networks.  [default: the protocol's, or 5; x>=1]")
    """
    name = re.sub(r"<(?:list\[)?(\w+)\]?(?: range)?>", lambda match: match[1].upper(), name)
    return name, re.sub(r"(\[|; )default: \((.*?)\)(?=[];])", r"\1default: \2", help)


def with_settings(
    kinds: Mapping[str, type[BaseModel]],
    *,
    after: str,
    everyone: str,
    but: Collection[str] = (),
    values: Mapping[str, Collection[str]] | None = None,
    completions: Mapping[str, Callable[[str], list[str]]] | None = None,
) -> Callable:
    """A decorator: a command that takes ``**settings`` gets an option for every setting that any of the models has.

    Those that are not given are None.

    Args:
        kinds: the models by the name of whom they are for.
        after: the command's parameter that they follow, in its help.
        everyone: title of the group of settings that all models have; others are under the names of their models.
        but: settings that the command has options for.
        values: what settings can be, where their types don't tell.
        completions: of settings whose values a shell can tell, though help does not list them.
    """
    owners: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        for setting in kind.model_fields:
            if setting not in but:
                owners.setdefault(setting, []).append(name)

    def decorate(command: Callable) -> Callable:
        signature = inspect.signature(command)
        written = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        place = 1 + [one.name for one in written].index(after)
        declared = []
        for setting, names in owners.items():
            fields = {name: kinds[name].model_fields[setting] for name in names}
            panel = everyone if len(names) == len(kinds) else ", ".join(names)
            complete = (completions or {}).get(setting)
            declared.append(_parameter(setting, fields, panel, (values or {}).get(setting, ()), complete))
        command.__signature__ = signature.replace(parameters=[*written[:place], *declared, *written[place:]])
        command.__annotations__ |= {one.name: one.annotation for one in declared}
        return command

    return decorate


def _parameter(
    setting: str,
    fields: Mapping[str, FieldInfo],
    panel: str,
    values: Collection[str],
    complete: Callable[[str], list[str]] | None,
) -> inspect.Parameter:
    """The parameter of an option; models may describe a setting of the same name each in its own way."""
    more = f", one of: {', '.join(values)}" if values else ""
    said: dict[str, list[str]] = {}
    for name, info in fields.items():
        said.setdefault(setting_help(info, more), []).append(name)
    (info, *_) = fields.values()
    words = dict.fromkeys(word for one in fields.values() for word in choices(one))
    known = words or values
    flag, plain = f"--{setting.replace('_', '-')}", _plain(info.annotation)
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if plain is bool else flag,
        help=" ".join(text if len(said) == 1 else f"{', '.join(names)}: {text}" for text, names in said.items()),
        show_default=False,
        metavar=f"[{'|'.join(words)}]" if words else None,
        autocompletion=complete or (of_words(known) if known else None),
        rich_help_panel=panel,
    )
    annotation = Annotated[plain | None, option]
    return inspect.Parameter(setting, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)


def setting_help(info: FieldInfo, more: str = "") -> str:
    """What a setting is, its default, and its limits.

    >>> from fastdd.core.settings import setting
    >>> setting_help(setting("decay of updates", 0.5, ge=0, lt=1))
    'Decay of updates.  [default: 0.5; 0<=x<1]'
    """
    about = "; ".join(filter(None, (_default_text(info), _limits_text(info))))
    return f"{info.description[:1].upper()}{info.description[1:]}{more}.{about and f'  [{about}]'}"


def choices(info: FieldInfo) -> tuple[str, ...]:
    """The words that a setting takes, where these are all."""
    return get_args(info.annotation) if get_origin(info.annotation) is Literal else ()


def _default_text(info: FieldInfo) -> str:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    if "default_help" in extra:
        return f"default: {extra['default_help']}"
    if info.is_required():
        return "default: preset"
    if info.default is None:
        return ""
    return f"default: {('no', 'yes')[info.default] if isinstance(info.default, bool) else info.default}"


def _limits_text(info: FieldInfo) -> str:
    limits: dict[str, Any] = {}
    for one in info.metadata:
        limits |= {name: getattr(one, name) for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    above = [f"{sign}{limits[name]}" for name, sign in (("ge", "="), ("gt", "")) if name in limits]
    below = [f"{sign}{limits[name]}" for name, sign in (("le", "="), ("lt", "")) if name in limits]
    if above and below:
        return f"{above[0].lstrip('=')}<{'=' * above[0].startswith('=')}x<{below[0]}"
    return f"x>{above[0]}" if above else f"x<{below[0]}" if below else ""


def _plain(kind: Any) -> type:
    """What the command line parses: bool, int, float or str; the model checks the rest."""
    if get_origin(kind) is Literal:
        return str
    if get_origin(kind) in (Union, UnionType):
        return _plain(next(one for one in get_args(kind) if one is not type(None)))
    return kind
