"""What an import brings along: no more than it needs."""

import json
import subprocess
import sys

import pytest

# Run in this order by one interpreter: what the later ones do not bring, the earlier ones do not either.
STATEMENTS = [
    "import fastdd; dir(fastdd)",
    "import fastdd.data",
    "import fastdd; fastdd.distill, fastdd.data",
    "import fastdd.api",
]
OF_DATA = {"sklearn", "PIL", "scipy", "safetensors"}
# torch._dynamo alone takes two seconds.
HEAVY = {"torch._dynamo", "torch._inductor", "scipy.stats", "scipy.ndimage", "scipy.sparse", "matplotlib", "sklearn"}
HEAVY |= {"PIL", "pandas", "jinja2", "typer", "rich"}


def after(statements: list[str]) -> dict[str, set[str]]:
    """What is there after each of the statements, in a process of their own."""
    code = "import json, sys\nfor line in sys.argv[1:]:\n    exec(line)\n    print(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", code, *statements]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {statement: set(json.loads(line)) for statement, line in zip(statements, lines, strict=True)}


@pytest.fixture(scope="module")
def modules() -> dict[str, set[str]]:
    return after(STATEMENTS)


def test_fastdd_does_not_wait_for_torch(modules):
    assert not {"torch", "numpy", "pydantic"} & modules[STATEMENTS[0]]


def test_a_script_waits_for_what_replaces_its_functions_only():
    of_run = "import fastdd.cli.run, fastdd.compat.dc, fastdd.compat.fairdd, fastdd.compat.mtt, fastdd.compat.idc"
    rest = {"evaluation", "training", "methods", "experts", "debias", "exchange", "report", "session"}
    assert not {f"fastdd.{name}" for name in rest} & after([of_run])[of_run]


def test_data_brings_no_library_of_some_sets(modules):
    assert not OF_DATA & modules[STATEMENTS[1]]


@pytest.mark.parametrize("statement", STATEMENTS[2:])
def test_the_api_brings_nothing_that_takes_seconds(modules, statement):
    """They are imported where they are used."""
    assert not HEAVY & modules[statement]
