"""Runs tests/kernels/check_*.py in Triton's interpreter, and keeps what they print under .cache/.

Each has a process of its own, forked from one that has imported PyTorch and Triton and computed nothing.

An answer is kept with the digests of every file of this repository that its process had loaded, the tables of launch
configurations, and the versions of what is outside; where one of them differs, or is gone, the script runs again.
"""

import fcntl
import functools
import hashlib
import inspect
import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "tests" / "kernels"
CACHE = ROOT / ".cache" / "kernels"


def answer(script: str) -> str:
    """What a script prints, from the cache where nothing that it depends on has changed.

    Raises:
        AssertionError: it failed; with what it wrote to standard error.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / f"{script}.json"
    with open(kept.with_suffix(".lock"), "w") as lock:  # who else asks meanwhile gets the same answer
        fcntl.flock(lock, fcntl.LOCK_EX)
        if kept.is_file():
            found = json.loads(kept.read_text())
            if found["outside"] == _outside() and all(_digest(name) == sha for name, sha in found["files"].items()):
                return found["printed"]
        content = _in_a_process(script)
        if content.pop("steady"):
            partial = kept.with_suffix(".partial")
            partial.write_text(json.dumps(content))
            partial.replace(kept)
    return content["printed"]


def _in_a_process(script: str) -> dict:
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        server.stdin.write(f"{script}\t{folder}\n")
        server.stdin.flush()
        status = server.stdout.readline().strip()
        files = {name: Path(folder) / name for name in ("content", "errors")}
        assert status == "0", (
            files["errors"].read_text() if files["errors"].exists() else f"{script}: {status or 'died'}"
        )
        return json.loads(files["content"].read_text())


@functools.cache
def _server() -> subprocess.Popen:
    """Ends with this process, whose end closes its input."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__], env=environment, **pipes)


def _serve() -> None:
    """For every line of the input, a script and a folder: a fork runs the script and leaves its content there."""
    import torch  # noqa: F401
    import triton  # noqa: F401

    for line in sys.stdin:
        script, folder = line.rstrip("\n").split("\t")
        child = os.fork()
        if not child:
            errors = os.open(Path(folder) / "errors", os.O_WRONLY | os.O_CREAT)
            os.dup2(errors, 2)
            status = 1
            try:
                (Path(folder) / "content").write_text(json.dumps(_run(script)))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@functools.cache
def _outside() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": version("torch"), "triton": version("triton")}


def _digest(name: str) -> str | None:
    path = ROOT / name
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _hasten_the_interpreter() -> None:
    """Before every launch and every call within one, Triton's interpreter goes through all names of ``triton.language``
    for those to replace, which is half of its time. They are the same ones each time, and a launch has replaced them
    when its calls begin. Additions of integers look for overflow, which tensors of these sizes can't reach."""
    from triton.runtime import interpreter

    if not hasattr(interpreter, "_patch_builtin") or not hasattr(interpreter, "_LangPatchScope"):
        return
    names = {}

    def patch_builtin(package, *rest):
        if package not in names:
            names[package] = [name for name, member in inspect.getmembers(package) if is_builtin(member)]
        for name in names[package]:
            member = getattr(package, name)
            if is_builtin(member):
                interpreter._patch_attr(package, name, member, *rest)

    @functools.cache
    def languages(function):
        return [language for language in (tl, tl.core) if language in function.__globals__.values()]

    def patch_language(function):
        fresh = any(is_builtin(language.load) for language in languages(function))
        return every_name(function) if fresh else interpreter._LangPatchScope()

    tl, is_builtin, every_name = interpreter.tl, interpreter.tl.core.is_builtin, interpreter._patch_lang
    interpreter._patch_builtin, interpreter._patch_lang = patch_builtin, patch_language
    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)


def _run(script: str) -> dict:
    start = time.time()
    _hasten_the_interpreter()
    printed = StringIO()
    with redirect_stdout(printed):
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    loaded = {Path(file).resolve() for file in modules if file} | {
        SCRIPTS / script,
        *(ROOT / "kernels").rglob("*.json"),
    }
    # Without an installed package below this folder (a virtual environment), and names that are no files (torch.ops).
    inside = sorted(
        path for path in loaded if ROOT in path.parents and "site-packages" not in path.parts and path.is_file()
    )
    return {
        "printed": printed.getvalue(),
        "outside": _outside(),
        "files": {str(path.relative_to(ROOT)): _digest(path) for path in inside},
        # A file written since the start may not be the one that was loaded.
        "steady": all(path.stat().st_mtime < start for path in inside),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPTS))
    _serve()
