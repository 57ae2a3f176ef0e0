"""The ``fastdd`` command. It parses, calls the Python interface, and prints; errors are one line on stderr.

Exit codes: 0 done, 1 failed, 2 bad usage (arguments, settings, or data that do not fit), 130 interrupted by Ctrl-C, 75
ended by SIGTERM or SIGUSR1, as schedulers do: the same command with --resume goes on (EX_TEMPFAIL). Of a job of
torchrun's, rank 0 prints; an error is said once, whether one rank meets it or all.
"""

import contextlib
import itertools
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence

from fastdd.cli import job
from fastdd.cli.commands import Interrupted, app
from fastdd.cli.output import Output, open_closed_streams, tell
from fastdd.cli.plugins import before_command, load_plugins, take_plugins
from fastdd.cli.refusals import refused
from fastdd.cli.talk import EVERYWHERE, talk
from fastdd.core import plugins, ranks, stop, threads
from fastdd.core.malloc import keep_freed_memory
from fastdd.core.text import printable

__all__ = ["main"]

# Options of ``fastdd run`` that are followed by a value.
RUN_VALUES = ("-m", "--rng", "--seed", "--device", "--json", "--plugin")
# Values of damaged files, which messages repeat, can be of any length.
_LONGEST_LINE = 1000
# Of what a scheduler ended, and may start again.
ENDED_BY_SCHEDULER = 75


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit; :data:`fastdd.cli.talk.EVERYWHERE` has what may stand anywhere on it."""
    threads.settle()
    if os.environ.get("_FASTDD_COMPLETE"):  # the shell asks what a word can become, and reads standard output
        app(prog_name="fastdd")
    arguments = sys.argv[1:] if argv is None else list(argv)
    before = before_command(arguments)
    leading, arguments = arguments[:before], arguments[before:]
    runs_script = arguments[:1] == ["run"]
    ours = _before_script(arguments) if runs_script else len(arguments)
    if "--default-malloc" not in arguments[:ours]:  # of fastdd bench; the policy can't be taken back once it is set
        keep_freed_memory()
    said = {word for word in arguments[:ours] if word in EVERYWHERE}
    debug = "--debug" in said
    talk.begin(quiet="--quiet" in said, verbose="--verbose" in said)
    script, arguments = arguments[ours:], [argument for argument in arguments[:ours] if argument not in said]
    if runs_script and "-m" in arguments:  # what follows the module's name is its own, options as well
        script = ["--", *script]
    if not debug and not runs_script:
        warnings.showwarning = lambda message, *_: tell(f"warning: {_line(message)}")
    several = ranks.launched() and not runs_script  # a script makes its own use of torchrun's ranks
    open_closed_streams()
    with Output() if not runs_script else contextlib.nullcontext() as output:
        code = _run([*leading, *arguments], script, several=several, debug=debug, guarded=not runs_script)
        if output is not None and (problem := output.finish()) is not None:
            code = code or 1
            if problem:
                tell(f"error: {problem}")
    sys.exit(code)


def _run(arguments: list[str], script: list[str], *, several: bool, debug: bool, guarded: bool) -> int:
    """The exit code; an error is told. ``script``: its name and its own words."""
    catches = guarded and threading.current_thread() is threading.main_thread()
    stop.forget()
    before = {number: signal.signal(number, stop.end) for number in stop.OF_SCHEDULERS} if catches else {}
    try:
        if talk.quiet and talk.verbose:
            raise ValueError("--quiet and --verbose: give one of them")
        files, arguments = take_plugins(arguments)
        if several:
            job.begin(arguments)
        if any(not word.startswith("-") for word in arguments):  # help and version need none
            load_plugins(files, arguments)
            if several:
                ranks.agree("plugins", plugins.digests())
        code = app([*arguments, *script] or ["--help"], prog_name="fastdd", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        text, code = _report(error, arguments)
        if several:
            job.end(error, text, code)
        if text:
            tell(text)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if isinstance(code, int) else 0


def _before_script(arguments: list[str]) -> int:
    """How many words of ``fastdd run`` are not the script's: those before its name, or up to that of its module."""
    position = 1
    while position < len(arguments) and arguments[position].startswith("-"):
        if arguments[position] == "-m":
            return min(position + 2, len(arguments))
        position += 2 if arguments[position] in RUN_VALUES else 1
    return min(position, len(arguments))


def _line(error: object) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # without Python's "[Errno 28] "
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE * 3 // 4]} ... {line[-_LONGEST_LINE // 4 :]}"


# In what PyTorch and the system say when memory ends; the last stands for an allocation of a compiled kernel's.
_NO_MEMORY = (
    "DefaultCPUAllocator",
    "Cannot allocate memory",
    "CUDA out of memory",
    "bad_alloc",
    "torch_call_dispatcher(",
)


def _too_little_memory(error: BaseException, arguments: Sequence[str]) -> str:
    """What memory was not enough for, in one line; empty for other errors."""
    text = str(error)
    if not isinstance(error, MemoryError) and not any(words in text for words in _NO_MEMORY):
        return ""
    what = " ".join(["fastdd", *itertools.takewhile(lambda word: not word.startswith("-"), arguments[:2])])
    asked = re.search(r"allocate (\d+) bytes", text)
    size = re.search(r"llocate ([\d.]+ [KMGT]i?B)", text)
    figure = f"{int(asked[1]) / 1e6:,.0f} MB" if asked else size[1] if size else ""
    told = f" ({figure} were asked for at once)" if figure else ""
    return f"error: the memory is not enough for {what}{told}; fastdd estimate tells what a run takes"


def _report(error: BaseException, arguments: Sequence[str] = ()) -> tuple[str, int]:
    """``error`` in one line, and its exit code; ``arguments`` are the command's."""
    if isinstance(error, KeyboardInterrupt | Interrupted):
        code = ENDED_BY_SCHEDULER if stop.asked_by() in stop.OF_SCHEDULERS else 130
        return f"interrupted{': ' + _line(error) if str(error) else ''}", code
    # Typer's own errors (it may or may not use click's classes, depending on its version).
    if hasattr(error, "format_message"):
        return f"error: {_line(refused(error))}", getattr(error, "exit_code", 2)
    if type(error).__name__ == "Abort":
        return "", 1
    if memory := _too_little_memory(error, arguments):
        return memory, 1
    if isinstance(error, ValueError | TypeError | FileNotFoundError):
        return f"error: {_line(error)}", 2
    if isinstance(error, RuntimeError | OSError | ImportError):
        return f"error: {_line(error)}", 1
    return f"error: {type(error).__name__}: {_line(error)} (this is a bug; --debug shows where it happened)", 1
