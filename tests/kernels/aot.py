"""What Triton kernels use on sm_90, without a GPU: compiled, or as committed beside the digest of what decides it.

To compile all takes minutes. ``compiled_sm_90.json`` therefore has the answers, a line each, under a digest of the
kernel's source, of all that it calls and reads, of types, constants and options, and of Triton's version: what has
changed is not there, and is compiled. ``tests/kernels/record.py`` writes it.
"""

import ast
import functools
import hashlib
import inspect
import json
import re
import subprocess
import tempfile
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from runpy import run_path
from types import MappingProxyType, ModuleType
from typing import NamedTuple

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastdd.kernels.config import table

CONSTANTS = (bool, int, float, str, tuple, tl.constexpr, tl.dtype)
COMMITTED = Path(__file__).with_name("compiled_sm_90.json")


class Job(NamedTuple):
    """A kernel as one launch specialises it.

    Args:
        kernel: the ``@triton.jit`` function.
        config: name of a row of the table of sm_90.
        kinds: argument -> Triton type (``*fp32``, ``*i64``, ``fp32``); an argument that is neither here nor a
            constant is an i32.
        constants: constexpr argument -> value, besides those of the row.
        aligned: integer arguments that are multiples of 16; a launch finds that out, and vectorises loads by it.
        row: another row than the table has under that name.
    """

    kernel: object
    config: str
    kinds: dict[str, str]
    constants: dict = MappingProxyType({})
    aligned: Collection[str] = ()
    row: dict[str, int] | None = None

    def specialised(self) -> tuple[dict[str, str], dict, dict, dict]:
        """Types and constants by name, attributes by position, and options, as Triton takes them."""
        row = table("sm_90")[self.config] if self.row is None else self.row
        constants = {**self.constants, **{key: value for key, value in row.items() if key.isupper()}}
        options = {key: value for key, value in row.items() if not key.isupper()}
        names = self.kernel.arg_names
        kinds = {**dict.fromkeys(names, "i32"), **self.kinds, **dict.fromkeys(constants, "constexpr")}
        attributes = {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if kinds[name].startswith("*") or name in self.aligned
        }
        return {name: kinds[name] for name in names}, constants, attributes, {**options, "enable_fp_fusion": True}

    def describe(self) -> dict[str, str]:
        return {"kernel": self.kernel.fn.__name__, "config": self.config}


def compile_for_sm_90(job: Job) -> dict:
    """What the binary uses: REG, STACK (bytes a thread: spilled registers are there, not in LOCAL), shared (bytes),
    wgmma (whether it has tensor-core instructions), with kernel and config."""
    kinds, constants, attributes, options = job.specialised()
    constexprs = {(job.kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(job.kernel, kinds, constexprs=constexprs, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.run([tool, "-res-usage", cubin.name], capture_output=True, text=True, check=True).stdout
    return {
        **job.describe(),
        "shared": compiled.metadata.shared,
        "wgmma": "wgmma" in compiled.asm["ptx"],
        **{key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", usage)},
    }


def jobs(script: str) -> list[Job]:
    """Those of a ``compile_*.py`` of this folder."""
    return list(run_path(str(COMMITTED.with_name(script)))["jobs"]())


@functools.cache
def committed() -> dict:
    """``triton``, the version, and ``kernels``: digest -> what :func:`compile_for_sm_90` said."""
    return json.loads(COMMITTED.read_text())


def answer(job: Job) -> dict:
    """As :func:`compile_for_sm_90`, which is asked only where what decides the answer is not the committed one's."""
    found = committed()["kernels"].get(digest(job))
    return compile_for_sm_90(job) if found is None else found


def digest(job: Job) -> str:
    """Of all that decides what a binary uses."""
    kinds, constants, attributes, options = job.specialised()
    specialised = [list(kinds.items()), sorted(constants.items()), list(attributes.items()), sorted(options.items())]
    said = [triton.__version__, "sm_90", _source_digest(job.kernel), *map(str, specialised)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


@functools.cache
def _source_digest(kernel) -> str:
    """Of a function without comments and without its place, the constants that it reads, and all functions that it
    reaches.

    Raises:
        TypeError: it reads what is neither function nor constant, of which a digest would not know a change.
    """
    function = kernel.fn
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    scope = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    for local in function.__code__.co_varnames:
        scope.pop(local, None)
    read = {}
    for path, value in _reads(tree, scope):
        if isinstance(value, triton.runtime.JITFunction):
            read[path] = _source_digest(value)
        elif isinstance(value, CONSTANTS):
            read[path] = repr(value)
        else:
            raise TypeError(f"{function.__name__} reads {path}, {value!r}, which no digest can tell from another")
    return hashlib.sha256(f"{ast.unparse(tree)}\n{sorted(read.items())}".encode()).hexdigest()


def _reads(tree: ast.AST, scope: dict) -> Iterator[tuple[str, object]]:
    """What a function's names and names in modules stand for outside of it, but for Triton's and Python's own."""

    def find(node: ast.AST) -> object:
        if isinstance(node, ast.Name):
            return scope.get(node.id)
        module = find(node.value) if isinstance(node, ast.Attribute) else None
        return getattr(module, node.attr) if isinstance(module, ModuleType) else None

    for node in ast.walk(tree):
        value = find(node)
        module = "" if isinstance(value, CONSTANTS) else getattr(value, "__module__", None) or ""
        if not (value is None or isinstance(value, ModuleType) or module.partition(".")[0] in ("triton", "builtins")):
            yield ast.unparse(node), value
