"""What the parser of the command line refuses, in plain words. Imported before anything else is: it imports nothing."""

from typing import Any


def refused(error: Any) -> str:
    """What Typer says, in plain words where it has pydantic's."""
    if hasattr(error.__cause__, "errors") and getattr(error, "param", None) is not None:
        from fastdd.core.settings import wanted

        name = error.param.opts[0] if error.param.param_type_name == "option" else error.param.make_metavar(error.ctx)
        return f"{name} {wanted(error.__cause__.errors()[0])}"
    return error.format_message()
