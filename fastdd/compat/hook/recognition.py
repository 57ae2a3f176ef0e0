"""Which functions and classes of a module are published distillation code: by names, signatures and source text."""

import ast
import hashlib
import inspect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from fastdd.compat.hook.digests import DIGESTS
from fastdd.compat.hook.replacements import ENOUGH, FAMILIES, TABLE, Replacement

_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)


@dataclass(frozen=True)
class Recognised:
    """A name of the table that a module defines.

    Attributes:
        original: what the module has.
        replacement: what may take its place; None if it must be left alone.
        why: it is left alone; empty otherwise.
        published: its source text is the published one, comments and layout aside.
    """

    name: str
    original: Any
    replacement: Replacement | None
    why: str
    published: bool


class Source:
    """A module's text, by the names that it defines at its top level."""

    def __init__(self, text: str):
        self._text = text
        self.nodes: dict[str, ast.stmt] = {}
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.nodes[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.nodes[node.targets[0].id] = node

    def names(self) -> set[str]:
        """Of functions and classes, and of methods as ``Class.method``."""
        names = set()
        for name, node in self.nodes.items():
            if not isinstance(node, ast.Assign):
                names.add(name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
        return names

    def returns(self, name: str) -> set[int]:
        """How many values the function's ``return`` statements give; 1 for anything but a written-out tuple."""
        return {
            len(node.value.elts) if isinstance(node.value, ast.Tuple) else 1
            for node in _without_inner_functions(self.nodes[name])
            if isinstance(node, ast.Return)
        }

    def decorated(self, name: str) -> bool:
        """Whether it has decorators."""
        return bool(self.nodes[name].decorator_list)

    def digest(self, names: tuple[str, ...]) -> str:
        """Of the tokens of what ``names`` define, comments and layout aside."""
        parts = []
        for name in names:
            segment = ast.get_source_segment(self._text, self.nodes[name]) if name in self.nodes else ""
            for token in tokenize.generate_tokens(io.StringIO(segment).readline):
                if token.type in (tokenize.INDENT, tokenize.DEDENT):
                    parts.append(tokenize.tok_name[token.type])
                elif token.type not in _LAYOUT:
                    parts.append(token.string)
            parts.append("")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _without_inner_functions(function: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield node
            yield from _without_inner_functions(node)


def signature_of(function: Any) -> str:
    """``(x, strategy='', seed=-1)``: names, kinds and defaults of parameters, no annotations."""
    signature = inspect.signature(function)
    plain = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def of_a_family(source: Source) -> bool:
    """Whether the module defines so many names of a family that they are no coincidence."""
    return any(len(names & source.names()) >= ENOUGH for names in FAMILIES.values())


def find(module: ModuleType, source: Source, replaced: set[str]) -> list[Recognised]:
    """What of the table a module of a family defines, in the table's order.

    ``replaced``: names that the module has from others and that are ours already.
    """
    if not of_a_family(source):
        return []
    done, recognised = set(replaced), []
    for name in dict.fromkeys(known.name for known in TABLE):
        original = getattr(module, name, None)
        if name not in source.nodes or getattr(original, "__module__", None) != module.__name__:
            continue
        known, why = _known(name, original, source, done)
        if not why:
            done.add(name)
        published = not why and source.digest((name, *known.parts)) in DIGESTS.get(name, ())
        recognised.append(Recognised(name, original, None if why else known, why, published))
    return recognised


def _known(name: str, original: Any, source: Source, done: set[str]) -> tuple[Replacement | None, str]:
    """What replaces it, or why nothing does."""
    if not isinstance(original, FunctionType | type) or source.decorated(name):
        return None, "decorated, or no plain function or class"
    signature = signature_of(original)
    mentioned = _mentioned(original.__code__) if isinstance(original, FunctionType) else set()
    known = next(
        (
            known
            for known in TABLE
            if (known.name, known.signature) == (name, signature) and known.mentions in (None, *mentioned)
        ),
        None,
    )
    if known is None:
        return None, f"{name}{signature} has other parameters than any known"
    if isinstance(original, type) != bool(known.methods):
        return None, "a function where a class is known, or the other way round"
    if isinstance(original, type):
        return known, _of_class(original, known)
    if known.returns is not None and source.returns(name) != {known.returns}:
        counts = " or ".join(map(str, sorted(source.returns(name)))) or "no"
        return None, f"returns {counts} values, not {known.returns}"
    lacking = sorted((set(known.needs) & mentioned) - done)
    if lacking:
        return None, f"calls the module's own {', '.join(lacking)}, which is not replaced"
    return known, ""


def _mentioned(code: CodeType) -> set[str]:
    """Names that a function, and those inside it, refer to."""
    inner = (_mentioned(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _of_class(original: type, known: Replacement) -> str:
    """Why a class is left alone, if it is."""
    if not set(original.__bases__) <= {object, nn.Module}:
        return f"derives from {', '.join(base.__name__ for base in original.__bases__)}"
    methods = {name: value for name, value in vars(original).items() if isinstance(value, FunctionType)}
    for name, method in methods.items():
        if name != "__init__" and known.methods.get(name) != signature_of(method):
            return f"its method {name}{signature_of(method)} is not among those known"
    if derived := original.__subclasses__():
        return f"{derived[0].__qualname__} derives from it"
    return ""
