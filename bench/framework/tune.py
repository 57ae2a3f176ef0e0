"""Which row of the table of launch configurations is fastest on a GPU: ``python -m fastdd.bench.framework.tune``.

Of the convolutions' kernels, which have not run on a GPU: the candidates below are those that take no more than 227
KiB of shared memory and spill no registers on sm_90, which tests/campaigns/test_candidates.py holds them to.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest import mock

import torch

from fastdd import ops
from fastdd.kernels import config

_WIDE = {"num_warps": 8, "num_stages": 2}
# Row of the table -> what may stand there.
CANDIDATES: dict[str, list[dict[str, int]]] = {
    "conv3x3_tiles": [
        {"ROWS": 128, "OUTPUTS": 128, "INNER": 64, **_WIDE},
        {"ROWS": 128, "OUTPUTS": 128, "INNER": 32, "num_warps": 8, "num_stages": 3},
        {"ROWS": 128, "OUTPUTS": 128, "INNER": 32, "num_warps": 8, "num_stages": 4},
        {"ROWS": 128, "OUTPUTS": 64, "INNER": 32, "num_warps": 4, "num_stages": 3},
        {"ROWS": 256, "OUTPUTS": 64, "INNER": 32, "num_warps": 8, "num_stages": 3},
    ],
    "conv3x3_tiles_small": [
        {"ROWS": 64, "OUTPUTS": 64, "INNER": 64, "num_warps": 4, "num_stages": 2},
        {"ROWS": 64, "OUTPUTS": 64, "INNER": 32, "num_warps": 4, "num_stages": 3},
        {"ROWS": 64, "OUTPUTS": 32, "INNER": 64, "num_warps": 4, "num_stages": 3},
    ],
    "conv3x3_weight": [
        {"ROWS": 64, "OUTPUTS": 128, "INPUTS": 128, **_WIDE},
        {"ROWS": 32, "OUTPUTS": 128, "INPUTS": 128, "num_warps": 8, "num_stages": 3},
        {"ROWS": 32, "OUTPUTS": 128, "INPUTS": 128, "num_warps": 8, "num_stages": 4},
    ],
    "conv_block_256": [
        {"ROWS": 256, "OUTPUTS": 64, "INNER": 32, "num_warps": 8, "num_stages": 3},
        {"ROWS": 256, "OUTPUTS": 32, "INNER": 32, "num_warps": 8, "num_stages": 3},
        {"ROWS": 256, "OUTPUTS": 64, "INNER": 32, **_WIDE},
    ],
    "conv_block_128": [
        {"ROWS": 128, "OUTPUTS": 128, "INNER": 32, "num_warps": 8, "num_stages": 3},
        {"ROWS": 128, "OUTPUTS": 64, "INNER": 64, "num_warps": 8, "num_stages": 2},
        {"ROWS": 128, "OUTPUTS": 128, "INNER": 32, "num_warps": 8, "num_stages": 4},
    ],
}


def _calls(device: torch.device) -> dict[str, Callable[[], object]]:
    """Row of the table -> a call that uses it: ConvNet's second and third block in a step of DM, 2,560 real images."""
    last, filters = torch.channels_last, torch.randn(128, 128, 3, 3, device=device) / 34
    vector = torch.ones(128, device=device)
    large, middle, small = (
        torch.randn(n, 128, side, side, device=device).contiguous(memory_format=last)
        for n, side in ((2560, 16), (2560, 8), (100, 8))
    )
    block = ops.ConvBlock(filters, vector, vector, backend="triton")
    rows = large.permute(0, 2, 3, 1)
    return {
        "conv3x3_tiles": functools.partial(ops.conv3x3, large, filters, backend="triton"),
        "conv3x3_tiles_small": functools.partial(ops.conv3x3, small, filters, backend="triton"),
        "conv3x3_weight": functools.partial(torch.ops.fastdd.conv3x3_weight, rows, rows),
        "conv_block_256": functools.partial(block, large),
        "conv_block_128": functools.partial(block, middle),
    }


def measured(name: str, call: Callable[[], object], rows: Iterable[Mapping[str, int]]) -> list[dict[str, Any]]:
    """The rows with the median of the call in milliseconds, fastest first."""
    from triton.testing import do_bench

    found = []
    for row in rows:
        table = {**config.table("sm_90"), name: row}
        # The launchers ask for a row at every call, through a cache.
        config.config.cache_clear()
        with mock.patch.object(config, "table", lambda arch, table=table: table):
            found.append({"ms": do_bench(call, return_mode="median"), **row})
    config.config.cache_clear()
    return sorted(found, key=lambda one: one["ms"])


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("error: there is no NVIDIA GPU to tune on")
    for name, call in _calls(torch.device("cuda")).items():
        for row in measured(name, call, CANDIDATES[name]):
            print(json.dumps({"row": name, **row}), flush=True)


if __name__ == "__main__":
    main()
