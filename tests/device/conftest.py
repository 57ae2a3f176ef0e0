"""Units of work that are CUDA graphs on a GPU run as they are on the pretended one, with keys from their table."""

from unittest import mock

import pytest
import torch

from fastdd.core import graph


@pytest.fixture(autouse=True, scope="session")
def _no_capture():
    with (
        mock.patch.object(graph, "_WARM_UP", 1 << 62),
        mock.patch.object(graph.Pool, "aside", lambda self, work, device: work()),
        mock.patch.object(torch.Tensor, "pin_memory", lambda self: self),
    ):
        yield
