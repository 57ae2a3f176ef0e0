"""``torch.library.opcheck``, without saying twice what holds for every dtype."""

import torch


def opcheck(op, arguments, dtype: torch.dtype) -> None:
    """All of it in float32; schema and the fake's dtypes and shapes in others.

    Whether derivatives are registered, and that the op can be traced, does not depend on the dtype, and takes most of
    the time.
    """
    every = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(op, arguments, test_utils=every if dtype == torch.float32 else every[::2])
