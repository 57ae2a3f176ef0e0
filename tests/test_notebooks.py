"""The notebooks run from their first cell to their last, as a reader would run them."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["bias-without-labels", "first-set", "own-loop"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_kept_with_what_they_show(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    assert kinds & {"display_data", "execute_result"}
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path, tmp_path):
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    said = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output)
    assert "warn" not in said.lower()
