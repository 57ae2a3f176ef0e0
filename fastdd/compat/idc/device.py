"""Where IDC's functions put what they make."""

from typing import Any

import torch


def device_or_default(given: Any) -> Any:
    """``given``; None: the GPU, if there is one."""
    return given if given is not None else "cuda" if torch.cuda.is_available() else "cpu"
