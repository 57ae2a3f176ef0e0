"""Rows, tables and JSON: the stable interface."""

import json

import pytest
import torch

from fastdd import report
from fastdd.evaluation import Evaluation, GroupCounts, Protocol
from fastdd.report.baselines import command_for
from fastdd.session.trained import TrainedNetwork
from fastdd.training import TrainSettings


@pytest.fixture
def row():
    counts = tuple(GroupCounts(torch.tensor([[9, 1], [5, 5]]) + i, torch.tensor([[10, 10], [10, 10]])) for i in (0, 1))
    return report.result_row(
        Evaluation("ConvNet", counts, 1.5, Protocol(epochs=7, learning_rate=0.02), 3),
        dataset="c-digits",
        method="dm",
        debias="fairdd",
        ipc=10,
    )


def test_row_has_the_promised_keys_and_percent(row):
    assert list(row)[:11] == [
        "dataset",
        "method",
        "debias",
        "ipc",
        "arch",
        "nets",
        "accuracy",
        "deo_m",
        "deo_a",
        "wa",
        "ba",
    ]
    assert row["accuracy"] == {
        "mean": pytest.approx(55),
        "std": pytest.approx(5),
        "interval": pytest.approx(12.7062 * 5, rel=1e-5),
    }
    assert row["deo_m"]["mean"] == pytest.approx(80)
    assert row["group_accuracy"] == [[95.0, 15.0], [55.0, 55.0]]
    assert row["seconds"] == 1.5
    assert (row["epochs"], row["learning_rate"], row["seed"], row["deo"]) == (7, 0.02, 3, "range")
    assert row["tested_on"] == "test"


def test_json_round_trip_and_schema(row, tmp_path):
    path = tmp_path / "results.json"
    report.write_json(path, report.document([row], note="x"))
    content = report.read_json(path)
    assert content["schema"] == 1
    assert content["rows"] == [row]
    assert content["meta"]["note"] == "x"
    path.write_text(json.dumps({"schema": 7}))
    with pytest.raises(ValueError, match="schema 7, not 1"):
        report.read_json(path)


def test_undefined_figures_are_null_not_nan(tmp_path):
    counts = (GroupCounts(torch.tensor([[9], [5]]), torch.tensor([[10], [10]])),)
    row = report.result_row(
        Evaluation("ConvNet", counts, 1.0, Protocol(), 0), dataset="mnist", method="dm", debias="none", ipc=1
    )
    assert row["deo_a"] == {"mean": None, "std": None, "interval": None}
    report.write_json(tmp_path / "r.json", report.document([row]))


def render(table) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_table_shows_mean_and_spread(row):
    text = render(report.table([row]))
    assert "dm+fairdd" in text
    assert "55.0 ± 5.0" in text
    assert "2 x ConvNet" in text


def test_group_table(row):
    text = render(report.group_table(row, ("zero", "one"), ("red", "blue")))
    assert "red" in text
    assert any("zero" in line and "95" in line and "15" in line for line in text.splitlines())


def test_of_many_classes_the_lowest_are_shown():
    accuracies = [[99.0, float(label)] for label in range(40)]
    accuracies[7] = [None, None]
    text = render(report.group_table({"group_accuracy": accuracies[::-1]}, [f"c{n}" for n in range(40)][::-1], "ab"))
    assert "the 30 lowest of 40 classes" in " ".join(text.split())
    shown = [
        int(word[1:]) for line in text.splitlines() for word in line.split() if word[1:].isdigit() and word[0] == "c"
    ]
    assert shown == [n for n in range(31) if n != 7]


def test_a_network_tested_without_groups_has_a_row_that_can_be_read(tmp_path):
    counts = GroupCounts(torch.tensor([[3], [4]]), torch.tensor([[5], [5]]))
    config = TrainSettings.configure(dataset="c-digits", width=8)
    trained = TrainedNetwork(torch.nn.Identity(), config, counts, 1, (), None, "test", "erm")
    row = report.network_row(trained)
    assert row["deo_m"] == {"mean": None, "std": None, "interval": None}
    assert row["accuracy"] == {"mean": 70.0, "std": 0.0, "interval": None}
    report.write_json(tmp_path / "a.json", report.document([row]))
    assert report.read_results(tmp_path / "a.json")["rows"] == [row]
    assert report.networks(row) == f"1 x ConvNetD2W8, {config.epochs} epochs"


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ({"arch": "ConvNet", "depth": 4}, "ConvNetD4"),
        ({"arch": "ConvNet", "width": 32}, "ConvNetW32"),
        ({"arch": "ConvNetD4"}, "ConvNetD4"),
        ({"arch": "ConvNet", "width": 8}, None),
        ({"arch": "ConvNetBN", "depth": 4}, None),
        ({"arch": "ConvNet", "depth": 4, "width": 32}, None),
        ({"arch": "ConvNet", "depth": 2, "width": 64}, ""),  # of c-digits, which is taken where none is named
    ],
)
def test_a_baseline_is_of_the_same_network(network, named):
    command = command_for({"dataset": "c-digits", "ipc": 10, "nets": 2, **network})
    words = command.split()
    found = (words[words.index("--arch") + 1] if "--arch" in words else "") if command else None
    assert found == named
