"""``--seeds``: a run a seed, what is done is kept, and what all commands make of it."""

import shutil

import pytest

from fastdd import report

SMALL = ["--dataset", "c-digits", "--ipc", 1, "--iterations", 2, "--width", 8, "--batch-real", 8]
QUICK = ["--nets", 2, "--epochs", 1]


def test_repeats_are_made_once_and_known_to_every_command(run, tmp_path):
    out = tmp_path / "runs"
    code, text, _ = run("distill", *SMALL, *QUICK, "--seeds", 2, "--out", out, "--json", "a.json")
    assert code == 0
    assert "2 x 2 ConvNet" in text
    first = report.read_json(tmp_path / "a.json")["rows"]
    assert [(row.get("seed"), row.get("seeds"), row["nets"]) for row in first] == [
        (0, None, 2),
        (1, None, 2),
        (None, [0, 1], 4),
    ]
    # One of three is missing, as after a kill: it alone is made.
    shutil.rmtree(out / "seed-1")
    stamps = {path: path.read_bytes() for path in (out / "seed-0").rglob("result.json")}
    assert run("distill", *SMALL, *QUICK, "--seeds", 2, "--out", out)[0] == 2
    assert run("distill", *SMALL, *QUICK, "--seeds", 2, "--out", out, "--resume", "--json", "b.json")[0] == 0
    second = report.read_json(tmp_path / "b.json")["rows"]
    assert [row["accuracy"] for row in second] == [row["accuracy"] for row in first]
    assert second[0]["seconds"] == first[0]["seconds"]
    assert all(path.read_bytes() == content for path, content in stamps.items())
    # A single run of a seed is that of its repeat.
    assert run("distill", *SMALL, "--seed", 1, "--out", "single")[0] == 0
    sets = [(folder / "synthetic.safetensors").read_bytes() for folder in (out / "seed-1", tmp_path / "single")]
    assert sets[0] == sets[1]
    code, text, _ = run("evaluate", out, *QUICK, "--json", "c.json")
    assert code == 0
    third = report.read_json(tmp_path / "c.json")["rows"]
    assert third[2]["seeds"] == [0, 1]
    # Networks of the name, without the run's own width, are others.
    code, text, _ = run("evaluate", out, "--arch", "ConvNet", *QUICK, "--json", "d.json")
    assert code == 0
    assert "2 x ConvNet " in text
    assert "2 x ConvNetD2W8" not in text
    assert [row.get("width") for row in third] == [8, 8, 8]
    assert not {"width", "depth"} & report.read_json(tmp_path / "d.json")["rows"][0].keys()
    of_runs = report.read_json(out / "seed-0" / "result.json")["rows"]
    assert [(row.get("width"), row["nets"]) for row in of_runs] == [(8, 2), (None, 2)]
    # Networks that are kept are trained for it, a folder a seed, and found before anything is trained again.
    keep = ["--nets", 1, "--epochs", 1, "--arch", "ConvNet", "--keep-nets", tmp_path / "nets"]
    assert run("evaluate", out, *keep)[0] == 0
    kept = {str(path.relative_to(tmp_path / "nets")) for path in (tmp_path / "nets").rglob("*.safetensors")}
    assert kept == {"seed-0/ConvNet-0.safetensors", "seed-1/ConvNet-0.safetensors"}
    shutil.rmtree(tmp_path / "nets" / "seed-0")
    code, _, error = run("evaluate", out, *keep)
    assert code == 2
    assert "seed-1 already holds networks" in error
    assert run("report", out, "--embedding", "none")[0] == 0
    assert "over distillations" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill", *SMALL, "--seeds", "0,0"], "seed 0 is there twice"),
        (["distill", *SMALL, "--seeds", "x"], "not 'x'"),
        (["distill", *SMALL, "--seeds", 2, "--seed", 1], "--seed and --seeds: give one of them"),
        (["distill", *SMALL, "--seeds", 2, "--out", "full"], "is not empty and holds no repeats (it has 'file')"),
        (["evaluate", "whole", "--dataset", "c-digits", "--seeds", 2], "--seeds is for random and for a folder"),
        (["reproduce", "fairdd", "table13"], "table13 is of time and memory: fastdd bench --case 'scale/groups*'"),
        (["reproduce", "fairdd", "table9", "--seed", 1, "--seeds", 2], "--seed and --seeds: give one of them"),
    ],
)
def test_bad_seeds_are_told_in_a_line(run, tmp_path, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, _, error = run(*arguments)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
