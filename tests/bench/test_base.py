"""A tree against another commit: the other's files, ratios and verdicts; and the history of committed results."""

import json
import subprocess

import pytest
import torch
from PIL import Image

from fastdd.bench import cases
from fastdd.bench.framework import base, history, runner
from fastdd.cli import main
from fastdd.core import ext


def git(folder, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    (root / "bench" / "results").mkdir(parents=True)
    for folder in ("fastdd", "bench", "kernels", "csrc"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "__init__.py").write_text(f"name = {folder!r}\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_the_other_trees_files_are_those_of_its_commit_and_go_again(repository, monkeypatch):
    monkeypatch.setattr(ext, "available", lambda: False)
    (repository / "bench" / "__init__.py").write_text("name = 'changed'\n")
    with base.other_tree("HEAD", repository) as tree:
        assert len(tree.commit) == 40
        assert (tree.path / "fastdd" / "bench" / "__init__.py").read_text() == "name = 'bench'\n"
        assert (tree.path / "fastdd" / "kernels").is_dir()
        kept = tree.path
    assert not kept.exists()
    with pytest.raises(ValueError, match="--base nonsense is no commit"), base.other_tree("nonsense", repository):
        pass
    with pytest.raises(ValueError, match="is no git checkout"), base.other_tree("HEAD", repository / "fastdd"):
        pass


def test_the_interval_of_a_median_is_of_order_statistics():
    times = [float(n) for n in range(1, 13)]
    # Of 12, P(fewer than 3 below the median) = (1 + 12 + 66) / 4096 = 0.0193: the 3rd of either end.
    assert base.ratio(times, [1.0] * 12) == {"median": 6.5, "low": 3.0, "high": 10.0}
    assert base.ratio([2.0] * 5, [1.0] * 5) == {"median": 2.0, "low": None, "high": None}


def test_a_tree_that_is_off_is_told():
    good = {"error": 0.0, "budget": 1e-6, "match": True, "times": [1.0]}
    bad = {"error": 1e-3, "budget": 1e-6, "match": False, "times": [1.0]}
    rows = [
        {"case": "a", "base": good, "this": bad, "same": 0.1, "ratio": None},
        {"case": "b", "base": {"raised": "LookupError: no such case"}, "this": good, "same": None, "ratio": None},
    ]
    assert base.failed(rows) == ["a: this tree is off by 1.0e-03, allowed are 1.0e-06"]


@pytest.mark.full
def test_this_tree_against_its_own_commit(capsys, tmp_path):
    words = ["bench", "--base", "HEAD", "--quick", "--case", "augment/flip", "--threads", "1", "--device", "cpu"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--json", str(tmp_path / "base.json")])
    assert not end.value.code
    row = json.loads((tmp_path / "base.json").read_text())["rows"][0]
    assert row["same"] == 0
    assert row["ratio"]["median"] > 0
    assert "same bits" in capsys.readouterr().out


@pytest.fixture(scope="module")
def measured():
    documents = runner.run(cases.select(["augment/flip"]), torch.device("cpu"), reps=1, budget=0, quick=True)
    return json.loads(json.dumps(list(documents)[-1] | {}))


def later(document, utc, factor):
    new = json.loads(json.dumps(document))
    new["meta"] |= {"utc": utc, "quick": False}
    for row in new["rows"]:
        for name in ("median_us", "q20_us", "q80_us"):
            row[name] *= factor
    return new


def test_history_has_every_committed_version(repository, measured, tmp_path, monkeypatch, capsys):
    path = repository / "bench" / "results" / "cpu.json"
    for number, utc in enumerate(("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")):
        path.write_text(json.dumps(later(measured, utc, 1.0 / (number + 1))))
        git(repository, "add", ".")
        git(repository, "commit", "-qm", utc)
    path.write_text(json.dumps(later(measured, "2026-03-01T00:00:00Z", 0.25)))  # not committed yet
    (path.parent / "launches.json").write_text("{}")
    found = history.points(history.committed(path.parent))
    assert [point.utc[:7] for point in found] == ["2026-01", "2026-02", "2026-03"]
    assert found[0].median_us == pytest.approx(4 * found[2].median_us)
    assert history.draw(tmp_path / "h.png", found) == 1
    assert Image.open(tmp_path / "h.png").width > 500
    monkeypatch.setattr(history, "RESULTS", path.parent)
    with pytest.raises(ValueError, match="matches 'no such'"):
        history.points(history.committed(path.parent), ["no such"])


def test_tiny_inputs_are_no_history(measured):
    assert history.points([("a.json", measured)]) == []
