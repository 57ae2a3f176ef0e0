"""Every command's table at every width: it fits, no figure is cut, and no column is blank."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from fastdd import report
from fastdd.bench.framework import prediction_file
from fastdd.bench.framework.overhead import Overhead, Published, overhead_table
from fastdd.bench.framework.table import table as bench_table
from fastdd.cli.console import PlainConsole, console
from fastdd.cli.plan import show_estimate, show_plan
from fastdd.compat.hook.summary import Summary
from fastdd.core.progress import Work
from fastdd.debias.density import kde
from fastdd.evaluation import METRICS
from fastdd.report import overview, repeats
from fastdd.session import Estimate

WIDTHS = (60, 80, 100, 200)
RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
# As long as names are in life.
LONG = "Golden_retriever_of_the_photographer's_own"


def result(method="dm", debias="fairdd-groupdro", classes=10, groups=10, **others):
    figure = {"mean": 98.76, "std": 12.34, "interval": 1.25}
    accuracy = (np.arange(classes * groups).reshape(classes, groups) % 101).tolist()
    about = {"arch": "ResNet18BN", "nets": 20, "epochs": 1000, "seconds": 12345.6, "ipc": 50, "dataset": "c-mnist-fg"}
    return {
        **{"method": method, "debias": debias, **about},
        **dict.fromkeys(METRICS, figure),
        **{"seed": 0, "group_accuracy": accuracy, **others},
    }


def group_table(groups, full=False):
    names = [f"{colour}+{n}" for n, colour in zip(range(groups), ["light yellow", "magenta"] * groups, strict=False)]
    return report.group_table(result(groups=groups), [LONG, *map(str, range(9))], names, full=full)


def weights():
    labels = np.arange(300) % 3
    values = np.linspace(1, 9, 300)
    groups = (np.arange(300) % 7 > 4).astype(np.int64)
    found = kde.diagnose(values, labels, groups)
    return report.weight_table(found, ["car", LONG, "ship"], kde.rarity(values, labels, groups), "weights")


def experts():
    row = dict.fromkeys((*METRICS, "loss"), 98.76)
    entry = {"evaluations": [{"epoch": 50, **row}], "seconds": 1234.5}
    manifest = {"experts": [entry, entry]}
    return [report.expert_summary(report.expert_rows(manifest), "experts"), report.expert_table(manifest, "experts")]


def audits():
    header = ["class", "majority", "data", "set", "confl.", "\u03bb", "off", "covered", "others"]
    line = [
        LONG,
        "light yellow and more",
        "99.9",
        "100",
        "100",
        "-12.34 \u00b1 10.12",
        "100.1",
        "100 (100)",
        "100 (100)",
    ]
    return report.audit._table(header, [line, line], 2, "c-mnist-fg")


def explanations():
    row = {
        **{"of": "dm+fairdd", "test": {"accuracy": 98.76}, "silhouette_class": -0.12, "silhouette_group": 0.34},
        **{"inside": 0.4567, "area": 0.1234},
    }
    return report.explanation_table([[row, row], [row]], "c-mnist-fg, 2,000 test images")


def benches():
    file = sorted(RESULTS.glob("*cpu*.json"))[0]
    document = json.loads(file.read_text())
    document["rows"] = document["rows"][:12]
    overhead = Overhead("scale/groups-dc", "groups=10", "reference-loop", 12.34, 1.23, 123.4, Published(3.0, 1.14))
    predicted = prediction_file.read(str(RESULTS / "predicted-h200.json"), ["step/dm*"])
    return [
        bench_table(document),
        overhead_table([overhead]),
        prediction_file.table(
            predicted
            | {
                "rows": [{**row, "measured": 123456.0, "ratio": 1.23} for row in predicted["rows"]],
                "meta": {**predicted["meta"], "measured": []},
            }
        ),
    ]


def overviews():
    settings = {"method": "dm", "debias": "fairdd", "dataset": "tiny-imagenet-200", "ipc": 50, "seed": 12345}
    row = result()
    states = [
        overview.RunState(
            Path(f"/somewhere/below/{LONG}/{n}"), "distillation", "interrupted", {**settings, "lr_img": n},
            12345, 20000, {"step": 5, "loss": 1234.5}, row,
        )
        for n in range(3)
    ]  # fmt: skip
    return [overview.overview_table(states, Path("/somewhere")), overview.difference_table(states)]


def tables():
    several = [{n: result(seed=n) for n in range(3)}, {n: result("dc", seed=n) for n in range(3)}]
    replaced = {
        **{"name": "match_loss", "module": "utils.networks", "ours": "fastdd", "calls": 123456, "seconds": 1234.56},
        **{"agreed": 3, "checked": 3, "notes": ["the first call differs in its third argument"]},
    }
    return {
        "evaluate": report.table([result(), result(debias="none")], "c-mnist-fg, test set, %"),
        "repeats": repeats.repeats_table(several, "c-mnist-fg"),
        **{f"groups {n}": group_table(n) for n in (2, 10, 12, 50)},
        "groups 50 full": group_table(50, full=True),
        "weights": weights(),
        **{f"experts {n}": one for n, one in enumerate(experts())},
        "audit": audits(),
        "explain": explanations(),
        **{f"bench {n}": one for n, one in enumerate(benches())},
        **{f"runs {n}": one for n, one in enumerate(overviews())},
        "run": Summary([replaced], 12.3, "fast").table(),
    }


def cells_of(table):
    return [[str(cell) for cell in column.cells] for column in table.columns]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", tables())
def test_tables_fit(name, width):
    table = tables()[name]
    text = shown(table, width)
    check_lines(text, width)
    for column in table.columns:
        for cell in column.cells:
            for line in str(cell).splitlines() if column.justify == "right" and column.overflow != "fold" else ():
                assert line in text, (name, line)
    letters = "".join(text.split())
    for column in table.columns:
        for word in " ".join(map(str, column.cells)).split():
            assert len(word) > 20 or word in text or word in letters, (name, word)


def shown(table, width):
    output = PlainConsole(file=io.StringIO(), width=width, markup=False, highlight=False, soft_wrap=True)
    output.print(table)
    return output.file.getvalue()


def check_lines(text, width):
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_commands_that_tell_what_there_is_fit(run, monkeypatch, width):
    monkeypatch.setattr(console, "_width", width)
    for words in (["methods"], ["modes"], ["recipes"], ["info"], ["data", "list"], ["data", "check", "c-digits"]):
        code, text, error = run(*words)
        assert code == 0, error
        tabular = [
            line for line in text.splitlines() if not line.startswith(("c-digits: ", "the settings", "experts: "))
        ]
        check_lines("\n".join(tabular), width)


def test_the_plan_and_the_estimate_fit(capsys, monkeypatch):
    monkeypatch.setattr(console, "_width", 60)
    show_plan("fastdd distill would make runs/x", {"dsa_strategy": "color_crop_cutout", "init": LONG * 3})
    show_estimate(Estimate({"evaluations on the way": 123456.0}, 2**34, None, 2**30, []), "fastdd distill", Path())
    text = capsys.readouterr().out
    assert LONG * 3 in "".join(text.split())
    check_lines(text, 60)


def test_fifty_groups_are_summed_up_by_their_extremes():
    table = group_table(50)
    assert [column.header for column in table.columns] == ["class", "mean", "lowest", "in group", "highest", "in group"]
    first = [column[0] for column in cells_of(table)]
    assert first == [LONG, "24", "0", "light yellow+0", "49", "magenta+49"]
    assert len(group_table(50, full=True).columns) == 51
    assert len(group_table(12).columns) == 13


def test_a_table_of_classes_without_images_has_no_extremes():
    table = report.extremes_table("t", [("a", [None] * 20)], [str(n) for n in range(20)], "mean", "lowest", "highest")
    assert [column[0] for column in cells_of(table)] == ["a", "-", "-", "", "-", ""]


def test_columns_go_below_each_other_with_the_names_of_their_rows():
    table = Table(title="t")
    table.add_column("class")
    for number in range(12):
        table.add_column(f"group {number}", justify="right")
    table.add_row("car", *(str(1000 + number) for number in range(12)))
    lines = shown(table, 60).splitlines()
    named = [line.split() for line in lines if line.startswith("car")]
    assert [figure for line in named for figure in line[1:]] == [str(1000 + number) for number in range(12)]
    assert len(named) == sum(line.startswith("class") for line in lines) > 1


@pytest.mark.parametrize("width", WIDTHS)
def test_a_line_of_progress_keeps_its_figures(width):
    work = Work("mtt none tiny-imagenet-200, seed 12345 of a long title that goes on and on")
    work.update(12345, 20000, "loss 123.4", 0.01)
    for bar in (False, True):
        line = work.line(width, "12.3 GiB, GPU 45.6 GiB", bar=bar)
        assert len(line) <= width
        assert "12,345/20,000 (61 %)" in line
        assert "left" in line
    assert "loss 123.4" in work.line(200)


def test_what_is_done_is_never_rounded_up():
    work = Work("x")
    work.update(2994, 3000)
    assert "(99 %)" in work.line()


def test_a_rate_comes_from_what_was_seen():
    work = Work("x")
    work.update(100, 300)
    assert work.left is None
    work._first = (work._first[0] - 10, 100)
    work.update(150, 300)
    assert work.rate == pytest.approx(5, rel=0.1)
    assert work.left == pytest.approx(30, rel=0.1)


def test_progress_without_a_terminal_is_plain_lines(run, monkeypatch):
    monkeypatch.setenv("FASTDD_PROGRESS_SECONDS", "0.000001")
    words = ("distill", "--dataset", "c-digits", "--ipc", 1, "--iterations", 2, "--width", 4, "--batch-real", 8)
    code, _, error = run(*words)
    assert code == 0
    lines = error.splitlines()
    assert lines[0].startswith("dm none c-digits: 2/2 (100 %), 0:0")
    assert "gone" in lines[0]
    assert lines[-1].startswith("dm none c-digits: done in ")
    assert run(*words, "--out", "q", "--quiet")[1:] == ("", "")
    monkeypatch.setenv("FASTDD_PROGRESS_SECONDS", "0")
    assert run(*words, "--out", "n")[2] == ""
    code, _, error = run(*words, "--out", "v", "--verbose")
    assert code == 0
    for said in ("data set c-digits: train 1,297", "settings: method dm", "checkpoint of step 2", "c-digits: done, "):
        assert said in error
    monkeypatch.setenv("FASTDD_PROGRESS_SECONDS", "soon")
    code, _, error = run(*words, "--out", "s")
    assert (code, error.count("\n")) == (2, 1)
    assert "must be seconds" in error
