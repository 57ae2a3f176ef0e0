"""``fastdd estimate``: the other commands' options, and what they would take."""

import json

import pytest

from fastdd.data import load
from fastdd.data.initial import random_set


def parts(path):
    return list(json.loads(path.read_text())["meta"]["estimate"]["seconds"])


def test_distill_is_what_is_estimated_where_nothing_is_named(run, tmp_path):
    small = ("--dataset", "c-digits", "--ipc", 1, "--iterations", 5, "--width", 4)
    for arguments, expected in (
        ((*small, "--json", tmp_path / "a.json"), ["start", "distillation"]),
        (
            (*small, "--val-split", 0.5, "--eval-every", 2, "--eval-nets", 1, "--eval-epochs", 3),
            ["start", "distillation", "evaluations"],
        ),
        (("distill", *small, "--evaluate", "--nets", 2, "--epochs", 3), ["start", "distillation", "evaluation"]),
    ):
        code, out, _ = run("estimate", *arguments)
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()[2 : 2 + len(expected)]] == expected
        assert "memory: " in out
        assert "disk: " in out
    assert parts(tmp_path / "a.json") == ["start", "distillation"]
    assert not (tmp_path / "runs").exists()


def test_experts_and_evaluations(run, tmp_path):
    file = tmp_path / "made.json"
    assert run("estimate", "experts", "--dataset", "c-digits", "--width", 4, "--epochs", 2, "--json", file)[0] == 0
    assert parts(file) == ["start", "experts"]
    random_set(load("c-digits"), 1).save(tmp_path / "set.safetensors")
    options = ("--epochs", 2, "--arch", "ConvNetD1,ConvNetD2", "--json", file)
    assert run("estimate", "evaluate", tmp_path / "set.safetensors", *options)[0] == 0
    assert parts(file) == ["start", "evaluation"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ipcs", "3"), "there is no option --ipcs; did you mean --ipc?"),
        (("--dataset", "c-digits", "--ipc", "0"), "IPC must be at least 1, not 0"),
        (("experts", "--dataset", "c-digits", "--processes", "2"), "leave --processes out"),
        (("evaluate", "nowhere"), "no synthetic set at nowhere"),
        (
            ("evaluate", "whole", "--dataset", "c-digits", "--protocol", "ddranking"),
            "no estimate of protocol ddranking",
        ),
        (("bench",), "there is no estimate of 'bench'; one of: distill, experts, evaluate"),
    ],
)
def test_bad_usage_is_one_line(run, arguments, words):
    code, out, err = run("estimate", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
