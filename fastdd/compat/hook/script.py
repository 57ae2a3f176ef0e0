"""Running a script as Python runs it, so that neither it nor whoever reads its tracebacks can tell."""

import __future__

import ast
import builtins
import functools
import importlib.util
import multiprocessing.spawn
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

from fastdd.compat.hook import finder

# Frames that are not the script's, nor of what it calls: those that run it, and that load its modules.
_HIDDEN = (__file__, finder.__file__)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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


def file_of(module: str) -> str | None:
    """The file of a module below the working folder, without importing the packages that it is in; None elsewhere."""
    place = Path(*module.split("."))
    files = (place.with_suffix(".py"), place / "__main__.py")
    return next((str(file) for file in files if file.is_file()), None)


def run(script: str, arguments: Sequence[str], hook: finder.Hook | None = None) -> int | str | None:
    """Run ``script`` as ``__main__``, and return its exit status: of :func:`sys.exit`, or 1 after an exception.

    As by ``python SCRIPT ARGUMENTS``: ``sys.argv``, ``sys.path[0]``, ``__file__`` and the frames of a traceback are the
    script's; ``sys.excepthook`` shows what it raises. An interrupt is 130.

    ``hook``: looks at what the script itself defines.
    """
    path = os.path.abspath(script)
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = folder(script)
    main = _main(path, SourceFileLoader("__main__", path), None, None)
    return _status_of(lambda: _execute(main, path, hook))


def run_module(name: str, arguments: Sequence[str], hook: finder.Hook | None = None) -> int | str | None:
    """:func:`run` as by ``python -m NAME ARGUMENTS``: a module, or the ``__main__`` of a package.

    Raises:
        ModuleNotFoundError: no such module.
        ValueError: one without a source file.
    """
    sys.argv = ["-m", *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.getcwd()
    found: list[ModuleSpec | None] = []
    status = _status_of(lambda: found.append(_spec_of(name)))
    if not found:
        return status
    spec = found[0]
    if spec is None:
        raise ModuleNotFoundError(f"there is no module {name}")
    if not isinstance(spec.loader, SourceFileLoader):
        raise ValueError(f"{name} has no source file: fastdd runs Python modules")
    sys.argv[0] = spec.origin
    main = _main(spec.origin, spec.loader, spec.parent, spec)
    return _status_of(lambda: _execute(main, spec.origin, hook))


def _spec_of(name: str) -> ModuleSpec | None:
    """Where a module is; of a package, its ``__main__``. Imports the packages that it is in."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return None
        raise
    return spec


def execute_again(path: str, loader: SourceFileLoader, spec: ModuleSpec | None, hook: finder.Hook) -> None:
    """Execute a script as multiprocessing does in a process that it starts anew: not as ``__main__``, but in its place.

    In one dictionary, where multiprocessing leaves its functions with another than the module's.
    """
    multiprocessing.spawn.old_main_modules.append(sys.modules["__main__"])
    main = _main(path, loader, None if spec is None else spec.parent, spec, "__mp_main__")
    _execute(main, path, hook)


def _main(
    path: str, loader: SourceFileLoader, package: str | None, spec: ModuleSpec | None, name: str = "__main__"
) -> ModuleType:
    main = ModuleType(name)
    main.__dict__.update(
        __file__=path,
        __builtins__=builtins,
        __loader__=loader,
        __package__=package,
        __spec__=spec,
        __cached__=None if spec is None else spec.cached,
    )
    sys.modules["__main__"] = sys.modules[name] = main
    return main


def _status_of(call: Callable[[], None]) -> int | str | None:
    try:
        call()
    except SystemExit as leaving:
        return leaving.code
    except BaseException as error:
        sys.excepthook(type(error), error, _shown(error))
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _execute(main: ModuleType, path: str, hook: finder.Hook | None) -> None:
    """Execute a file in ``main``; where it defines functions that are known, piece by piece.

    A function of ``__main__`` has to be replaced between its definition and its first call. So the file is compiled
    in pieces, each up to the first statement that could call what was defined before, and the hook looks in between.
    Nothing is added to the text: line numbers, tracebacks and names are those of the file in one piece.
    """
    content = Path(path).read_bytes()
    source = None if hook is None else hook.source_of_main(content)
    if source is None:
        exec(compile(content, path, "exec", dont_inherit=True), main.__dict__)
        return
    tree = ast.parse(content, path)
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            flags |= functools.reduce(operator.or_, (getattr(__future__, x.name).compiler_flag for x in node.names))
    for piece in _pieces(tree.body):
        code = compile(ast.Module(piece, []), path, "exec", flags, dont_inherit=True)
        exec(code, main.__dict__)
        hook.look_at(main, source)


def _pieces(body: Sequence[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """The statements, a new piece at each that could call a function defined in the last."""
    piece: list[ast.stmt] = []
    for node in body:
        if _may_call(node) and any(isinstance(earlier, _DEFINITIONS) for earlier in piece):
            yield piece
            piece = []
        piece.append(node)
    yield piece


def _may_call(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return False
    if isinstance(node, _DEFINITIONS):
        return bool(node.decorator_list)
    return not isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) or any(
        isinstance(inner, ast.Call | ast.Await) for inner in ast.walk(node)
    )


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
