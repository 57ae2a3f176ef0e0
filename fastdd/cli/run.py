"""``fastdd run``: a script on the fast ops."""

import os
import sys
from time import perf_counter
from typing import Annotated

import typer

from fastdd import compat, report
from fastdd.cli.console import PlainConsole, output_width
from fastdd.cli.options import Command, Json, new_app
from fastdd.compat import hook
from fastdd.compat.hook import script, substitutes
from fastdd.compat.hook.summary import Summary
from fastdd.core import files

app = new_app()


@app.command(cls=Command, context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
def run(
    path: Annotated[str, typer.Argument(help="A Python script.", metavar="SCRIPT")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its own arguments.", metavar="ARGS", show_default=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the first calls of every replaced name with the original.")
    ] = False,
    rng: Annotated[str, typer.Option(help="fast, or legacy for the script's own draws bit for bit.")] = "fast",
    seed: Annotated[int | None, typer.Option(help="Of the draws of fast.", show_default="0")] = None,
    json: Json = None,
) -> None:
    """Run an existing distillation script, unchanged, with its slow functions replaced at import.

    What was replaced is said on stderr; the exit code is the script's.
    """
    script.check(path)
    if json is not None:
        files.check_writable(json)
        json = json.resolve()  # the script may change the folder
    compat.use_rng(rng)
    if seed is not None:
        compat.seed(seed)
    substitutes.install()
    started, process, replacing = perf_counter(), os.getpid(), hook.enabled()
    installed = hook.Hook(script.folder(path), verify)
    if replacing:
        installed.install()
    status = script.run(path, arguments or [])
    if status is not None and not isinstance(status, int):  # as Python does with sys.exit("message")
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    if os.getpid() == process:  # and not in a process that the script has forked
        if replacing:
            summary = installed.report()
            if os.environ.get("RANK", "0") == "0":
                _show(summary)
        else:
            summary = Summary([], perf_counter() - started, rng)
            print(f"fastdd: FASTDD_COMPAT=0, nothing was replaced; {summary.seconds:.1f} s in all", file=sys.stderr)
        if json is not None:
            report.write_json(json, report.document(summary.rows, seconds=summary.seconds, rng=summary.rng))
    sys.exit(status)


def _show(summary: Summary) -> None:
    shown = PlainConsole(stderr=True, width=output_width(), highlight=False, markup=False, soft_wrap=True)
    if summary.rows:
        shown.print(summary.table())
    for notice in summary.notices():
        shown.print(f"fastdd: {notice}")
