"""The page "From your photographs to your training loop": its commands and its loop, on a few drawn photographs."""

import re
import shlex
from pathlib import Path

import numpy as np
import photographs
import pytest
from PIL import Image

import fastdd

PAGE = Path(__file__).parents[2] / "docs" / "own-photographs.md"
# So that it is done in seconds.
SMALL = {
    "distill": "--ipc 1 --iterations 2 --width 8 --batch-real 8",
    "evaluate": "--nets 1 --epochs 2",
    "report": "--embedding none",
}


@pytest.fixture
def drawn(tmp_path):
    """Forty images whose class is the brighter half, in two lights."""
    random, images = np.random.default_rng(0), []
    for number in range(40):
        pixels = random.integers(0, 60, (12, 12, 3), dtype=np.uint8)
        pixels[:6] += 120 * (number % 2)
        pixels[6:] += 120 * (1 - number % 2)
        images.append(Image.fromarray(pixels))
    kinds = [("Ahorn", "Mülltonne")[number % 2] for number in range(40)]
    return photographs.write(tmp_path, images, kinds, [("dunkel", "hell")[number // 2 % 2] for number in range(40)])


def test_photographs_of_all_kinds_are_read_as_they_look(drawn):
    columns = {"path_column": "Datei", "label_column": "Art", "protected": "Licht"}
    data = fastdd.data.load("folder", drawn.parent / "Fotos", table=drawn, size=16, **columns)
    assert data.class_names == ("Ahorn", "Mülltonne")
    assert data.test.counts(2, 2).tolist() == [[2, 2], [2, 2]]
    for split in data.splits.values():
        halves = split.images.astype(float).mean(1)[:, [3, 12]].mean(2)
        assert ((halves[:, 0] > halves[:, 1]) == split.labels).all()


@pytest.mark.full
def test_a_run_of_a_named_folder_knows_its_table(drawn, run, monkeypatch):
    monkeypatch.chdir(drawn.parent)
    columns = {"table": drawn.name, "path_column": "Datei", "label_column": "Art", "name": "leaves", "size": 16}
    options = [word for name, value in columns.items() for word in ("--data-option", f"{name}={value}")]
    where = ("--dataset", "folder", "--data-root", "Fotos")
    code, _, error = run("distill", *where, *options, *SMALL["distill"].split(), "--out", "made")
    assert code == 0, error
    code, output, error = run("evaluate", "made", "--data-root", "Fotos", *SMALL["evaluate"].split())
    assert code == 0, error
    assert "leaves, test set" in output
    code, _, error = run("evaluate", "made", *SMALL["evaluate"].split())
    assert (code, "--data-root" in error) == (2, True)


@pytest.mark.full
def test_the_pages_commands_and_loop_run(drawn, run, monkeypatch):
    monkeypatch.chdir(drawn.parent)
    text = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^    (fastdd .*)$", text, re.MULTILINE)
    assert [shlex.split(line)[1] for line in lines] == [
        "data",
        "data",
        "distill",
        "evaluate",
        "report",
        "export",
        "export",
    ]
    for line in lines:
        words = shlex.split(line)[1:]
        code, output, error = run(*words, *SMALL.get(words[0], "").split())
        assert code == 0, (line, error)
        if words[:2] == ["data", "check"]:
            assert "was read as Windows-1252" in output
            assert "20% of every class and group, drawn by seed 0, are held out: 32 + 8 images" in output
    (block,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    exec(compile(block.replace("range(EPOCHS)", "range(2)"), str(PAGE), "exec"), {})
    assert (drawn.parent / "blaetter-images/Mülltonne/00000.png").exists()
