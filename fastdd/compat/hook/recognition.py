"""Which functions and classes of a module are published distillation code: by names, signatures and source text."""

import ast
import hashlib
import inspect
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from fastdd.compat.hook.digests import BODIES, DIGESTS, LAYER_LOOPS
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
        copy_of: the published name of a copy under another.
        extra: parameters after the known ones, with their defaults.
        output: which of the values that ``net(images)`` returns are the logits; None where it returns nothing else.
    """

    name: str
    original: Any
    replacement: Replacement | None
    why: str
    published: bool
    copy_of: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    output: int | None = None


class Source:
    """A module's text, by the names that it defines at its top level."""

    def __init__(self, text: str):
        self._lines = text.encode().splitlines(keepends=True)  # where Python's parser breaks them, unlike str's
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

    def output(self, name: str) -> int | None:
        """Which value of ``net(...)`` the function gives its criterion, where that returns several; else None."""
        nodes = list(_without_inner_functions(self.nodes[name]))
        judged = {
            node.args[0].id
            for node in nodes
            if _called(node) == "criterion" and node.args and isinstance(node.args[0], ast.Name)
        }
        found = {_position(node, judged) for node in nodes if isinstance(node, ast.Assign)} - {None}
        return found.pop() if len(found) == 1 else None

    def _tokens(self, name: str) -> Iterator[tokenize.TokenInfo]:
        return self._tokens_of(self.nodes[name]) if name in self.nodes else iter(())

    def _tokens_of(self, node: ast.stmt) -> Iterator[tokenize.TokenInfo]:
        return tokenize.generate_tokens(io.StringIO(self._segment(node)).readline)

    def _segment(self, node: ast.stmt) -> str:
        """As :func:`ast.get_source_segment`, which breaks the whole text into lines each time."""
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"".join(lines).decode()

    def digest(self, names: tuple[str, ...]) -> str:
        """Of the tokens of what ``names`` define, comments and layout aside."""
        parts = []
        for name in names:
            parts += _plain(self._tokens(name))
            parts.append("")
        return _hashed(parts)

    def body_digest(self, name: str) -> str:
        """Of the tokens of one function or class, its own name and what documents it aside."""
        return self._body_digest(self.nodes[name])

    def method_digests(self, name: str) -> dict[str, str]:
        """Of the methods of a class, by their names: as :meth:`body_digest`."""
        methods = [item for item in self.nodes[name].body if isinstance(item, ast.FunctionDef)]
        return {item.name: self._body_digest(item) for item in methods if not item.decorator_list}

    def _body_digest(self, node: ast.FunctionDef | ast.ClassDef) -> str:
        name = node.name
        documentation = {
            (inner.body[0].lineno - node.lineno + 1, inner.body[0].col_offset)
            for inner in ast.walk(node)
            if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner) is not None
        }
        kept = (token for token in self._tokens_of(node) if token.start not in documentation)
        return _hashed(["" if text == name else text for text in _plain(kept)])


