"""What a reader should know of a script's loops: what was computed together, and what to write where nothing was."""

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastdd.compat.deferred import sites
from fastdd.compat.deferred.sites import Site


@dataclass(frozen=True)
class Loop:
    """A script's loop over classes that takes real images, and synthetic ones by their class.

    Attributes:
        line, last: of the file.
        function: of :mod:`fastdd.compat` that stands for it; empty where its loss is none that is known.
        call: of that function, in the script's own names.
    """

    line: int
    last: int
    function: str = ""
    call: str = ""


def loops(text: str) -> list[Loop]:
    """The matching loops of a script: ``for c in ...`` with ``get_images(c, n)`` and ``images[c * ipc : ...]``."""
    found = []
    for block in ast.walk(ast.parse(text)):
        for name in ("body", "orelse"):
            statements = getattr(block, name, None) or []
            for k, node in enumerate(statements if isinstance(statements, list) else []):
                if isinstance(node, ast.For) and isinstance(node.target, ast.Name):
                    found.append(_loop(node, node.target.id, statements[k + 1 :]))
    return [loop for loop in found if loop is not None]


def _loop(node: ast.For, variable: str, after: list[ast.stmt]) -> Loop | None:
    inside = [*ast.walk(ast.Module(node.body, []))]
    real = next(_calls_with(inside, variable), None)
    synthetic = sorted(_sliced_by(inside, variable), key=lambda name: "im" not in name)
    if real is None or not synthetic:
        return None
    where = node.lineno, node.end_lineno or node.lineno
    kind = _kind(inside) or _kind([*ast.walk(ast.Module(after, []))])
    if kind is None:
        return Loop(*where)
    by_group = any(isinstance(inner, ast.For) and "unique" in ast.dump(inner.iter) for inner in inside)
    function = ("fairdd_" if by_group else "") + kind
    return Loop(*where, function, f"{function}(net, {real}, {synthetic[0]}, args)")


def _kind(nodes: list[ast.AST]) -> str | None:
    """The loss that is worked out: of gradients, of squared differences of means; None for any other."""
    names = {_name(call.func) for call in nodes if isinstance(call, ast.Call)}
    if "match_loss" in names:
        return "dc_loss"
    squares = any(
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Pow)
        and isinstance(node.left, ast.BinOp)
        and isinstance(node.left.op, ast.Sub)
        and all(isinstance(side, ast.Call) and _name(side.func) == "mean" for side in (node.left.left, node.left.right))
        for node in nodes
    )
    return "dm_loss" if squares and "abs" not in names else None


def _name(function: ast.expr) -> str:
    return getattr(function, "id", None) or getattr(function, "attr", "")


def _calls_with(inside: list[ast.AST], variable: str) -> Iterator[str]:
    """Functions that are called with the class and a number."""
    for call in inside:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and len(call.args) == 2:
            first = call.args[0]
            yield from [call.func.id] if isinstance(first, ast.Name) and first.id == variable else []


def _sliced_by(inside: list[ast.AST], variable: str) -> Iterator[str]:
    """Variables whose rows from a multiple of the class on are read."""
    for part in inside:
        if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) and isinstance(part.slice, ast.Slice):
            lower = part.slice.lower
            if lower is not None and any(isinstance(n, ast.Name) and n.id == variable for n in ast.walk(lower)):
                yield part.value.id


def _reason(places: list[Site]) -> str | None:
    """Why calls in a loop were not computed together; None if they could be, and there was nothing to win."""
    for site in places:
        if site.refusal:
            return f"line {site.line}: {site.refusal}"
        if site.why:
            return f"line {site.line}: {max(site.why, key=site.why.get)} asks for each result"
    return None if places else "it called no network that fastdd has replaced"


def notices(script: str | os.PathLike | None = None) -> list[str]:
    """What was computed together; of loops of ``script`` that were left to it, why, and the two lines that do it."""
    seen, (differences, why) = sites.seen(), sites.comparisons()
    said = []
    for site in seen:
        if site.joined:
            compared = (
                f"{len(differences)} comparisons agreed, to {max(differences):.1g}" if differences else "compared"
            )
            where = f"{os.path.basename(site.file)}, line {site.line}"
            said.append(f"{where}: {site.calls} calls computed together in {site.joined} steps ({compared})")
    if why:
        said.append(f"calls computed together differ from the script's own, which were used instead: {why}")
    return said if script is None else said + _left_alone(Path(script), seen)


def _left_alone(script: Path, seen: list[Site]) -> list[str]:
    try:
        found = loops(script.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    path = os.path.abspath(script)
    inside = {loop: [s for s in seen if s.file == path and loop.line <= s.line <= loop.last] for loop in found}
    reached = any(inside.values())
    said = []
    for loop, places in inside.items():
        if any(site.joined for site in places) or (reached and not places):
            continue
        if (reason := _reason(places)) is not None:
            said.append(f"{script.name}, line {loop.line}: the loop over classes was left to the script ({reason})")
            if loop.function:
                said[-1] += (
                    ". Two lines in its place, and of the loss, do all classes at once:\n"
                    f"    from fastdd.compat import {loop.function}\n    loss = {loop.call}"
                )
    return said
