"""Launch configurations: a checked-in table per GPU architecture instead of tuning at run time.

A table decides how sums are split, and so their last bits; a fixed one keeps runs equal.
"""

import functools
import json
import os
from pathlib import Path

import torch

# What runs 3x3 convolutions of float32 on a GPU: "cudnn", or "split" (fastdd/kernels/conv3x3), which never ran on one.
CONVOLUTIONS = "cudnn"
_FOLDER = Path(__file__).parent / "configs"


@functools.cache
def table(arch: str) -> dict[str, dict[str, int]]:
    """The table of an architecture such as ``sm_90``: kernel -> constants, num_warps, num_stages.

    Raises:
        FileNotFoundError: there is none.

    >>> table("sm_90")["segment_sums"]["COLUMNS"]
    128
    """
    return json.loads((_FOLDER / f"{arch}.json").read_text())


@functools.cache
def config(kernel: str, device: torch.device) -> dict[str, int]:
    """Constants and options to launch ``kernel`` with; GPUs without a table of their own use that of sm_90."""
    arch = "sm_90"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if (_FOLDER / f"sm_{major}{minor}.json").is_file():
            arch = f"sm_{major}{minor}"
    # Stated, because Triton 3.10 changes the default: a fused multiply-add rounds once.
    return {**table(arch)[kernel], "enable_fp_fusion": True}


def convolutions() -> str:
    """``cudnn`` or ``split``: :data:`CONVOLUTIONS`, unless FASTDD_CONVOLUTIONS says otherwise.

    Raises:
        ValueError: it says something else.
    """
    chosen = os.environ.get("FASTDD_CONVOLUTIONS") or CONVOLUTIONS
    if chosen not in ("cudnn", "split"):
        raise ValueError(f"FASTDD_CONVOLUTIONS={chosen!r} is not one of cudnn, split")
    return chosen
