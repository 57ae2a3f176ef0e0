"""Ranks that ask for different things, or do not answer: told in one line, on all of them, in finite time."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from forked import Ranks

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(folder, source: str) -> subprocess.Popen:
    script = folder / "script.py"
    script.write_text(RANK + textwrap.dedent(source))
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [*TORCHRUN, str(script), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


RANK = "import os, sys, time\nRANK = int(os.environ['RANK'])\n"
COMMAND = "from fastdd.cli import main\nout = sys.argv[1]\n"
WEIGHTS = "'weights --dataset c-digits --out {}/W.safetensors '.format(out).split()"
DISTIL = "'distill --dataset c-digits --iterations 1 --ipc 1 --width 8 --out {}/R'.format(out).split()"
SAME = "the ranks of this job do not ask for the same thing"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"main({WEIGHTS} + ['--variance', ['0.1', '0.01'][RANK]])", f"{SAME} (weights)"),
        (f"main({WEIGHTS} + ['--steps', ['3', '2'][RANK]])", f"{SAME} (weights)"),
        (f"main({WEIGHTS} + ['--json', out + '/x.json'] * RANK)", f"{SAME} (command)"),
        (f"main([{DISTIL}, {WEIGHTS}][RANK])", f"{SAME} (command)"),
        (f"os.environ['FASTDD_BACKEND'] = ['native', 'reference'][RANK]\nmain({WEIGHTS})", f"{SAME} (command)"),
    ],
)
def test_ranks_that_ask_for_different_things(tmp_path, source, message):
    ranks = Ranks(RANK + COMMAND + source, tmp_path)
    assert all(rank.end(timeout=90) not in (0, None) for rank in ranks.scripts)
    assert message in "".join(rank.errors for rank in ranks.scripts)
    assert not (tmp_path / "W.safetensors").exists()


def test_ranks_that_make_different_calls_end_with_their_interpreters(tmp_path):
    process = launch(
        tmp_path,
        """
        import fastdd
        data = fastdd.data.load("c-digits")
        if RANK:  # and no collective that is under way keeps the interpreter from its end
            fastdd.kde_weights(data, steps=2)
        else:
            fastdd.distill(data, out=sys.argv[1] + "/R", iterations=1, ipc=1, width=8, device="cpu")
        """,
    )
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    words = "rank 0's turn on rank 0 and an exchange on rank 1"
    assert f"the ranks of this job do not make the same calls ({words})" in errors


STANDS_STILL = """
import threading
from fastdd.core import ranks, watch
ranks.PATIENCE = 4.0
watch.BEAT_SECONDS = 0.25
ranks.join()

def work():
    until = time.monotonic() + 5
    while time.monotonic() < until:
        pass
    return 7

def stand():
    lock = threading.Lock()
    lock.acquire()
    while HOW == "stopped":
        pass
    lock.acquire()

# Busy for longer than the patience, which is alive; then for ever.
assert ranks.first(work) == 7
open(f"{sys.argv[1]}/waits-{RANK}", "w").close()
try:
    ranks.first(stand)
except ranks.RankLost as error:
    open(f"{sys.argv[1]}/told", "w").write(str(error))
os._exit(3)
"""


@pytest.mark.parametrize("how", ["stopped", "deadlocked"])
def test_a_rank_that_stands_still_is_given_up(tmp_path, how):
    job = Ranks(f"{RANK}HOW = {how!r}\n{STANDS_STILL}", tmp_path)
    still, waits = job.scripts
    try:
        for rank, script in enumerate((still, waits)):
            script.wait_until((tmp_path / f"waits-{rank}").exists)
        if how == "stopped":
            still.send(signal.SIGSTOP)
        assert waits.end(timeout=90) == 3
        assert "another rank of this job has not answered for 4 s; start again" in (tmp_path / "told").read_text()
    finally:
        still.kill()


def children_of(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.full
@pytest.mark.parametrize("command", [True, False])
def test_ranks_end_after_torchrun(tmp_path, command):
    busy = f"{COMMAND}main({DISTIL} + ['--iterations', '1000000'])"
    alone = "from fastdd.core import ranks\nranks.join()\nopen(sys.argv[1] + f'/in-{RANK}', 'w')\ntime.sleep(10**6)"
    process = launch(tmp_path, busy if command else alone)
    began = [tmp_path / "R" / "metrics.jsonl"] if command else [tmp_path / "in-0", tmp_path / "in-1"]
    until = time.monotonic() + 90
    while not all(path.exists() for path in began):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    left = children_of(process)
    assert len(left) == 2
    process.kill()
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < until
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)  # the ranks held its ends
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: torchrun, which started this job, has ended (killed?); start again, a run or experts with --resume"
    ]
    assert (tmp_path / "R" / "checkpoint.pt").exists() == command
