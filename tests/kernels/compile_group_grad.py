"""Every kernel of kernels/group_grad as launches specialise it on sm_90."""

import itertools
from collections.abc import Iterator

import triton.language as tl
from aot import Job

from fastdd.kernels import group_grad as kernels

# As the launch specialises them where a layer has many channels, and where a linear layer has few outputs.
_CHANNELS = ("channels", "group_channels", "group_outputs")
_WIDE = (*_CHANNELS, "height", "width", "out_width", "positions", "item_rows")
_STEPS = ("stride_y", "stride_x", "pad_y", "pad_x", "step_y", "step_x")
_ONES = dict.fromkeys(("stride_y", "stride_x", "pad_y", "pad_x", "step_y", "step_x", "groups"), 1)
_SMALLEST = dict.fromkeys((*_WIDE, *_ONES, "n_segments", "taps", "kernel_width"), 1)


def convolutions() -> Iterator[Job]:
    """Those of images by their segments' filters."""
    for dtype, adjoint in itertools.product(("fp32", "bf16", "fp64"), (False, True)):
        wide, suffix = ("fp64", "_fp64") if dtype == "fp64" else ("fp32", "_fp32")
        kinds = {"x": f"*{dtype}", "g": f"*{wide}", "out": f"*{wide}", "offsets": "*i64"}
        acc, precision = (tl.float64, "ieee") if dtype == "fp64" else (tl.float32, "tf32x3")
        constants = {"ADJOINT": adjoint, "PRECISION": precision, "ACC": acc}
        for aligned in (("inner", "columns", "positions", "g_segment", "g_group"), ()):
            row = "convolve_tiles" + suffix
            yield Job(kernels.convolve_tiles, row, kinds, constants, aligned)
        ones = dict.fromkeys(("n_segments", "groups", "inner", "columns", *_STEPS), 1)
        yield Job(kernels.convolve_tiles, row, kinds, {**constants, **ones})


def jobs() -> Iterator[Job]:
    for dtype in ("bf16", "fp16", "fp32", "fp64"):
        suffix = {"fp32": "_fp32", "fp64": "_fp64"}.get(dtype, "")
        acc, summed = (tl.float64, "*fp64") if dtype == "fp64" else (tl.float32, "*fp32")
        precision = "tf32x3" if dtype == "fp32" else "ieee"
        kinds = {
            **dict.fromkeys(("x", "b"), f"*{dtype}"),
            **dict.fromkeys(("out", "partials", "g"), summed),
            **{"weights": "*fp32", "offsets": "*i64"},
        }
        # float64 is for checks, and float16 takes the resources of bfloat16.
        alignments = {"bf16": (_WIDE, _CHANNELS, ()), "fp32": (_WIDE, ())}.get(dtype, (_WIDE,))
        for layout, weighted, aligned in itertools.product(("rows", "tap", "flat"), (False, True), alignments):
            # Convolutions have no weights.
            if weighted and (layout != "rows" or dtype == "fp16"):
                continue
            constants = {
                **{"LAYOUT": layout, "WEIGHTED": weighted, "UPCAST": False, "PRECISION": precision, "ACC": acc},
                **(_ONES if aligned == _WIDE else {}),
            }
            if layout == "flat":
                config = "outer_flat" + suffix
            else:
                config = "outer_tiles" + ("_odd" if dtype == "bf16" and not aligned else suffix)
            yield Job(kernels.outer_tiles, config, kinds, constants, aligned)
            if dtype == "fp32" and not aligned:
                # Ones are constants to a launch: nothing may rely on an argument being a tensor.
                yield Job(kernels.outer_tiles, config, kinds, {**constants, **_SMALLEST})
        if dtype in ("fp32", "fp64"):
            yield Job(kernels.outer_finish, "outer_finish", kinds, {"ACC": acc})
        # The matrix as it is, transposed, and with strides of its own (an expanded gradient).
        variants = {"fp32": ((True, "g_inner"), (False, "g_column"), (True, None)), "fp16": ()}
        for weighted, g in variants.get(dtype, ((False, None),)):
            constants = {"WEIGHTED": weighted, "PRECISION": "ieee" if dtype == "fp64" else "tf32x3", "ACC": acc}
            aligned = ()
            if g:
                constants[g] = 1
                aligned = {"inner", "columns", "positions", "g_segment", "g_inner", "g_column"} - {g}
            config = "matmul_tiles" + ("_fp64" if dtype == "fp64" else "_fp32")
            yield Job(kernels.matmul_tiles, config, kinds, constants, aligned)
            if dtype == "fp32":
                ones = dict.fromkeys(
                    ("n_segments", "positions", "inner", "columns", "g_segment", "g_inner", "g_column"), 1
                )
                yield Job(kernels.matmul_tiles, config, kinds, {**constants, **ones})
    yield from convolutions()
