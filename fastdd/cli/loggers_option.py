"""``--log``, of commands that write metrics; apart from the other options, as it takes what such runs are made of."""

from typing import Annotated

import typer

from fastdd.cli.completion import words as of_words
from fastdd.cli.options import RUN
from fastdd.session.loggers import LOGGERS, check_loggers


def _loggers(names: list[str] | None) -> list[str]:
    check_loggers(names or [])
    return names or []


Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        help=f"Also log metrics for {' or '.join(LOGGERS)}, in the folder; repeatable.",
        metavar=f"[{'|'.join(LOGGERS)}]",
        show_default=False,
        rich_help_panel=RUN,
        autocompletion=of_words(LOGGERS),
        callback=_loggers,
    ),
]
