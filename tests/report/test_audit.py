"""What an audit found: the file in a run's folder, tables, and the report page."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

import fastdd
from fastdd import report
from fastdd.cli.fit import fitted
from fastdd.data import SyntheticSet
from fastdd.evaluation.audit import Audit, Bound, ClassOfSet, Probe, SetBias
from fastdd.report import charts
from fastdd.report.page import page
from fastdd.report.record import Record


@pytest.fixture(scope="module")
def data():
    return fastdd.data.load("c-digits")


@pytest.fixture
def made(data):
    about = {"class_names": list(data.class_names), "mean": list(data.mean), "std": list(data.std)}
    return SyntheticSet(torch.zeros(20, 3, 16, 16), torch.arange(10).repeat_interleave(2), about)


@pytest.fixture
def found(data):
    """An audit of two images a class, one of the class's own colour, one of the next; and a class without a place."""
    share, rows = np.eye(10) / 2 + np.roll(np.eye(10), 1, 1) / 2, []
    for y in range(10):
        place = (None, None, None) if y == 9 else (0.25, 0.01, 0.5)
        rows.append(ClassOfSet(2, tuple(share[y]), 0.5, 0.5, 1.0, *place, (0.5,) * 10, (0.25,) * 10))
    groups = tuple((y + part) % 10 for y in range(10) for part in range(2))
    bound = Bound("mse", 1.5, 20.0, True, 0.25, 0.5)
    probe = Probe(99.5, 10.0, 80.0, 273)
    of_set = SetBias(tuple(rows), 20, 20 / 1297, probe, groups, (0.75,) * 20, 0.5, 0.5, 2.32, 3.32, 0.25, (bound,), 20)
    return replace(fastdd.audit(data), of_set=of_set)


def text_of(tables, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in tables:
        console.print(table)
    return console.export_text()


def test_an_audit_is_read_back_as_it_was(found, made, tmp_path):
    path = tmp_path / "audit.json"
    report.write_json(path, report.audit_document(found, made))
    assert report.read_audit(path, made) == found
    other = replace(made, images=made.images + 1)
    assert report.read_audit(path, other) is None
    assert isinstance(report.read_audit(path), Audit)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda row: row["data"].pop("images"), "data.images: Field required"),
        (lambda row: row["of_set"]["groups"].append(3), "groups of"),
        (lambda row: row["of_set"]["classes"].pop(), "9 classes"),
        (lambda row: row["of_set"]["classes"][0]["coverage"].pop(), "figures are not of 10 groups"),
        (lambda row: row["of_set"]["groups"].__setitem__(0, 10), "figures are not of 10 groups"),
        (lambda row: row["data"].update(majority_share="most"), "data.majority_share: Input should be a valid number"),
    ],
)
def test_a_damaged_audit_is_one_line_that_names_it(found, made, tmp_path, change, told):
    path = tmp_path / "audit.json"
    document = json.loads(json.dumps(report.audit_document(found, made)))
    change(document["rows"][0])
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"audit\.json is damaged: .*{re.escape(told)}"):
        report.read_audit(path)


def test_tables_fit_80_columns(found):
    names = tuple(f"a class with a long name {n}" for n in range(10))
    classes = tuple(replace(one, name=name) for one, name in zip(found.data.classes, names, strict=True))
    wide = replace(found, data=replace(found.data, classes=classes))
    tables = [part for table in report.audit_tables(wide, "run, c-digits") for part in fitted(table, 80)]
    lines = text_of(tables, 200).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    first = text_of(report.audit_tables(found, "run, c-digits")).splitlines()
    assert first[2].split() == ["0", "red", "89.4", "50", "50", "0.25", "±", "0.01", "0.5", "50", "(25)", "50", "(25)"]
    assert first[11].split() == ["9", "white", "89.9", "50", "50", "-", "-", "50", "(25)", "50", "(25)"]
    assert any(line.split() == ["mse", "1.5", "20", "yes", "0.25", "0.5"] for line in first)
    assert any("usb" in line for line in text_of(report.audit_tables(replace(found, of_set=None))).splitlines())


def test_the_page_marks_images_by_their_groups_and_has_the_audit(found, made, tmp_path):
    record = Record(tmp_path / "run", made, {}, 0, None, [], [], [], [], {}, found)
    text = page([record])
    buttons = re.findall(r'class="marked" style="--mark: (#\w+)" title="([^"]*)"', text)
    assert len(buttons) == 20
    assert buttons[0] == ("#ff0000", "synthetic 0 1, group red (75 %)")
    assert buttons[1] == ("#ff8000", "synthetic 0 2, group orange (75 %)")
    assert text.count('<span class="swatch"') == 10
    assert "0.25 ± 0.01" in text
    assert "50.0 % are of the majorities" in text
    assert "λ, mean over classes: 0.25" in text
    plain = page([replace(record, audit=None)])
    assert 'class="marked"' not in plain
    assert "Audit" not in plain


def test_of_images_that_hold_several_the_parts_are_marked(found, made, tmp_path):
    several = replace(made, metadata=made.metadata | {"formation": 2})
    groups = tuple(n % 10 for n in range(80))
    of_set = replace(found.of_set, images=80, groups=groups, certainty=(0.5,) * 80)
    text = page([Record(tmp_path, several, {}, 0, None, [], [], [], [], {}, replace(found, of_set=of_set))])
    titles = re.findall(r'class="marked" style="--mark: #\w+" title="([^"]*)"', text)
    assert len(titles) == 80
    assert titles[:2] == ["synthetic 0 1, part 1, group red (50 %)", "synthetic 0 1, part 2, group orange (50 %)"]


def test_a_probe_that_cannot_tell_marks_nothing_and_says_why(found, made, tmp_path):
    of_set = replace(
        found.of_set, probe=Probe(43.0, 10.0, 80.0, 273), groups=None, certainty=None, majority_share=None,
        conflicting=None, information=None,
    )  # fmt: skip
    text = page([Record(tmp_path, made, {}, 0, None, [], [], [], [], {}, replace(found, of_set=of_set))])
    assert 'class="marked"' not in text
    assert "accuracy of 43.0 % (guessing 10.0 %), below 80 %" in text


def test_bars_stand_beside_each_other():
    picture = charts.bars(
        [("DM", [(90.0, 1.0), (20.0, None)]), ("$x", [(80.0, 2.0), (70.0, 1.0)])], ("D", "D_b"), y="%"
    )
    assert picture.startswith('<div class="chart"><svg')
    assert ">$x<" in picture
    assert "hatch" not in picture
    assert all(picture.count(f"var(--c{number})") == 3 for number in range(2))  # two bars, and the legend's


def test_bars_of_one_run_have_its_colour_and_of_baselines_none():
    picture = charts.bars(
        [("DM", [(1.0, None)] * 4)], ("random", "whole", "a", "a, ResNet"), y="%", of=(None, None, 1, 1)
    )
    assert "var(--c0)" not in picture
    assert picture.count("var(--c1)") >= 3
    assert picture.count("#7d8790") >= 3
    assert picture.count("<pattern") == 2  # the second of a colour is hatched
