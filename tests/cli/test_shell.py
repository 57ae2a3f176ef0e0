"""What the shell and schedulers see: completion, ``-h``, words for all commands, signals and exit codes."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastdd.cli import main
from fastdd.cli.commands import COMMANDS, TOPICS
from fastdd.cli.talk import EVERYWHERE
from fastdd.core import stop
from fastdd.data import SyntheticSet
from fastdd.debias import MODES
from fastdd.exchange import FORMATS
from fastdd.methods import METHODS
from fastdd.session import Callback

SMALL = ("--dataset", "c-digits", "--ipc", 1, "--width", 4, "--batch-real", 8)
RECIPE = Path(__file__).resolve().parents[2] / "examples" / "slurm.sh"


@pytest.fixture
def complete(capsys, monkeypatch):
    """The completions that bash is given for a line."""

    def call(line):
        monkeypatch.setenv("_FASTDD_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit):
            main([])
        return capsys.readouterr().out.split()

    return call


def test_the_shell_completes(complete):
    assert complete("fastdd d") == ["demo", "distill", "data"]
    assert complete("fastdd --qu") == ["--quiet"]
    assert complete("fastdd distill --method ") == list(METHODS)
    assert complete("fastdd distill --debias fairdd-") == [name for name in MODES if name.startswith("fairdd-")]
    assert complete("fastdd distill --dataset c-d") == ["c-digits"]
    assert complete("fastdd distill --metric ou") == ["ours"]
    assert complete("fastdd distill --arch ConvNetW3") == ["ConvNetW32"]
    assert "--dry-run" in complete("fastdd distill --d")
    assert complete("fastdd evaluate RUN --arch LeNet,ResNet18_") == ["LeNet,ResNet18_AP"]
    assert complete("fastdd methods dat") == ["datadam"]
    assert complete("fastdd export RUN --to ") == list(FORMATS)
    assert complete("fastdd data b") == ["build"]
    assert complete("fastdd distill --verb") == ["--verbose"]


def test_commands_are_completed_without_their_modules():
    code = (
        "import sys; from fastdd.cli import main\ntry: main([])\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "_FASTDD_COMPLETE": "complete_bash", "COMP_WORDS": "fastdd ex", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["experts", "explain", "export"]
    assert done.stderr.strip() == "False"


def test_every_command_is_of_one_topic():
    named = [name for names in TOPICS.values() for name in names]
    assert sorted(named) == sorted(COMMANDS)


def test_the_short_word_for_help(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("-h")[1] == run("--help")[1]
    for words in (["distill"], ["data"], ["data", "build"], ["estimate"], ["run"]):
        code, text, _ = run(*words, "-h")
        assert (code, text) == (0, run(*words, "--help")[1])
        assert "Any command:" in text
        assert all(word in text for word in EVERYWHERE)


def test_quiet_and_verbose_exclude_each_other(run):
    code, _, error = run("methods", "--quiet", "--verbose")
    assert (code, error) == (2, "error: --quiet and --verbose: give one of them\n")
    assert run("methods", "--quiet")[1].startswith("method")


def test_misspelt_words_get_the_one_that_is_meant(run):
    for words, meant in (
        (("distill", "--iteration", 5), "--iterations?"),
        (("distil",), "'distill'?"),
        (("distill", "--dataset", "c-digits", "--method", "dmm"), "dm?"),
        (("distill", "--dataset", "c-digits", "--debias", "fairddd"), "fairdd?"),
        (("distill", "--dataset", "c-digits", "--method", "dc", "--metric", "our"), "ours?"),
        (("distill", "--dataset", "c-digits", "--data-option", "bias_ration=0.5"), "bias_ratio?"),
        (("train", "--dataset", "c-digits", "--training", "lfff"), "lff?"),
        (("evaluate", "whole", "--dataset", "c-digits", "--protocol", "dcbenc"), "dcbench?"),
        (("bench", "--case", "augment/clor"), "augment/color?"),
        (("distill", *SMALL, "--log", "tensorbord"), "tensorboard?"),
    ):
        code, _, error = run(*words)
        assert (code, error.count("\n")) == (2, 1), error
        assert f"did you mean {meant}" in error.casefold(), error


class Signal(Callback):
    """Sends this process a signal at a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def wants_checkpoint(self, run):
        if run.step == self.step:
            os.kill(os.getpid(), self.number)
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_after_a_checkpoint(run, tmp_path, monkeypatch, number, code):
    from fastdd.cli import distill

    words = ("distill", *SMALL, "--iterations", 4)
    monkeypatch.setattr(distill, "RunLog", lambda *_: Signal(number, 2))
    before = signal.getsignal(number)
    found = run(*words, "--log", "tensorboard", "--out", "a")
    assert found == (code, "", "interrupted: stopped after 2 of 4 steps; --resume continues\n")
    assert signal.getsignal(number) == before
    assert run(*words, "--out", "a", "--resume")[0] == 0
    assert run(*words, "--out", "b")[0] == 0
    images = [SyntheticSet.load(tmp_path / name / "synthetic.safetensors").images for name in "ab"]
    assert images[0].equal(images[1])


def test_a_handler_of_the_callers_own_stays():
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        own = signal.getsignal(signal.SIGUSR1)
        with stop.stop_requests():
            assert signal.getsignal(signal.SIGUSR1) is own
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.full
def test_the_recipe_for_slurm_puts_a_stopped_run_back_and_finishes_it(run, tmp_path):
    """As Slurm calls it: a signal to the script, and the script again; scontrol here writes what it is asked for."""
    tools = tmp_path / "bin"
    tools.mkdir()
    programs = {
        "fastdd": f'#!/bin/sh\nexec {sys.executable} -m fastdd "$@"\n',
        "scontrol": f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n',
    }
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "17",
        "SLURM_CPUS_PER_TASK": "1",
    }
    options = [*map(str, SMALL), "--iterations", "800", "--checkpoint-seconds", "3600", "--out", str(tmp_path / "run")]

    def job():
        with open(tmp_path / "log", "a") as log:
            return subprocess.Popen(
                ["bash", str(RECIPE), *options], env=environment, stdout=log, stderr=log, cwd=tmp_path
            )

    metrics = tmp_path / "run" / "metrics.jsonl"
    for times, number in enumerate((signal.SIGUSR1, signal.SIGTERM), 1):
        before = metrics.stat().st_size if metrics.exists() else 0
        stopped = job()
        for _ in range(3000):
            if metrics.exists() and metrics.stat().st_size > before:
                break
            time.sleep(0.1)
        stopped.send_signal(number)
        assert stopped.wait(300) == 0
        assert (tmp_path / "asked").read_text() == times * "requeue 17\n"
        assert "interrupted" in run("runs", tmp_path / "run")[1]
    assert job().wait(900) == 0
    assert (tmp_path / "asked").read_text() == 2 * "requeue 17\n"
    assert "finished" in run("runs", tmp_path / "run")[1]
    assert run("distill", *options[:-1], tmp_path / "whole")[0] == 0
    images = [SyntheticSet.load(tmp_path / name / "synthetic.safetensors").images for name in ("run", "whole")]
    assert images[0].equal(images[1])