def _hashed(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _plain(tokens: Iterable[tokenize.TokenInfo]) -> Iterator[str]:
    for token in tokens:
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            yield tokenize.tok_name[token.type]
        elif token.type not in _LAYOUT:
            yield token.string


def _called(node: ast.AST) -> str | None:
    """The plain name that a call is of."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def _position(assigned: ast.Assign, names: set[str]) -> int | None:
    """k of ``name = net(...)[k]``, or of the k-th of ``a, name = net(...)``."""
    target, value = assigned.targets[0], assigned.value
    if isinstance(target, ast.Tuple) and _called(value) == "net":
        return next((k for k, x in enumerate(target.elts) if isinstance(x, ast.Name) and x.id in names), None)
    if isinstance(value, ast.Subscript) and _called(value.value) == "net" and isinstance(value.slice, ast.Constant):
        at = value.slice.value
        return at if isinstance(target, ast.Name) and target.id in names and isinstance(at, int) else None
    return None


def _without_inner_functions(function: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield node
            yield from _without_inner_functions(node)


def _parameters_of(function: Any) -> list[inspect.Parameter]:
    signature = inspect.signature(function)
    return [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]


def signature_of(function: Any) -> str:
    """``(x, strategy='', seed=-1)``: names, kinds and defaults of parameters, no annotations."""
    return str(inspect.Signature(_parameters_of(function)))


def of_a_family(source: Source) -> bool:
    """Whether the module defines so many names of a family that they are no coincidence."""
    return any(len(names & source.names()) >= ENOUGH for names in FAMILIES.values())


def of_interest(source: Source) -> set[str]:
    """Names that the module defines and that :func:`find` may know."""
    known = {name for name in source.names() & {known.name for known in TABLE} if of_a_family(source)}
    return known | {
        name for name, node in source.nodes.items() if not isinstance(node, ast.Assign) and _copied(source, name)
    }


def _copied(source: Source, name: str) -> str:
    """The published name of what the module has under another, if its text is the published one."""
    published = BODIES.get(source.body_digest(name), "")
    return published if published != name else ""


def find(module: ModuleType, source: Source, replaced: set[str]) -> list[Recognised]:
    """What of the table a module of a family defines, in the table's order, and copies under other names.

    ``replaced``: names that are ours already.
    """
    table = dict.fromkeys(known.name for known in TABLE) if of_a_family(source) else {}
    done, recognised = set(replaced), []
    for name in [*table, *_with_known_signatures(module, source, table)]:
        original = getattr(module, name, None)
        if name in replaced or name not in source.nodes or getattr(original, "__module__", None) != module.__name__:
            continue
        copy_of = "" if name in table else _copied(source, name)
        if name not in table and not copy_of:
            continue
        found = _known(name, original, source, done, copy_of)
        if not found.why:
            done.add(name)
        recognised.append(found)
    return recognised


def own_networks(module: ModuleType, source: Source) -> list[type[nn.Module]]:
    """Networks with constructors of their own that a module of a family defines, and that stay its own."""
    if not of_a_family(source):
        return []
    values = [vars(module).get(name) for name, node in source.nodes.items() if isinstance(node, ast.ClassDef)]
    return [
        value
        for value in values
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and isinstance(vars(value).get("__init__"), FunctionType)
        and value.__module__ == module.__name__
    ]


def layer_loops(network: type[nn.Module], source: Source) -> list[str]:
    """Methods of a network of the module that call the layers of a block one by one, and whose text is published."""
    defined = {name for name in LAYER_LOOPS if isinstance(vars(network).get(name), FunctionType)}
    if not defined:
        return []
    digests = source.method_digests(network.__name__)
    return [name for name in sorted(defined) if digests.get(name) in LAYER_LOOPS[name]]


def _with_known_signatures(module: ModuleType, source: Source, table: Iterable[str]) -> list[str]:
    """Other functions and classes of the module that could be copies: a look at parameters, before one at the text."""
    signatures, names = {known.signature for known in TABLE}, []
    for name, node in source.nodes.items():
        value = vars(module).get(name)
        if name not in table and not isinstance(node, ast.Assign) and isinstance(value, FunctionType | type):
            try:
                if signature_of(value) in signatures:
                    names.append(name)
            except ValueError:  # a class without a signature, such as one of C
                continue
    return names


def _known(name: str, original: Any, source: Source, done: set[str], copy_of: str) -> Recognised:
    """What replaces it, or why nothing does."""

    def left_alone(why: str) -> Recognised:
        return Recognised(name, original, None, why, False, copy_of)

    if not isinstance(original, FunctionType | type) or source.decorated(name):
        return left_alone("decorated, or no plain function or class")
    mentioned = _mentioned(original.__code__) if isinstance(original, FunctionType) else set()
    known, extra = _by_parameters(copy_of or name, original, mentioned)
    if known is None:
        return left_alone(f"{name}{signature_of(original)} has other parameters than any known")
    if isinstance(original, type) != bool(known.methods):
        return left_alone("a function where a class is known, or the other way round")
    if isinstance(original, type):
        why = _of_class(original, known)
        if why:
            return left_alone(why)
    elif why := _of_function(name, known, source, mentioned, done):
        return left_alone(why)
    output = source.output(name) if known.name == "epoch" else None
    published = not copy_of and source.digest((name, *known.parts)) in DIGESTS.get(name, ())
    return Recognised(name, original, known, "", published, copy_of, extra, output)


def _by_parameters(name: str, original: Any, mentioned: set[str]) -> tuple[Replacement | None, dict[str, Any]]:
    """What is known under a name with these parameters, or with the first of them if the others have defaults."""
    parameters = _parameters_of(original)
    fixed = sum(parameter.default is parameter.empty for parameter in parameters)
    shortest = len(parameters) if isinstance(original, type) else fixed
    for count in range(len(parameters), max(shortest, 1) - 1, -1):
        signature, rest = str(inspect.Signature(parameters[:count])), parameters[count:]
        if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in rest):
            continue
        for known in TABLE:
            if (known.name, known.signature) == (name, signature) and known.mentions in (None, *mentioned):
                return known, {parameter.name: parameter.default for parameter in rest}
    return None, {}


def _of_function(name: str, known: Replacement, source: Source, mentioned: set[str], done: set[str]) -> str:
    """Why a function is left alone, if it is."""
    if known.returns is not None and source.returns(name) != {known.returns}:
        counts = " or ".join(map(str, sorted(source.returns(name)))) or "no"
        return f"returns {counts} values, not {known.returns}"
    lacking = sorted((set(known.needs) & mentioned) - done)
    return f"calls the module's own {', '.join(lacking)}, which is not replaced" if lacking else ""


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
