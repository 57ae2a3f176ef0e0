"""What the parser of the command line refuses, in plain words. Imported before anything else is: it imports little."""

from typing import Any

from fastdd.core.text import did_you_mean


def refused(error: Any) -> str:
    """What Typer says, in plain words where it has pydantic's."""
    if hasattr(error.__cause__, "errors") and getattr(error, "param", None) is not None:
        from fastdd.core.settings import wanted

        name = error.param.opts[0] if error.param.param_type_name == "option" else error.param.make_metavar(error.ctx)
        return f"{name} {wanted(error.__cause__.errors()[0])}"
    if hasattr(error, "possibilities"):  # an option that no one has
        return f"there is no option {error.option_name}{did_you_mean(error.option_name, error.possibilities or [])}"
    return error.format_message()
