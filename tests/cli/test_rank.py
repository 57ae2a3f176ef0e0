"""``fastdd evaluate --protocol ddranking`` as a user types it."""

import json

import pytest

from fastdd import report

QUICK = ("--protocol", "ddranking", "--nets", 1, "--epochs", 1, "--rates", "0.01")


def test_scores_of_a_run_are_printed_and_kept(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FASTDD_PROGRESS_SECONDS", "0")
    small = ["--dataset", "c-digits", "--ipc", 1, "--iterations", 1, "--width", 4, "--batch-real", 4]
    assert run("distill", *small, "--out", tmp_path / "run")[0] == 0
    code, text, errors = run("evaluate", tmp_path / "run", *QUICK, "--compat", "--json", tmp_path / "r.json")
    assert (code, errors) == (0, "")
    assert max(map(len, text.splitlines()[:40])) <= 80 or "±" in text
    for words in ("HLR", "IOR", "LRS", "ARS", "DEO_M", "best epoch on held-out images", "label-robust score: mean"):
        assert words in text
    row = report.read_json(tmp_path / "r.json")["rows"][0]
    assert report.read_json(tmp_path / "run" / report.RANKING)["rows"] == [row]
    assert (row["protocol"], row["method"], row["rounds"], row["labels"]) == ("ddranking", "dm", 1, "hard")
    assert row["last"]["accuracy"]["ior"]["interval"] is None
    assert 0 <= row["last"]["wa"]["lrs"]["mean"] <= 1
    assert run("report", tmp_path / "run", "--out", tmp_path / "p.html", "--embedding", "none")[0] == 0
    assert "Scores of DD-Ranking" in (tmp_path / "p.html").read_text()
    (tmp_path / "run" / report.RANKING).write_text(json.dumps(report.document([row | {"last": {"accuracy": 1}}])))
    code, _, errors = run("report", tmp_path / "run", "--out", tmp_path / "q.html", "--embedding", "none")
    assert code == 2
    assert "ranking.json is damaged: last accuracy hlr" in errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rates", "0.1"], "--rates is for protocol ddranking"),
        (["--compat"], "--compat is for protocol ddranking"),
        ([*QUICK, "--training", "lff"], "--training is not for protocol ddranking"),
        ([*QUICK[:-1], "a,b"], "--rates must be learning rates"),
        ([*QUICK, "--val-split", 0.1], "leave val_split out"),
    ],
)
def test_what_does_not_go_together_is_one_line(run, options, said):
    code, _, errors = run("evaluate", "random", "--dataset", "c-digits", "--ipc", 1, *options)
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1
