"""How docstrings become the manual's Markdown."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("griffe")
TOOL = Path(__file__).resolve().parent.parent / "tools" / "manual.py"


@pytest.fixture(scope="module")
def manual():
    spec = importlib.util.spec_from_file_location("manual", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_roles_become_code(manual):
    assert manual.as_markdown("see :class:`fastdd.data.Dataset`, :func:`~a.b`.") == "see `fastdd.data.Dataset`, `a.b`."


def test_doctests_are_fenced_where_they_end(manual):
    text = "One.\n\n    >>> 1\n    1\n    >>> 2\n    2\n\nTwo.\n\n>>> 3\n3"
    assert manual.as_markdown(text) == (
        "One.\n\n    ```pycon\n    >>> 1\n    1\n    >>> 2\n    2\n    ```\n\nTwo.\n\n```pycon\n>>> 3\n3\n```"
    )
