"""Runs tests/kernels/check_*.py, each in a process of Triton's interpreter, and keeps what they print under .cache/.

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
import time
from contextlib import redirect_stdout
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
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@functools.cache
def _outside() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": version("torch"), "triton": version("triton")}


def _digest(name: str) -> str | None:
    path = ROOT / name
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _look_up_builtins_once() -> None:
    """Before every launch and every call within one, Triton's interpreter goes through all names of ``triton.language``
    for those to replace, which is a third of its time; they are the same ones each time."""
    from triton.runtime import interpreter

    if not hasattr(interpreter, "_patch_builtin"):
        return
    names = {}

    def patch_builtin(package, *rest):
        if package not in names:
            names[package] = [name for name, member in inspect.getmembers(package) if is_builtin(member)]
        for name in names[package]:
            member = getattr(package, name)
            if is_builtin(member):
                interpreter._patch_attr(package, name, member, *rest)

    is_builtin = interpreter.tl.core.is_builtin
    interpreter._patch_builtin = patch_builtin


def _run(script: str) -> dict:
    start = time.time()
    _look_up_builtins_once()
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
    print(json.dumps(_run(sys.argv[1])))
