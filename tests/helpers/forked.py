"""Scripts that tests run and kill, in children forked from a server that has imported fastdd already.

A start costs milliseconds in place of an interpreter's seconds. The server has one thread and has computed nothing, so
that a child is as a new process is: what it computes has the same bits.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_COMMANDS = ("data", "distill", "evaluate", "experts", "export", "import_", "report", "reproduce", "weights")
_FORKS.set_forkserver_preload(
    [
        *("fastdd.session", "fastdd.evaluation", "fastdd.experts.training", "fastdd.methods"),
        *(f"fastdd.cli.{command}" for command in _COMMANDS),
        # What they import where they need it, each time for a second or more.
        *("torch._refs", "torch._dynamo", "sklearn.cluster", "sklearn.datasets", "safetensors.torch", "jinja2"),
        *("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    ]
)


class Script:
    """A running script, with its output in files, so that no pipe can fill.

    Args:
        source: Python code, run as the main module.
        arguments: its ``sys.argv[1:]``.
    """

    def __init__(self, source: str, *arguments: object) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("out", "errors")]
        for path in self._files:
            path.touch()
        arguments = [str(argument) for argument in arguments]
        self._process = _FORKS.Process(target=_run, args=(source, arguments, *self._files), daemon=True)
        self._process.start()

    @property
    def output(self) -> str:
        return self._files[0].read_text()

    @property
    def errors(self) -> str:
        return self._files[1].read_text()

    def wait_until(self, condition) -> None:
        """Return as soon as ``condition()`` holds; fail where the script ends before."""
        while not condition():
            time.sleep(0.005)
            assert self._process.exitcode is None, f"ended with {self._process.exitcode}: {self.errors}"

    def wait_for_lines(self, number: int) -> None:
        """Return when it has printed so many lines."""
        self.wait_until(lambda: self.output.count("\n") >= number)

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def end(self, timeout: float = 120) -> int:
        """Wait for its end; the exit status, negative where a signal ended it."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"still running after {timeout} s"
        return self._process.exitcode

    def succeed(self) -> None:
        """Wait for its end, and fail with what it wrote where that is no success."""
        assert self.end() == 0, self.errors


class Ranks:
    """The ranks of one job on this machine, as torchrun starts them: it keeps their store, and they are its clients.

    Not as under torchrun, nothing runs at an interpreter's end, and a rank that is lost ends no other.
    """

    def __init__(self, source: str, *arguments: object, number: int = 2) -> None:
        from torch.distributed import TCPStore

        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        job = {
            **{"TORCHELASTIC_RUN_ID": "job", "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": number},
            **{"LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self._store.port},
        }
        self.scripts = []
        for rank in range(number):
            own = {name: str(value) for name, value in {**job, "RANK": rank, "LOCAL_RANK": rank}.items()}
            start = f"import os\nos.environ.update({own!r})\n"
            self.scripts.append(Script(start + source, *arguments))


def _run(source: str, arguments: list[str], output: Path, errors: Path) -> None:
    for number, path in ((1, output), (2, errors)):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["script", *arguments]
    exec(compile(source, "<script>", "exec"), {"__name__": "__main__"})
