"""``fastdd run``: a script on the fast ops."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from rich.console import Console

from fastdd import compat, report
from fastdd.compat import hook
from fastdd.compat.hook import script, substitutes
from fastdd.compat.hook.summary import Summary
from fastdd.core import files


def run_script(
    path: str, arguments: Sequence[str], *, verify: bool, rng: str, seed: int | None, json: Path | None
) -> None:
    """Run it, say on stderr what was replaced, and exit as it does."""
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
    status = script.run(path, arguments)
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
    terminal = sys.stderr.isatty()
    shown = Console(stderr=True, width=None if terminal else 160, highlight=False, markup=False, soft_wrap=True)
    if summary.rows:
        shown.print(summary.table())
    for notice in summary.notices():
        shown.print(f"fastdd: {notice}")
