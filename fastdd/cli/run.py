"""``fastdd run``: a script on the fast ops."""

import os
import sys
from time import perf_counter
from typing import Annotated

import typer

from fastdd.cli.options import Command, Json, new_app
from fastdd.compat import deferred, hook
from fastdd.compat.hook import children, missing, script, substitutes
from fastdd.compat.hook.cpu import OnCpu
from fastdd.compat.hook.summary import Summary
from fastdd.compat.hook.wandb_stand_in import LOGS
from fastdd.compat.shared import randomness
from fastdd.core import files

app = new_app()


@app.command(cls=Command, context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
def run(
    path: Annotated[str | None, typer.Argument(help="A Python script.", metavar="SCRIPT", show_default=False)] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its own arguments.", metavar="ARGS", show_default=False)
    ] = None,
    module: Annotated[
        str | None, typer.Option("-m", help="A module, as python -m runs it, instead of SCRIPT.", metavar="MODULE")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the first calls of every replaced name with the original.")
    ] = False,
    rng: Annotated[str, typer.Option(help="fast, or legacy for the script's own draws bit for bit.")] = "fast",
    seed: Annotated[int | None, typer.Option(help="Of the draws of fast.", show_default="0")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu: what the script asks of CUDA goes to the CPU.", show_default="the script's"),
    ] = None,
    wandb_stand_in: Annotated[
        bool, typer.Option("--wandb-stand-in", help="Where wandb is missing, log nothing: for code that merely logs.")
    ] = False,
    defer: Annotated[
        bool, typer.Option("--defer/--no-defer", help="Compute together what a loop over classes or groups asks for.")
    ] = True,
    json: Json = None,
) -> None:
    """Run an existing distillation script, unchanged, with its slow functions replaced at import.

    What was replaced is said on stderr; the exit code is the script's.
    """
    given = _checked(path, module, arguments or [])
    if device not in (None, "cpu"):
        raise ValueError(f"--device must be cpu, or left to the script, not {device!r}")
    if json is not None:
        files.check_writable(json)
        json = json.resolve()  # the script may change the folder
    randomness.use_rng(rng)
    if seed is not None:
        randomness.seed(seed)
    substitutes.install()
    _say_what_is_missing(path if module is None else script.file_of(module), wandb_stand_in)
    substitutes.install(wandb=wandb_stand_in)
    started, process, replacing = perf_counter(), os.getpid(), hook.enabled()
    folder = os.getcwd() if module is not None else script.folder(path)
    on_cpu = OnCpu()
    if device == "cpu":
        on_cpu.install()
    installed = hook.Hook(folder, verify)
    if replacing:
        deferred.use(defer)
        installed.install()
    children.follow(
        children.Settings(folder, verify, device == "cpu", wandb_stand_in, replacing=replacing, defer=defer)
    )
    looks = installed if replacing else None
    status = script.run(path, given, looks) if module is None else script.run_module(module, given, looks)
    if status is not None and not isinstance(status, int):  # as Python does with sys.exit("message")
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    if os.getpid() == process:  # and not in a process that the script has forked
        summary = installed.report() if replacing else Summary([], perf_counter() - started, rng)
        # Of a script that failed nobody knows which loops it would have come to.
        of_loops = deferred.notices(None if status else path) if replacing and defer else []
        _tell(summary, replacing, of_loops, on_cpu.notice())
        if json is not None:
            from fastdd import report

            report.write_json(json, report.document(summary.rows, seconds=summary.seconds, rng=summary.rng))
    sys.exit(status)


def _checked(path: str | None, module: str | None, arguments: list[str]) -> list[str]:
    """The script's arguments: after -m MODULE all that follows."""
    if module is not None:
        return arguments if path is None else [path, *arguments]
    if path is None:
        raise ValueError("Missing argument 'SCRIPT'.")
    script.check(path)
    return arguments


def _say_what_is_missing(path: str | None, wandb_stand_in: bool) -> None:
    """In one line, before the script fails at the first of them.

    Raises:
        ValueError: a stand-in for wandb is asked for by code that does more than log.
    """
    lacking = [] if path is None else missing.find(path)
    for package in lacking if wandb_stand_in else ():
        more = {use.partition(".")[0] for use in package.uses} - LOGS if package.name == "wandb" else set()
        if more:
            raise ValueError(f"{path} does more with wandb than log ({', '.join(sorted(more))}): install wandb")
    lacking = [package for package in lacking if not (wandb_stand_in and package.name == "wandb")]
    if lacking:
        print(f"fastdd: {missing.notice(lacking)}", file=sys.stderr)


def _tell(summary: Summary, replacing: bool, of_loops: list[str], of_cuda: str) -> None:
    """What happened, on stderr; of torchrun's ranks the first tells it."""
    if os.environ.get("RANK", "0") != "0":
        return
    if replacing:
        _show(summary, of_loops)
    else:
        print(f"fastdd: FASTDD_COMPAT=0, nothing was replaced; {summary.seconds:.1f} s in all", file=sys.stderr)
    if of_cuda:
        print(f"fastdd: {of_cuda}", file=sys.stderr)


def _show(summary: Summary, of_loops: list[str]) -> None:
    from fastdd.cli.console import PlainConsole, output_width

    shown = PlainConsole(stderr=True, width=output_width(), highlight=False, markup=False, soft_wrap=True)
    if summary.rows:
        shown.print(summary.table())
    for notice in [*summary.notices(), *of_loops]:
        shown.print(f"fastdd: {notice}")
