"""Thousands of hostile calls of the ops, in forked processes: a crash or a hang is counted, and the next call goes on.

python tests/campaigns/ops/run.py --seed 1 --calls 10000          # a table
python tests/campaigns/ops/run.py --seed 1 --first 123 --calls 1  # one of them again, in words
"""

import argparse
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator

HANGS_AFTER = 300.0
MEMORY = 12 << 30
Row = dict[str, object]


def _work(seed: int, numbers: range, pipe: int, limited: bool) -> None:
    """In a fork: judge calls, and tell each before it begins and after."""
    import torch
    from judge import case, judge

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1
    if limited:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with os.fdopen(pipe, "w", buffering=1) as file:
        for number in numbers:
            name, mode, arguments, told, text = case(seed, number)
            row = {"number": number, "stage": name, "how": f"{mode} {'; '.join(told)}"}
            print(json.dumps(row), file=file)
            outcome, what = judge(name, mode, arguments, text)
            print(json.dumps({**row, "outcome": outcome, "what": what}), file=file)


def _rows(pipe: int) -> Iterator[Row | None]:
    """What a fork tells; None where it has said nothing for long."""
    left = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], HANGS_AFTER)
        if not ready:
            yield None
            return
        part = os.read(pipe, 1 << 16)
        if not part:
            return
        *lines, left = (left + part).split(b"\n")
        yield from map(json.loads, lines)


def campaign(seed: int, first: int, calls: int, seconds: float, *, limited: bool) -> Iterator[Row]:
    """Rows of ``stage``, ``outcome`` and ``what`` of so many calls, or of those that fit into a time."""
    # Before the forks, which then begin at once.
    import judge  # noqa: F401
    import torch._dynamo
    import torch._inductor.config  # noqa: F401

    until, number = time.monotonic() + seconds, first
    while number < first + calls and time.monotonic() < until:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            status = 1
            try:
                _work(seed, range(number, min(number + 500, first + calls)), writing, limited)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        begun: Row = {}
        hangs = False
        for row in _rows(reading):
            if row is None:
                hangs = True
                break
            begun = row
            if "outcome" in row:
                number = int(row["number"]) + 1
                yield row
                if time.monotonic() > until:
                    break
        if hangs or time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        if "outcome" not in begun and time.monotonic() <= until:
            number = int(begun.get("number", number)) + 1
            ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status >> 8}"
            outcome = ("hang", f"nothing for {HANGS_AFTER:.0f} s") if hangs else ("crash", ended)
            yield {"stage": "none", "how": "", "number": number - 1, **begun, "outcome": outcome[0], "what": outcome[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--calls", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--no-memory-limit", action="store_true", help="for sanitizers, which map terabytes")
    asked = parser.parse_args()
    limited = not asked.no_memory_limit
    for row in campaign(asked.seed, asked.first, asked.calls, asked.seconds, limited=limited):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
