"""Packages that a script imports and that are not installed, with what it uses of them: read from its text, at once.

Scripts fail at an import, and often at the next one an installation later. What is read here is the script and the
modules of its own that it imports; nothing is executed.
"""

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.util import decode_source
from pathlib import Path


@dataclass
class Missing:
    """A package that is not installed.

    Attributes:
        uses: its attributes that the code names, such as ``enhance.ZCAWhitening``.
        files: names of the files that import it.
    """

    name: str
    uses: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        uses = f"{', '.join(sorted(self.uses))}; " if self.uses else ""
        return f"{self.name} ({uses}{', '.join(sorted(self.files))})"


def notice(missing: Iterable[Missing]) -> str:
    """All of them in one line."""
    return f"not installed, and imported by the script: {', '.join(map(str, missing))}"


class _Imports(ast.NodeVisitor):
    """Imports that happen when a module is executed: in no function, and with nobody to catch their failure."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, int]] = []  # name, and dots before it
        self.names: dict[str, str] = {}  # of the module, by what the code calls it
        self.taken: dict[str, set[str]] = {}  # imported from it by name
        self.folders: list[str] = []  # put on sys.path as they are written

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.modules.append((alias.name, 0))
            top, _, rest = alias.name.partition(".")
            self.names[alias.asname or top] = alias.name if alias.asname else top
            self.taken.setdefault(top, set()).update({rest} - {""})

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        top, _, rest = (node.module or "").partition(".")
        self.modules.append((node.module or "", node.level))
        for alias in node.names:
            if node.level or not rest:  # it may be a module
                self.modules.append((f"{node.module}.{alias.name}" if node.module else alias.name, node.level))
            if not node.level:
                self.taken.setdefault(top, set()).add(f"{rest}.{alias.name}" if rest else alias.name)

    def visit_Try(self, node: ast.Try) -> None:
        for part in (*node.orelse, *node.finalbody):
            self.visit(part)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Not now."""

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) in ("sys.path.append", "sys.path.insert"):
            last = node.args[-1] if node.args else None
            if isinstance(last, ast.Constant) and isinstance(last.value, str):
                self.folders.append(os.path.abspath(last.value))


def _dotted(node: ast.Attribute) -> tuple[str, str]:
    """``wandb`` and ``config.update`` of wandb.config.update; an empty name for attributes of anything else."""
    parts = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    return (inner.id if isinstance(inner, ast.Name) else "", ".".join(reversed(parts)))


def _uses(tree: ast.Module, imports: _Imports, top: str) -> set[str]:
    """Attributes of the package that the module names, the longest of each."""
    found = set(imports.taken.get(top, ()))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name, attributes = _dotted(node)
            module = imports.names.get(name, "")
            if module.partition(".")[0] == top:
                found.add(f"{module.partition('.')[2]}.{attributes}".strip("."))
    return {use for use in found if not any(other.startswith(f"{use}.") for other in found)}


class _Reader:
    def __init__(self, folder: Path):
        # Where the code base is, also where ``sys.path`` leads only once the script runs.
        self._own = [folder, *folder.parents[:2]]
        self._paths = [str(folder), *sys.path]
        self._read: set[Path] = set()
        self.missing: dict[str, Missing] = {}

    def read(self, file: Path) -> None:
        """A file, and those of the code base that it imports."""
        if file in self._read:
            return
        self._read.add(file)
        try:
            tree = ast.parse(decode_source(file.read_bytes()))
        except (OSError, SyntaxError, ValueError):
            return
        imports = _Imports()
        imports.visit(tree)
        self._paths += imports.folders
        self._own += map(Path, imports.folders)
        for name, level in imports.modules:
            if level:
                base = file.parents[level - 1]
                self._follow(name, [str(base)])
            elif name.partition(".")[0] not in sys.builtin_module_names:
                self._one(name, file, tree, imports)

    def _one(self, name: str, file: Path, tree: ast.Module, imports: _Imports) -> None:
        top = name.partition(".")[0]
        if self._is_own(top):
            self._follow(name, self._paths)
        elif not self._installed(top):
            missing = self.missing.setdefault(top, Missing(top))
            missing.files.add(file.name)
            missing.uses |= _uses(tree, imports, top)

    def _is_own(self, top: str) -> bool:
        return any((base / top).is_dir() or (base / f"{top}.py").is_file() for base in self._own)

    def _installed(self, top: str) -> bool:
        return PathFinder.find_spec(top, self._paths) is not None or any(
            finder.find_spec(top, None) is not None for finder in sys.meta_path
        )

    def _follow(self, name: str, paths: list[str]) -> None:
        for part in _prefixes(name):
            for base in paths:
                place = Path(base or ".", *part)
                for file in (place.with_suffix(".py"), place / "__init__.py"):
                    if file.is_file() and not _is_installed(file):
                        self.read(file.resolve())


def _is_installed(file: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & {*file.parts}) or file.is_relative_to(os.path.dirname(os.__file__))


def _prefixes(name: str) -> Iterator[list[str]]:
    parts = [part for part in name.split(".") if part]
    return (parts[:count] for count in range(1, len(parts) + 1))


def find(script: str | os.PathLike) -> list[Missing]:
    """Packages that ``script`` will not find, by name."""
    path = Path(os.path.realpath(script))
    reader = _Reader(path.parent)
    reader.read(path)
    return [reader.missing[name] for name in sorted(reader.missing)]
