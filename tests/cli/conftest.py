"""A command line, run in this process."""

from functools import partial

import pytest

from fastdd.api import samples
from fastdd.cli import main
from fastdd.session import estimate


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command line in an empty folder, with short estimates; returns (exit code, stdout, stderr)."""
    monkeypatch.delenv("FASTDD_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "_SECONDS", 0.05)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def few_steps(monkeypatch):
    """Weights and groups of an encoder of next to no training: it matters where they go, not how good they are."""
    for name in ("kde_weights", "pseudo_groups"):
        monkeypatch.setattr(samples, name, partial(getattr(samples, name), steps=3))
