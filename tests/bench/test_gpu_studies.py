"""The studies that are made for a GPU, tiny and on the CPU: rows, their figures, and going on."""

import json

import pytest
import torch

import fastdd
from fastdd.bench.studies import headline, neighbours
from fastdd.studies import KeptRows

CPU = torch.device("cpu")


def test_published_figures_are_the_papers():
    assert headline.published("none") == {"accuracy": 25.01, "deo_m": 100, "deo_a": 99.96}
    assert headline.published("fairdd") == {"accuracy": 94.61, "deo_m": 17.04, "deo_a": 7.95}
    assert headline.FULL == {"iterations": 20_000, "nets": 5, "epochs": 1000, "loop_iterations": 200}


def test_the_headline_goes_on_where_it_was(tmp_path, monkeypatch):
    data, settings = fastdd.data.load("c-digits"), {"width": 4, "batch_real": 8}
    evaluate = fastdd.evaluate

    def killed(*arguments, **words):
        raise KeyboardInterrupt

    monkeypatch.setattr(fastdd, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        headline.Headline(data, CPU, tmp_path, headline.QUICK, **settings).run()
    kept = json.loads((tmp_path / "study.json").read_text())["rows"]
    assert [(row["what"], row["debias"]) for row in kept] == [
        ("reference-loop", "fairdd"),
        ("reference-loop", "none"),
        ("distill", "fairdd"),
    ]
    monkeypatch.setattr(fastdd, "evaluate", evaluate)
    rows = headline.Headline(data, CPU, tmp_path, headline.QUICK, **settings).run()
    assert rows[:3] == kept
    assert [row["what"] for row in rows[3:]] == ["evaluate", "distill", "evaluate"]
    loop = rows[0]
    assert loop["seconds_of_all"] == pytest.approx(loop["ms"] / 1e3 * headline.QUICK["iterations"])
    assert all(0 <= row[name]["mean"] <= 100 for row in rows if row["what"] == "evaluate" for name in headline.FIGURES)
    assert headline.table(rows).row_count == 2
    with pytest.raises(ValueError, match="is of a study with width=4, not 8"):
        headline.Headline(data, CPU, tmp_path, headline.QUICK, **settings | {"width": 8}).run()


def test_neighbours_and_exact_densities_are_held_to_float64(tmp_path):
    pytest.importorskip("faiss")
    with KeptRows(tmp_path, "neighbours", {}) as kept:
        row = kept.get({"points": 600}, lambda: neighbours.compare(neighbours.points(600, CPU)))
    assert row["exact_error"] < 1e-5
    assert row["truth_out_of_bounds"] < 1e-4
    # 256 of 600 are neighbours and all others are far samples, so that nothing is estimated.
    assert row["knn_error"] < 1e-4
    assert min(row[name] for name in ("exact_s", "knn_s", "exact_first_s", "knn_first_s")) > 0
