"""Ranks that ask for different things, or do not answer: told in one line, on all of them, in finite time."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(folder, source: str) -> subprocess.Popen:
    script = folder / "script.py"
    script.write_text("import os, sys, time\nRANK = int(os.environ['RANK'])\n" + textwrap.dedent(source))
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [*TORCHRUN, str(script), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


COMMAND = "from fastdd.cli import main\nout = sys.argv[1]\n"
WEIGHTS = "'weights --dataset c-digits --out {}/W.safetensors '.format(out).split()"
DISTIL = "'distill --dataset c-digits --iterations 1 --ipc 1 --width 8 --out {}/R'.format(out).split()"
SAME = "the ranks of this job do not ask for the same thing"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{COMMAND}main({WEIGHTS} + ['--variance', ['0.1', '0.01'][RANK]])", f"{SAME} (weights)"),
        (f"{COMMAND}main({WEIGHTS} + ['--steps', ['3', '2'][RANK]])", f"{SAME} (weights)"),
        (f"{COMMAND}main({WEIGHTS} + ['--json', out + '/x.json'] * RANK)", f"{SAME} (command)"),
        (f"{COMMAND}main([{DISTIL}, {WEIGHTS}][RANK])", f"{SAME} (command)"),
        (
            f"os.environ['FASTDD_BACKEND'] = ['native', 'reference'][RANK]\n{COMMAND}main({WEIGHTS})",
            f"{SAME} (command)",
        ),
        (
            """
            import fastdd
            data = fastdd.data.load("c-digits")
            try:
                if RANK:
                    fastdd.kde_weights(data, steps=2)
                else:
                    fastdd.distill(data, out=sys.argv[1] + "/R", iterations=1, ipc=1, width=8, device="cpu")
            except ValueError as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            """,
            "the ranks of this job do not make the same calls (rank 0's turn on rank 0 and an exchange on rank 1)",
        ),
    ],
)
def test_ranks_that_ask_for_different_things(tmp_path, source, message):
    process = launch(tmp_path, source)
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert message in errors
    assert not (tmp_path / "W.safetensors").exists()


def test_a_rank_that_stands_still_is_given_up(tmp_path):
    process = launch(
        tmp_path,
        """
        from fastdd.core import ranks, watch
        ranks.PATIENCE = 6.0
        watch.BEAT_SECONDS = 0.5
        ranks.join()
        open(f"{sys.argv[1]}/pid-{RANK}", "w").write(str(os.getpid()))
        # Busy for longer than the patience, which is alive; then for ever.
        assert ranks.first(lambda: time.sleep(8) or 7) == 7
        open(f"{sys.argv[1]}/waits-{RANK}", "w").close()
        try:
            ranks.first(lambda: time.sleep(10**6))
        except ranks.RankLost as error:
            open(f"{sys.argv[1]}/told", "w").write(str(error))
        os._exit(3)
        """,
    )
    until = time.monotonic() + 90
    while not all((tmp_path / f"waits-{rank}").exists() for rank in range(2)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    stopped = int((tmp_path / "pid-0").read_text())
    os.kill(stopped, signal.SIGSTOP)
    try:
        while not (tmp_path / "told").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.2)
        assert "another rank of this job has not answered for 6 s; start again" in (tmp_path / "told").read_text()
    finally:
        os.kill(stopped, signal.SIGKILL)
        process.communicate(timeout=60)
