"""The reference pages are those of the registries."""

from pathlib import Path

import pytest

from fastdd.cli.reference import pages
from fastdd.debias import MODES
from fastdd.methods import METHODS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", pages())
def test_pages_are_current(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name], (
        "run python -m fastdd.cli.reference docs/reference"
    )


def test_every_method_mode_and_setting_is_there():
    text = pages()
    assert all(f"`{name}`" in text["methods.md"] for name in METHODS)
    assert all(f"`{name}`" in text["modes.md"] for name in MODES)
    for method in METHODS.values():
        assert all(f"`{name}`" in text["settings.md"] for name in method.Settings.model_fields)
