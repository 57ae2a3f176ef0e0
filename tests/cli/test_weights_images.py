"""``fastdd weights --show, --report, --csv``: the images behind weights."""

import csv
import itertools
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdd import report
from fastdd.debias.density.kde import KdeWeights

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def weights(run, tmp_path):
    """Runs ``fastdd weights`` on a folder of 12 images a class, the first two of which are bright; their rows are far
    from the others' in the given embedding."""
    generator = np.random.default_rng(0)
    for split, n in (("train", 12), ("test", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = generator.integers(0, 90, (8, 8, 3), dtype=np.uint8) + 150 * (i < 2)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    bright = np.tile(np.arange(12) < 2, 2)
    rows = np.stack([bright, ~bright], 1) + 0.05 * generator.normal(size=(24, 2))
    np.save("z.npy", rows.astype(np.float32))
    return partial(run, "weights", "--dataset", "folder", "--data-root", "images", "--embedding", "z.npy")


def test_the_heaviest_and_lightest_with_their_paths(weights):
    code, out, _ = weights("--show", 2, "--report", "page.html", "--csv", "rows.csv", "--json", "w.json")
    assert code == 0
    made = KdeWeights.load("runs/weights-folder.safetensors")
    for name in ("train/cat/00.png", "train/cat/01.png", "train/dog/00.png", "train/dog/01.png"):
        assert name in out
    assert "verdict: " in out
    with open("rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(24))
    assert rows[3]["path"] == "train/cat/03.png"
    assert (rows[3]["class"], rows[3]["group"]) == ("cat", "")
    assert [np.float32(row["weight"]) for row in rows] == made.weights.tolist()
    assert [float(row["n_weight"]) for row in rows] == pytest.approx(12 * made.weights, rel=1e-5)
    assert sorted(int(row["rank"]) for row in rows[:12]) == list(range(1, 13))
    assert {int(row["index"]) for row in rows if int(row["rank"]) <= 2} == {0, 1, 12, 13}
    assert rows[0]["nearest_neighbours"].split()[0] == "1"
    content = report.read_json("w.json")["meta"]["verdict"]
    assert content["level"] in ("trust", "care", "doubt")
    assert len(content["stability"]) == 2
    with Image.open("page.png") as sheet:
        assert sheet.size[0] > 2 * 2 * 64


def test_the_page_is_whole_and_can_be_read(weights):
    assert weights("--report", "page.html")[0] == 0
    page = Path("page.html").read_text()
    assert page.count("<h1>") == 1
    assert '<html lang="en">' in page
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) > 2 * 6
    assert all(re.search(r'alt="[^"]+"', image) and 'src="data:image/png;base64,' in image for image in images)
    assert "http" not in page
    assert all(f'id="{target}"' in page for target in re.findall(r'href="#(\w+)"', page))
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert "train/cat/00.png" in page


def test_markup_in_names_stays_text(weights, tmp_path):
    (tmp_path / "images/train/cat").rename(tmp_path / "images/train/<b>cat")
    (tmp_path / "images/test/cat").rename(tmp_path / "images/test/<b>cat")
    code, out, errors = weights("--report", "page.html", "--show", 1)
    assert code == 0, errors
    assert "<b>" not in Path("page.html").read_text()
    assert "<b>cat" in out


def test_groups_and_numbers_where_there_are_no_files(run):
    words = ["--dataset", "c-digits", "--bias-ratio", 0.95, "--steps", 2, "--show", 1, "--csv", "rows.csv"]
    code, out, _ = run("weights", *words)
    assert code == 0
    assert re.search(r"│ \d+, \w+( \w+)?: [\d.]+ +│", out)
    with open("rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1297
    assert {row["path"] for row in rows} == {""}
    assert "red" in {row["group"] for row in rows}
    assert "groups: images outside the largest group" in out


def test_another_encoder(run):
    words = ["--dataset", "c-digits", "--steps", 2, "--stability", "seeds"]
    code, out, _ = run("weights", *words)
    assert code == 0
    assert "stability: encoders of two seeds rank images alike to" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--report", "page.pdf"], "--report is an HTML page, such as page.html, not page.pdf"),
        (["--stability", "thirds"], "--stability must be halves or seeds, not 'thirds'"),
        (["--stability", "seeds"], "--stability seeds compares two encoders, and z.npy is in place of one"),
        (["--csv", "no/rows.csv"], "the folder of no/rows.csv does not exist"),
        (["--report", "no/page.html"], "the folder of no/page.html does not exist"),
    ],
)
def test_bad_input_is_one_line_before_any_work(weights, options, words):
    code, _, errors = weights(*options)
    assert code != 0
    assert errors.count("\n") == 1
    assert words in errors
    assert not Path("runs").exists()
