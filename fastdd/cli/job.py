"""The command line on the ranks of a job that torchrun started."""

import os
import signal
import sys
import warnings

from fastdd.cli.commands import Interrupted
from fastdd.cli.output import tell
from fastdd.core import ranks, stop

# What the ranks can share; of ``experts`` the training.
_COMMANDS = ("distill", "evaluate", "experts", "weights")
_OF_EXPERTS = ("import", "export", "check")


def begin(arguments: list[str]) -> None:
    """Before the command: a place in the job, and silence on all ranks but one.

    Raises:
        ValueError: a command that is for one process.
    """
    # torchrun ends the ranks that are left with SIGTERM, and they have something to say first.
    signal.signal(signal.SIGTERM, stop.end)
    ranks.join()
    if ranks.rank() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    show = warnings.showwarning
    warnings.showwarning = lambda message, *others: ranks.first_to_say(str(message)) and show(message, *others)
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command == "experts" and len(arguments) > 1 and arguments[1] in _OF_EXPERTS:
        command = f"experts {arguments[1]}"
    if command is not None and command not in _COMMANDS:
        raise ValueError(f"fastdd {command} runs in one process; ranks of torchrun share {', '.join(_COMMANDS)}")
    # Before the commands' own meetings, whose number depends on these.
    ranks.agree("command", command, sorted({word.split("=")[0] for word in arguments if word.startswith("-")}))


def end(error: BaseException, text: str, code: int) -> None:
    """After an error: say it, unless another rank has told why the job ends, and end this process.

    A collective that will never end must not keep it, hence ``os._exit``.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # it is what they ask for
        signal.signal(number, signal.SIG_IGN)
    told = False
    orphaned = ranks.orphaned()
    if orphaned:  # and with it what ranks tell each other by
        text, code, told = f"error: {orphaned}", 1, ranks.rank() > 0
    elif isinstance(error, KeyboardInterrupt | Interrupted):
        told = ranks.end_explained()
        if not told and not ranks.everyone_answers():
            error = ranks.RankLost()
            text, code = f"error: {error}", 1
    if not orphaned and isinstance(error, ranks.RankLost):
        told = ranks.end_explained()
    if orphaned and not told:
        tell(text)
    elif not told and text:
        ranks.explain_end(text, lambda: tell(text))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
