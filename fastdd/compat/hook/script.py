"""Running a script as Python runs it, so that neither it nor whoever reads its tracebacks can tell."""

import builtins
import os
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

from fastdd.compat.hook import finder

# Frames that are not the script's, nor of what it calls: those that run it, and that load its modules.
_HIDDEN = (__file__, finder.__file__)


def check(script: str | os.PathLike) -> None:
    """Raise unless there is a file to run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder.
    """
    if Path(script).is_dir():
        raise ValueError(f"{script} is a folder, not a script")
    if not Path(script).is_file():
        raise FileNotFoundError(f"there is no script {script}")


def folder(script: str | os.PathLike) -> str:
    """Where the script's own modules are."""
    return os.path.dirname(os.path.realpath(script))


def run(script: str, arguments: Sequence[str]) -> int | str | None:
    """Run ``script`` as ``__main__``, and return its exit status: of :func:`sys.exit`, or 1 after an exception.

    As by ``python SCRIPT ARGUMENTS``: ``sys.argv``, ``sys.path[0]``, ``__file__`` and the frames of a traceback are the
    script's; ``sys.excepthook`` shows what it raises. An interrupt is 130.
    """
    path = os.path.abspath(script)
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = folder(script)
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=path,
        __builtins__=builtins,
        __loader__=SourceFileLoader("__main__", path),
        __package__=None,
        __cached__=None,
    )
    sys.modules["__main__"] = main
    try:
        exec(compile(Path(path).read_bytes(), path, "exec", dont_inherit=True), main.__dict__)
    except SystemExit as leaving:
        return leaving.code
    except BaseException as error:
        sys.excepthook(type(error), error, _shown(error))
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _shown(error: BaseException) -> TracebackType | None:
    """The error's traceback, and those of what led to it, without frames that load and run the script."""
    seen: BaseException | None = error
    done = set()
    while seen is not None and id(seen) not in done:
        done.add(id(seen))
        seen.__traceback__ = _filtered(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    return error.__traceback__


def _filtered(traceback: TracebackType | None) -> TracebackType | None:
    if traceback is None:
        return None
    traceback.tb_next = _filtered(traceback.tb_next)
    file = traceback.tb_frame.f_code.co_filename
    return traceback.tb_next if file in _HIDDEN or file.startswith("<frozen importlib") else traceback
