"""Settings that are declared once: a line is default, limit, help, option of the command line, and documentation."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastdd.core.text import did_you_mean, shown

# What a value has to be, by pydantic's name of what is wrong; bounds are in its context.
_WANTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    "string_type": "a word",
    "dict_type": "names with values",
    "finite_number": "a finite number",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "literal_error": "one of {expected}",
}


def setting(help: str, default: Any = ..., *, default_help: str | None = None, **limits: Any) -> Any:
    """A field of settings.

    Args:
        help: what it is, for someone who meets it for the first time; begins in lower case, without a full stop.
        default: the value where nothing is given; without one, a preset or the user gives it.
        default_help: what to say of the default in its place.
        limits: as ``pydantic.Field`` takes them: ``ge``, ``gt``, ``le``, ``lt``.
    """
    extra = None if default_help is None else {"default_help": default_help}
    return Field(default, description=help, json_schema_extra=extra, **limits)


class Settings(BaseModel):
    """Frozen settings that know no names but their own, and no values that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=BaseModel)


def parse(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Settings of a kind from plain values; ValueError in one line that names the setting, its value and the limit.

    >>> class Some(Settings):
    ...     width: int = setting("filters", 8, ge=1)
    >>> parse(Some, {"width": 0})
    Traceback (most recent call last):
    ValueError: width must be at least 1, not 0
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        raise unknown_setting(where, kind.model_fields)
    if first["type"] == "missing":
        raise ValueError(f"{where} is missing, and no preset has it")
    if first["type"] in _WANTED:
        raise ValueError(f"{where} {wanted(first)}")
    reason = first["msg"].removeprefix("Value error, ")
    # Without a place it is of several settings together, which it names.
    raise ValueError(f"{where}: {reason} (got {shown(first['input'])})" if first["loc"] else reason)


def wanted(problem: Mapping[str, Any]) -> str:
    """What a value has to be, and is, of one of the problems that pydantic lists.

    >>> wanted({"type": "greater_than_equal", "ctx": {"ge": 1}, "input": 0})
    'must be at least 1, not 0'
    """
    limits = {
        name: f"{limit:g}" if isinstance(limit, float) else str(limit).replace("'", "").replace(" or ", ", ")
        for name, limit in problem.get("ctx", {}).items()
    }
    what = _WANTED.get(problem["type"])
    what = problem["msg"] if what is None else f"must be {what.format(**limits)}"
    meant = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        meant = did_you_mean(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    is_number = problem["type"].startswith(("greater", "less"))  # which a command line has as a word
    return f"{what}, not {problem['input'] if is_number else shown(problem['input'])}{meant}"


def unknown_setting(name: str, known: Iterable[str]) -> ValueError:
    """What to raise for a setting that nothing has."""
    return ValueError(f"there is no setting {name!r}{did_you_mean(name, known)}")


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, which counts as not given."""
    return {name: value for name, value in values.items() if value is not None}
