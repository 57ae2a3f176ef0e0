"""Compiles the kernel of kernels/segment_order.py for sm_90, without a GPU; prints what it uses."""

import json

from aot import compile_for_sm_90

from fastdd.kernels import segment_order as kernels


def main() -> None:
    kinds = {"segment": "*i64", "order": "*i64", "offsets": "*i64", "shares": "*fp32"}
    print(json.dumps([compile_for_sm_90(kernels.segment_places, "segment_places", kinds, {})]))


if __name__ == "__main__":
    main()
