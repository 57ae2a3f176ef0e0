"""``--config FILE``: options from a file, as if they stood before those on the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import typer
import yaml

from fastdd.cli.refusals import refused
from fastdd.core import bounds
from fastdd.core.reading import damage_of
from fastdd.core.text import closest, shown

# Where files of this package have settings: config.yaml of a run or a network, the manifest.json of experts.
SECTIONS = {
    "run": "a run's configuration",
    "config": "the manifest of experts",
    "train": "the configuration of a network",
}
# Beside a run's settings.
DATA_DIGEST, STORE, PLUGINS = "data_digest", "store", "plugins"
_LARGEST = 16 << 20


class Reader:
    """Of a command that may have ``--config``: the file is read before anything else is parsed.

    Attributes:
        section: the one of :data:`SECTIONS` whose files the command takes; None: only files of options.
    """

    section: ClassVar[str | None] = None

    def from_section(self, content: dict[str, Any]) -> dict[str, Any]:
        """Options of such a file's content."""
        return content[self.section]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not any(parameter.name == "config" for parameter in self.params):
            return super().parse_args(ctx, args)
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        if not given.get("config") or given.get("help"):
            return super().parse_args(ctx, args)
        words = self._words(ctx, Path(given["config"]), given)
        try:
            return super().parse_args(ctx, [*words, *args])
        except typer.BadParameter as error:
            name = getattr(error.param, "name", None)
            if name is None or name in given:
                raise
            raise ValueError(f"{given['config']}: {refused(error)}") from None

    def _words(self, ctx: Any, path: Path, given: Mapping[str, Any]) -> list[str]:
        """The file's options as words; of those that can be repeated, only such as the command line has not."""
        content = read(path)
        section = next((name for name in SECTIONS if isinstance(content.get(name), dict)), None)
        if section not in (None, self.section):
            raise ValueError(f"{path} is {SECTIONS[section]}, which {ctx.command_path} can't take its options from")
        with damage_of(path, "is no such file", ValueError):
            values = content if section is None else self.from_section(content)
        known = {}
        for parameter in self.params:
            if parameter.param_type_name == "option" and parameter.name != "config":
                known[parameter.opts[0].removeprefix("--").replace("-", "_")] = parameter
        unknown = [str(name) for name in values if name not in known]
        if unknown:
            close = {name: closest(name, known) for name in unknown}
            told = [name if meant is None else f"{name} (did you mean {meant}?)" for name, meant in close.items()]
            raise ValueError(
                f"{path}: {ctx.command_path} has no {', '.join(told)}; {ctx.command_path} --help shows what it has"
            )
        words = []
        for name, value in values.items():
            parameter = known[name]
            if value is not None and not (parameter.multiple and parameter.name in given):
                words += _words_of(parameter, value, f"{path}: {name}")
        return words


def read(path: Path) -> dict[str, Any]:
    """The content of a YAML (or JSON) file; ValueError if there is none, or it has no names with values."""
    try:
        with open(path, "rb") as file:  # also a pipe, as the shell's <(...) is one
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ValueError(f"--config {path} is larger than any file of settings ({_LARGEST >> 20} MiB)")
        content = bounds.load_yaml(text.decode())
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path} is no YAML: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"--config {path} has no settings: write one a line, as in ipc: 10")
    return content


def _words_of(parameter: Any, value: Any, where: str) -> list[str]:
    """An option and its value as the command line has them, which then checks them."""
    flag = parameter.opts[0]
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"{where} must be true or false, not {shown(value)}")
        return [flag] if value else parameter.secondary_opts[:1]
    if parameter.multiple:
        if isinstance(value, dict):  # NAME=VALUE
            value = [f"{name}={yaml.safe_dump(one).splitlines()[0]}" for name, one in value.items() if one is not None]
        values = value if isinstance(value, list) else [value]
    else:
        values = [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise ValueError(f"{where} must be a number or a word, not {shown(one)} (quotes make it a word)")
    return [f"{flag}={one}" for one in values]
