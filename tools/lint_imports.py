"""import-linter on the package as it is installed: with kernels/ and bench/ as fastdd.kernels and fastdd.bench.

They lie beside fastdd/, where import-linter takes them for packages of other names, and sees no import of theirs. So
the modules are copied to where an installation has them, and linted there.

    python tools/lint_imports.py [FOLDER]
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = {"fastdd": "fastdd", "kernels": "fastdd/kernels", "bench": "fastdd/bench"}  # as in setup.py


def lint(root: Path) -> int:
    """Hold the modules under a checkout's root to the contracts of its pyproject.toml; 0 if all are kept."""
    with tempfile.TemporaryDirectory() as folder:
        for source, target in _PACKAGES.items():
            shutil.copytree(root / source, Path(folder, target), ignore=_all_but_modules, dirs_exist_ok=True)
        # import-linter looks for the package on the path, which it begins with the working directory.
        before = Path.cwd()
        os.chdir(folder)
        try:
            return lint_imports(config_filename=str(root / "pyproject.toml"), no_cache=True)
        finally:
            os.chdir(before)


def _all_but_modules(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if name == "__pycache__" or not (name.endswith(".py") or Path(folder, name).is_dir())
    ]


if __name__ == "__main__":
    sys.exit(lint(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
