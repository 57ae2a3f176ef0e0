"""Compiles every kernel of kernels/segment_mean.py for sm_90, without a GPU; prints what each uses."""

import itertools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastdd.kernels import segment_mean as kernels
from fastdd.kernels.config import table

INTEGERS = ("n_segments", "n_columns", "n_splits", "n_rows", "n_halvings")


def compile_for_sm_90(kernel, pointers: dict[str, str], constants: dict, options: dict) -> dict:
    names = kernel.arg_names
    kinds = {**pointers, **dict.fromkeys(INTEGERS, "i32"), **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        kernel,
        {name: kinds[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in pointers},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.run([tool, "-res-usage", cubin.name], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|LOCAL):(\d+)", usage)}
    return {"kernel": kernel.fn.__name__, "constants": str(constants), "shared": compiled.metadata.shared, **found}


def main() -> None:
    rows = []
    for x, weighted, split in itertools.product(("fp32", "bf16", "fp16", "fp64"), (False, True), (False, True)):
        wide = x == "fp64"
        acc, accumulated = (tl.float64, "*fp64") if wide else (tl.float32, "*fp32")
        pointers = {
            **{"x": f"*{x}", "g": accumulated, "offsets": "*i64", "weights": "*fp32"},
            **dict.fromkeys(("out", "totals", "partials"), accumulated),
        }
        jobs = [(kernels.segment_sums, "segment_sums", {"ACC": acc, "WEIGHTED": weighted, "SPLIT": split})]
        if x in ("fp32", "fp64") and not split:
            jobs.append((kernels.segment_spread_rows, "segment_spread", {"ACC": acc, "WEIGHTED": weighted}))
            if weighted:
                jobs.append((kernels.segment_totals, "segment_totals", {"ACC": acc}))
                jobs.append((kernels.segment_finish, "segment_finish", {"ACC": acc}))
        for kernel, name, constants in jobs:
            row = table("sm_90")[name]
            constants = {**constants, **{key: value for key, value in row.items() if key.isupper()}}
            options = {key: value for key, value in row.items() if not key.isupper()}
            used = {name: kind for name, kind in pointers.items() if name in kernel.arg_names}
            rows.append(compile_for_sm_90(kernel, used, constants, {**options, "enable_fp_fusion": True}))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
