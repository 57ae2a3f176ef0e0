"""Settings that are declared once: a line is default, limit, help, option of the command line, and documentation."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastdd.core.text import shown


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
    ValueError: width: Input should be greater than or equal to 1 (got 0)
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of several settings together, which it names
            raise ValueError(reason) from None
        where = ".".join(map(str, first["loc"]))
        got = "" if first["type"] == "missing" else f" (got {shown(first['input'])})"  # its input are all the others
        raise ValueError(f"{where}: {reason}{got}") from None


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, which counts as not given."""
    return {name: value for name, value in values.items() if value is not None}
