"""What an import brings along: no more than it needs."""

import subprocess
import sys

import pytest


def modules_after(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_fastdd_does_not_wait_for_torch():
    assert not {"torch", "numpy", "pydantic"} & modules_after("import fastdd; dir(fastdd)")


@pytest.mark.parametrize("statement", ["import fastdd.api", "import fastdd; fastdd.distill, fastdd.data"])
def test_the_api_brings_nothing_that_takes_seconds(statement):
    """They are imported where they are used: torch._dynamo alone takes two seconds."""
    heavy = {
        "torch._dynamo",
        "torch._inductor",
        "scipy.stats",
        "scipy.ndimage",
        "scipy.sparse",
        "matplotlib",
        "sklearn",
    }
    assert not (heavy | {"PIL", "pandas", "jinja2", "typer", "rich"}) & modules_after(statement)
