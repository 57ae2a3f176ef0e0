"""Writes ``arguments.py``: the settings of every registry as keyword arguments that editors and type checkers know.

    python -m fastdd.api.generate

``tests/api/test_arguments.py`` fails where the file is not what this writes: a method, a mode or a setting was added.
"""

import dataclasses
import subprocess
import sys
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fastdd.api.distillation import Distillation
from fastdd.debias import MODES
from fastdd.debias.density.clusters import ClusterSettings
from fastdd.debias.density.kde import KdeSettings
from fastdd.evaluation import plan_evaluation
from fastdd.evaluation.audit import AuditSettings
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS
from fastdd.training import RECIPES, TrainSettings

FILE = Path(__file__).with_name("arguments.py")
_WIDTH = 120
# Arguments of the verbs themselves, or what the data set is: no settings to give.
_OF_VERBS = frozenset({"method", "debias", "dataset", "ipc", "device"})

_HEAD = '''"""Keyword arguments of the verbs, for editors and type checkers, written by fastdd.api.generate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from fastdd.api.samples import Groups, Weights
    from fastdd.experts import Experts
'''


@dataclasses.dataclass(frozen=True)
class _Key:
    """A key of a TypedDict: its type and what it is."""

    type: str
    help: str = ""


def text() -> str:
    """What ``arguments.py`` has to be, as ruff formats it."""
    parts = [
        _HEAD,
        _names("MethodName", METHODS),
        _names("DebiasName", MODES),
        _names("RecipeName", RECIPES),
        _names("ExpertDebiasName", [name for name, mode in MODES.items() if mode.in_training]),
        _typed_dict("DistillSettings", "Settings of all methods (:mod:`fastdd.methods`).", _of_methods()),
        _typed_dict(
            "DistillationArguments",
            "What :class:`fastdd.Distillation` takes, and with it :func:`fastdd.distill` and :func:`fastdd.estimate`.",
            _of_keywords(Distillation.__init__),
            base="DistillSettings",
        ),
        _typed_dict(
            "TrainExpertsSettings",
            "Settings of expert training (:class:`fastdd.experts.ExpertSettings`).",
            {name: _key([("", field)]) for name, field in _settings_of(ExpertSettings)},
        ),
        _typed_dict(
            "TrainNetworkSettings",
            "Settings of the training of a network (:class:`fastdd.training.TrainSettings`).",
            {name: _key([("", field)]) for name, field in _settings_of(TrainSettings)},
        ),
        _typed_dict(
            "EvaluateSettings",
            "What :func:`fastdd.evaluate` takes.",
            {
                **_of_keywords(plan_evaluation, but=("teacher", "labels")),
                **dict.fromkeys(("teacher", "labels"), _Key("str | os.PathLike | None")),
                "groups": _Key("Groups | None"),
            },
        ),
        _typed_dict(
            "AuditSettings",
            "Settings of an audit (:class:`fastdd.evaluation.audit.AuditSettings`).",
            {name: _key([("", field)]) for name, field in _settings_of(AuditSettings)},
        ),
        _typed_dict(
            "KdeWeightsSettings", "Of :class:`fastdd.debias.density.kde.KdeSettings`.", _of_dataclass(KdeSettings)
        ),
        _typed_dict(
            "PseudoGroupsSettings",
            "Of :class:`fastdd.debias.density.clusters.ClusterSettings`.",
            _of_dataclass(ClusterSettings),
        ),
    ]
    command = [sys.executable, "-m", "ruff", "format", f"--line-length={_WIDTH}", "--stdin-filename=arguments.py", "-"]
    return subprocess.run(command, input="\n".join(parts), check=True, capture_output=True, text=True).stdout


def _names(alias: str, names: Iterable[str]) -> str:
    return f"{alias} = Literal[{', '.join(map(_quoted, names))}]"


def _typed_dict(name: str, about: str, keys: dict[str, _Key], base: str = "TypedDict") -> str:
    lines = [f"class {name}({base}, total=False):", f'    """{about}"""', ""]
    for key, value in keys.items():
        lines.append(f"    {key}: {value.type}")
        if value.help:
            lines += textwrap.wrap(f'"""{value.help}"""', _WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(["", "", *lines, ""])


def _of_methods() -> dict[str, _Key]:
    fields: dict[str, list[tuple[str, FieldInfo]]] = {}
    for method, kind in METHODS.items():
        for name, field in _settings_of(kind.Settings):
            fields.setdefault(name, []).append((method, field))
    return {name: _key(owners) for name, owners in fields.items()}


def _settings_of(kind: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(name, field) for name, field in kind.model_fields.items() if name not in _OF_VERBS]


def _key(owners: Sequence[tuple[str, FieldInfo]]) -> _Key:
    """Of a setting that these have; where they differ in its type, any of the types, and all that is said of it."""
    types_ = dict.fromkeys(part for _, field in owners for part in _parts(field.annotation))
    types_.pop("None", None)  # goes last: as all settings, it may be None, which counts as not given
    said = dict.fromkeys(_said(field) for _, field in owners)
    of = [name for name, _ in owners if name]
    some = f"Of {', '.join(of)}: " if of and len(of) < len(METHODS) else ""
    return _Key(" | ".join([*types_, "None"]), f"{some}{'; or '.join(said)}.")


def _said(field: FieldInfo) -> str:
    """Its help, and its default: where it has none, the presets'."""
    default = (field.json_schema_extra or {}).get("default_help", field.default)
    if default is PydanticUndefined:
        default = "the preset's"
    return f"{field.description}; by default {default}"


def _of_dataclass(kind: type) -> dict[str, _Key]:
    given = {"seed"}  # which the verbs have themselves
    hints = typing.get_type_hints(kind)
    return {name: _Key(_source(hint)) for name, hint in hints.items() if name not in given}


def _of_keywords(function: Any, but: Sequence[str] = ()) -> dict[str, _Key]:
    """The keyword-only parameters that it names itself, which all have defaults; inspect would tell of its ``**``."""
    names = [name for name in function.__kwdefaults__ if name not in but]
    return {name: _Key(_source(function.__annotations__[name])) for name in names}


def _source(annotation: Any) -> str:
    """Of an annotation; one that is not evaluated is that already."""
    return annotation if isinstance(annotation, str) else " | ".join(_parts(annotation))


def _parts(annotation: Any) -> list[str]:
    """The types that a union is of, as source; of another type itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for argument in typing.get_args(annotation) for part in _parts(argument)]
    if typing.get_origin(annotation) is Literal:
        return [f"Literal[{', '.join(map(_quoted, typing.get_args(annotation)))}]"]
    if annotation is type(None):
        return ["None"]
    if typing.get_origin(annotation) in (dict, Mapping):
        return ["Mapping[str, Any]"]
    if isinstance(annotation, type) and annotation.__module__ == "builtins":
        return [str(annotation).removeprefix("<class '").removesuffix("'>")]
    raise TypeError(f"settings are plain values or Literals of them, not {annotation}: teach fastdd.api.generate")


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
