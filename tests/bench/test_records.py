"""Records: targets are the paper's, seeds are gone on with, verdicts are the t-test's, the page is as generated."""

import json
import sys
from dataclasses import replace

import pytest
from scipy import stats

from fastdd import reproduce
from fastdd.bench.records import __main__ as command
from fastdd.bench.records import record, table
from fastdd.bench.records.targets import TARGETS, Threshold, target

SPENT = {"seconds": 2.0, "cpu_seconds": 1.5}
TINY = {"iterations": 2, "width": 4, "batch_real": 4}


@pytest.mark.parametrize("name", [name for name, one in TARGETS.items() if one.published])
def test_published_figures_are_the_papers(name):
    one = TARGETS[name]
    row, column = f"{one.dataset}:{one.ipc}", f"{one.method.upper()}+FairDD"
    cell = reproduce.select(reproduce.read_paper("fairdd")["table1"], [row], [column]).cells[0]
    assert {figure: cell.published[figure] for figure, _ in one.published} == dict(one.published)


@pytest.mark.parametrize(
    ("threshold", "alternative"),
    [(Threshold("accuracy", "at least", 94.6), "greater"), (Threshold("deo_a", "at most", 95.1), "less")],
)
def test_a_verdict_is_the_one_sided_t_test(threshold, alternative):
    values = [94.9, 95.3, 94.7, 95.2, 94.8]
    truth = stats.ttest_1samp(values, threshold.value, alternative=alternative)
    assert record.verdict(values, threshold).p == pytest.approx(truth.pvalue, rel=1e-9)


def test_equal_seeds_and_single_ones():
    least = Threshold("accuracy", "at least", 90)
    assert record.verdict([91, 91], least).p == 0
    assert record.verdict([90, 90], least).p == 1
    assert record.verdict([91], least).p is None


@pytest.fixture
def seeds(monkeypatch):
    """Seeds that take no time: each seed's accuracy is 91 and a tenth of it."""
    done = []

    def seed(plan, number, data, data_root, tell):
        done.append(number)
        tell(f"seed {number}")
        where = {"device": "a CPU", "driver": None, "threads": 1, "git": {"commit": "a" * 40, "dirty": True}}
        figures = {"accuracy": 91 + number / 10, "deo_m": None, "deo_a": 12.0}
        return {
            "seed": number,
            "distillation": SPENT,
            "everything": SPENT,
            "machine": where,
            "evaluation": SPENT,
        } | figures

    monkeypatch.setattr(record, "_seed", seed)
    return done


def test_a_record_goes_on_seed_by_seed(tmp_path, seeds):
    plan = record.Plan(target("c-digits-90"), "tiny", TINY)
    record.run(plan, [0], root=tmp_path)
    found = record.run(plan, [0, 1, 2], root=tmp_path)
    assert seeds == [0, 1, 2]
    assert [row["seed"] for row in found["seeds"]] == [0, 1, 2]
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "record.json"]
    assert json.loads((folder / "record.json").read_text()) == found
    assert record.met(found, target("c-digits-90"))
    with pytest.raises(ValueError, match=r"is a record of given .*: choose another --name"):
        record.run(record.Plan(target("c-digits-90"), "tiny", {**TINY, "iterations": 3}), [0], root=tmp_path)
    page = table.page(f"# Records\n\n{table._BEGIN}\nold\n{table._END}\nmore\n", record.records(tmp_path))
    assert "| 91.10 ± 0.25 | 12.00 ± 0.00 | yes, p = " in page
    assert "aaaaaaaa with changes |" in page
    assert "old" not in page
    assert page.endswith(f"{table._END}\nmore\n")
    assert table.page(page, record.records(tmp_path)) == page


def test_a_record_counts_for_every_target_of_what_it_made(tmp_path, seeds):
    plan = record.Plan(target("c-mnist-fg-published"), "tiny", TINY)
    found = {**plan.about(), "seeds": [record._seed(plan, number, None, None, print) for number in range(5)]}
    assert [name for name, one in TARGETS.items() if record.counts_for(found, one)] == [
        *("c-mnist-fg-90", "c-mnist-fg-published"),
    ]
    assert record.met(found, target("c-mnist-fg-90"))
    assert record.met(found, target("c-mnist-fg-published")) is False
    told = table.tables([("2026-01-02-c-mnist-fg-published-tiny", found)])
    assert [line for line in told.splitlines() if line.startswith("#")] == [
        "### c-mnist-fg-90",
        "### c-mnist-fg-published",
    ]
    assert (told.count("| yes, p = "), told.count("| no, p = ")) == (1, 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["c-digit-90", "--name", "a"], "unknown target 'c-digit-90'"),
        (["c-digits-90", "--name", "A b"], "small letters, digits and hyphens"),
        (["c-digits-90", "--name", "a", "--set", "ipc=1"], "ipc is the target's or the seeds'"),
        (["c-digits-90", "--name", "a", "--set", "widht=4"], "there is no setting 'widht'"),
        (["c-digits-90", "--name", "a", "--set", "width"], "--set takes NAME=VALUE"),
        (["c-digits-90", "--name", "a", "--nets", "0"], "--nets must be at least 1, not 0"),
        (["c-digits-90", "--name", "a", "--structure", "published", "--set", "width=4"], "leave width out"),
        (["c-mnist-fg-dc-90", "--name", "a", "--structure", "published"], "of dc is timed only: give --time-steps"),
    ],
)
def test_bad_input_is_refused_in_a_line(words, line, tmp_path, monkeypatch, capsys, seeds):
    monkeypatch.setattr(sys, "argv", ["records", "run", *words, "--out", str(tmp_path)])
    assert command.main() == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
    assert not seeds
    assert not list(tmp_path.iterdir())


def test_the_page_is_as_generated():
    text = table.PAGE.read_text(encoding="utf-8")
    assert text == table.page(text, record.records())


@pytest.mark.full
@pytest.mark.parametrize(("structure", "timed"), [("fastdd", None), ("fastdd", 1), ("published", 1)])
def test_a_seed_is_a_process_that_is_timed_and_checked(structure, timed, tmp_path):
    settings = {} if structure == "published" else TINY
    plan = record.Plan(target("c-digits-90"), "tiny", settings, structure=structure, nets=1, timed_steps=timed)
    plan = plan if timed else replace(plan, target=replace(plan.target, epochs=2))
    (row,) = record.run(plan, [3], root=tmp_path)["seeds"]
    assert row["distillation"]["cpu_seconds"] > 0
    if timed is None:
        assert row["everything"]["seconds"] > row["distillation"]["seconds"]
        assert 0 <= row["accuracy"] <= 100
    else:
        assert row["everything"] is None
        assert record.met({"seeds": [row]}, plan.target) is None
