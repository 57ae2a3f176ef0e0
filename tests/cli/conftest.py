"""A command line, run in this process."""

import pytest

from fastdd.cli import main


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command line in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.delenv("FASTDD_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return call
