"""Compiles Triton kernels for sm_90 without a GPU; used by the compile_*.py scripts, each a process of its own."""

import re
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastdd.kernels.config import table


def compile_for_sm_90(
    kernel,
    config: str,
    kinds: dict[str, str],
    constants: dict,
    aligned: Collection[str] = (),
    row: dict[str, int] | None = None,
) -> dict:
    """Compile with a row of the table of sm_90.

    Args:
        kernel: the ``@triton.jit`` function.
        config: name of the row.
        kinds: argument -> Triton type (``*fp32``, ``*i64``, ``fp32``); an argument that is neither here nor a
            constant is an i32.
        constants: constexpr argument -> value, besides those of the row.
        aligned: integer arguments that are multiples of 16; a launch finds that out, and vectorises loads by it.
        row: another row than the table has under that name.

    Returns:
        What the binary uses: REG, STACK (bytes a thread: spilled registers are there, not in LOCAL), shared (bytes),
        wgmma (whether it has tensor-core instructions), with kernel, config, kinds and constants.
    """
    row = table("sm_90")[config] if row is None else row
    constants = {**constants, **{key: value for key, value in row.items() if key.isupper()}}
    options = {key: value for key, value in row.items() if not key.isupper()}
    names = kernel.arg_names
    kinds = {**dict.fromkeys(names, "i32"), **kinds, **dict.fromkeys(constants, "constexpr")}

    source = ASTSource(
        kernel,
        {name: kinds[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if kinds[name].startswith("*") or name in aligned
        },
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={**options, "enable_fp_fusion": True})
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.run([tool, "-res-usage", cubin.name], capture_output=True, text=True, check=True).stdout
    return {
        "kernel": kernel.fn.__name__,
        "config": config,
        "kinds": {name: kinds[name] for name in names if name not in constants},
        "constants": str(constants),
        "shared": compiled.metadata.shared,
        "wgmma": "wgmma" in compiled.asm["ptx"],
        **{key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", usage)},
    }
