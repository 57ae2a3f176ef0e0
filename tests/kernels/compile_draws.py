"""Compiles every kernel of kernels/draws.py and kernels/dsa.py for sm_90, without a GPU; prints what each uses."""

import json

from aot import compile_for_sm_90

from fastdd.kernels import draws, dsa


def main() -> None:
    words = {"keys": "*i64", "key": "*i64", "parents": "*i64"}
    floats = dict.fromkeys(("scale", "offset"), "*fp32")
    rows = [
        compile_for_sm_90(draws.counter_lanes, "counter_draws", {**words, "out": "*i64"}, {}),
        compile_for_sm_90(draws.counter_draws, "counter_draws", {**words, "out": "*i64"}, {"UNIFORM": False}),
        compile_for_sm_90(draws.counter_draws, "counter_draws", {**words, "out": "*fp32"}, {"UNIFORM": True}),
        compile_for_sm_90(draws.fresh_parameters, "counter_draws", {**words, **floats, "out": "*fp32"}, {}),
    ]
    ranges = {"BRIGHTNESS": 1.0, "SATURATION": 2.0, "CONTRAST": 0.5, "SCALE": 1.2, "ANGLE": 0.26}
    for kind in ("*fp32", "*fp64"):
        constants = ranges | {"OPS": 0x543210, "N_OPS": 6}
        rows.append(compile_for_sm_90(dsa.dsa_rows, "dsa_rows", {**words, "out": kind}, constants))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
