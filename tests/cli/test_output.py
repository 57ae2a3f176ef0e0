"""What is printed never costs what was computed; what is written goes where a path leads."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from forked import Script
from rich.table import Table

import fastdd
from fastdd import api, report
from fastdd.cli import _report, main
from fastdd.cli.console import PlainConsole
from fastdd.cli.output import tell

FIGURES = ("evaluate", "random", "--dataset", "c-digits", "--ipc", "1", "--nets", "1", "--epochs", "1")
SMALL = {"method": "dm", "ipc": 1, "iterations": 1, "width": 8, "batch_real": 8}


class Broken(io.StringIO):
    """Standard output of which every write fails."""

    def __init__(self, code):
        super().__init__()
        self.code = code

    def write(self, _):
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.EPIPE, ""), (errno.ENOSPC, "error: cannot write to standard output: No space left on device")],
)
def test_figures_are_saved_where_they_cannot_be_printed(tmp_path, monkeypatch, capsys, code, said):
    monkeypatch.setattr(sys, "stdout", Broken(code))
    with pytest.raises(SystemExit) as exit_:
        main([*FIGURES, "--json", str(tmp_path / "x.json")])
    assert exit_.value.code == 1
    assert len(json.loads((tmp_path / "x.json").read_text())["rows"]) == 1
    assert capsys.readouterr().err.startswith(said)


def test_closed_and_ascii_output(tmp_path):
    program = f"{sys.executable} -m fastdd methods"
    closed = subprocess.run(f"{program} >&-", shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert (closed.returncode, closed.stderr) == (0, "")
    plain = subprocess.run(
        [sys.executable, "-c", "from fastdd.cli.output import Output\nwith Output(): print('12 \\u00b1 1')"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert plain.stdout == "12 ? 1\n"


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_results_to_standard_output_are_alone_there(run, tmp_path, path):
    code, out, err = run("estimate", "evaluate", "random", "--dataset", "c-digits", "--ipc", "1", "--json", path)
    assert code == 0, err
    assert json.loads(out)["schema"] == 1
    assert "memory" in err
    assert os.listdir(tmp_path) == []
    assert "memory" in run("estimate", "evaluate", "random", "--dataset", "c-digits", "--ipc", "1")[1]


def test_evaluations_that_end_together_keep_their_rows(tmp_path):
    data = fastdd.data.load("c-digits")
    synthetic = fastdd.distill(data, out=tmp_path / "R", **SMALL)
    evaluated = fastdd.evaluate(synthetic, data, nets=1, epochs=1)
    row = report.result_row(evaluated, dataset="c-digits", method="dm", debias="none", ipc=1)
    add = (
        "import json, sys, pathlib, fastdd; from fastdd.cli.results import add_results\n"
        "data, row = fastdd.data.load('c-digits'), json.loads(sys.argv[2])\n"
        "for n in range(8): add_results([row | {'seed': n}], data, pathlib.Path(sys.argv[1]), None)\n"
    )
    jobs = [Script(add, tmp_path / "R", json.dumps(row)) for _ in range(3)]
    assert [job.end() for job in jobs] == [0, 0, 0]
    assert len(json.loads((tmp_path / "R" / "result.json").read_text())["rows"]) == 24


def test_names_cannot_steer_the_terminal():
    console, name = PlainConsole(file=io.StringIO(), width=60, markup=False), "red\x1b[2J\x07\x9b5"
    table = Table("class")
    table.add_row(name)
    console.print(table)
    console.print(name)
    text = console.file.getvalue()
    assert not set(text) & {"\x1b", "\x07", "\x9b"}
    assert "red\ufffd[2J" in text
    assert "\x1b" not in _report(ValueError(f"no class {name}"))[0]


def test_sigterm_is_one_line(run, monkeypatch):
    monkeypatch.setattr(api, "evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(9))
    before = signal.getsignal(signal.SIGTERM)
    assert run(*FIGURES) == (75, "", "interrupted: ended by SIGTERM\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_too_little_memory_is_one_line():
    cure = "; fastdd estimate tells what a run takes"
    for error, figure in (
        (MemoryError(), ""),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000 bytes."), "8 MB"),
        (MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"), "7.45 GiB"),
        (OSError(12, "Cannot allocate memory", "weights.npy"), ""),
        (RuntimeError('torch_call_dispatcher( "aten::new_empty", "") API call failed'), ""),
    ):
        told = f" ({figure} were asked for at once)" if figure else ""
        line = f"error: the memory is not enough for fastdd distill{told}{cure}"
        assert _report(error, ["distill", "--ipc", "1"]) == (line, 1)


class Unbuffered(io.RawIOBase):
    """Standard error as under torchrun: whatever is written goes out at once."""

    def __init__(self):
        self.written = []

    def writable(self):
        return True

    def write(self, data):
        self.written.append(bytes(data))
        return len(data)


def test_a_line_on_standard_error_is_one_write(monkeypatch):
    """Where print() writes a line's end by itself, which lets another process come in between."""
    raw = Unbuffered()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, write_through=True))
    tell("error: all of it")
    assert raw.written == [b"error: all of it\n"]
