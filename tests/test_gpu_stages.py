"""``bench/gpu.sh``: stages stop at their limits, go on where they were, and leave whole files at any moment."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastdd.bench import cases

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"

pytestmark = pytest.mark.skipif(not (TOOLS / "gpu_run.py").is_file(), reason="not in a source tree")


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return [importlib.import_module(name) for name in ("wheels", "gpu_stages", "gpu_run")]


def test_every_case_is_measured_once_and_steps_come_first(tools):
    _, stages, _ = tools
    chosen = cases.select(list(stages.CASES))
    # FAISS has a stage of its own; the others are views that are asked for by name.
    left_out = {case.name for case in set(cases.CASES) - set(chosen) if not case.by_name}
    assert left_out == {"kde/knn"}, "CASES in tools/gpu_stages.py has every case"
    assert [case.name for case in chosen[:3]] == ["step/dm", "step/dm+fairdd", "step/dm-bf16"]


def test_tests_that_never_ran_on_a_gpu_are_there(tools):
    _, stages, _ = tools
    assert all((ROOT / name).exists() for name in stages.TESTS)


def test_wheels_are_split_and_joined_and_damage_is_told(tools, tmp_path):
    wheels, _, _ = tools
    content = os.urandom(2500)
    (tmp_path / "large.whl").write_bytes(content)
    (tmp_path / "small.whl").write_bytes(b"small")
    wheels.split(tmp_path, 1000)
    parts = sorted(path.name for path in tmp_path.glob("large.whl.part-*"))
    assert parts == [f"large.whl.part-0{number}" for number in range(3)]
    assert not (tmp_path / "large.whl").exists()
    joined = tmp_path / "joined"
    assert wheels.ready(tmp_path, joined) == [tmp_path, joined]
    assert (joined / "large.whl").read_bytes() == content
    last = (tmp_path / parts[-1]).read_bytes()
    (tmp_path / parts[-1]).write_bytes(last[:-1] + bytes([last[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"large\.whl\.part-02 is damaged: its sha256 is not that in SHA256SUMS"):
        wheels.ready(tmp_path, joined)
    (tmp_path / parts[-1]).unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of 3 parts: large\.whl\.part-02"):
        wheels.ready(tmp_path, joined)
    with pytest.raises(ValueError, match="has no SHA256SUMS"):
        wheels.ready(joined, joined)


def test_wheels_are_those_of_the_project(tools):
    wheels, _, _ = tools
    needed = wheels.requirements(ROOT)
    names = [line.split(">")[0] for line in needed["base"]]
    assert {"typer", "rich", "pydantic", "safetensors", "PyYAML", "pytest", "hypothesis", "pybind11"} <= set(names)
    assert not {"torch", "triton", "ruff"} & set(names)
    assert needed["faiss"][0].startswith("faiss-gpu")


# Stages of a second in place of the real ones, in a process of their own, as signals end it.
SCRIPT = """
import sys
import gpu_run, gpu_stages
from gpu_stages import Part, Stage

count = "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); p.touch(); p.write_text(p.read_text() + 'x')"
def counts(setup, folder):
    return [Part("count", [sys.executable, "-c", count + "; print('counted')", str(folder / "count")])]
def sleeps(setup, folder):
    script = count + "; time.sleep(60 if len(p.read_text()) == 1 else 0)"
    return [Part("sleep", [sys.executable, "-c", script, str(folder / "count")]),
            Part("fail", [sys.executable, "-c", "raise SystemExit(3)"])]
gpu_run.PREPARE = Stage("prepare", "", 9, lambda setup, folder: [])
gpu_run.describe = lambda setup: {"cores": 1}
gpu_run._LEAST_SECONDS = 0.1
gpu_run.STAGES.clear()
gpu_run.STAGES.update(one=Stage("one", "", 9, counts), two=Stage("two", "", 9, sleeps),
                      data=Stage("data", "", 9, counts, lambda setup: "" if setup.data else "DATA"))
sys.exit(gpu_run.main(sys.argv[1:]))
"""


@pytest.fixture
def call(tmp_path):
    out = tmp_path / "out"

    def start(*words, **environment):
        variables = {**os.environ, "PYTHONPATH": str(TOOLS), "OUT": str(out), "DEVICE": "cpu", **environment}
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *words],
            env={name: value for name, value in variables.items() if name not in ("DATA", "WHEELS") and value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(*words, **environment):
        process = start(*words, **environment)
        text, _ = process.communicate(timeout=60)
        return process.returncode, text

    return out, start, finish


def states(out):
    summary = json.loads((out / "summary.json").read_text())
    return {name: entry["state"] for name, entry in summary["stages"].items()}


def test_a_stage_stops_at_its_limit_and_goes_on_and_what_is_done_stays(call):
    out, _, finish = call
    code, text = finish(LIMIT="1.5")
    assert code == 1, text
    assert states(out) == {"prepare": "done", "one": "done", "two": "stopped", "data": "left out: needs DATA"}
    assert (out / "one" / "result.json").is_file()
    assert not (out / "two" / "result.json").exists()
    assert "counted" in (out / "one" / "count.log").read_text()
    code, text = finish(LIMIT="5")
    assert (code, "one: done before" in text) == (1, True)
    assert states(out)["two"] == "failed"  # its second part does, after the first has gone on
    assert ((out / "one" / "count").read_text(), (out / "two" / "count").read_text()) == ("x", "xx")
    entry = json.loads((out / "two" / "result.json").read_text())
    assert [(part["name"], part["state"], part["exit"]) for part in entry["parts"]] == [
        ("sleep", "done", 0),
        ("fail", "failed", 3),
    ]
    assert entry["calls"] == 2
    # Results that were carried elsewhere are gone on with there.
    code, text = finish("one", OUT=str(out.parent / "other"), FROM=str(out))
    assert (code, "one: done before" in text) == (0, True)
    assert (out.parent / "other" / "two" / "count").read_text() == "xx"
    assert finish("--again", "one")[0] == 0
    assert (out / "one" / "count").read_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_kill_leaves_a_summary_and_no_process(call, number):
    out, start, finish = call
    process = start("two")
    until = time.monotonic() + 30
    while not (out / "two" / "count").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGTERM else -number)
    assert states(out)["two"] == ("stopped" if number == signal.SIGTERM else "running")
    while time.monotonic() < until and b"two/count" in subprocess.run(["ps", "axww"], capture_output=True).stdout:
        time.sleep(0.1)
    assert f"{out}/two/count".encode() not in subprocess.run(["ps", "axww"], capture_output=True).stdout
    assert finish("two")[0] == 1
    assert states(out)["two"] == "failed"


def test_what_can_not_be_done_is_told_in_one_line(call):
    out, _, finish = call
    for words, environment, message in (
        (("three",), {}, "three is no stage: one, two, data, or wheels DIR"),
        (("data",), {}, "data needs DATA"),
        ((), {"DEVICE": "tpu"}, "DEVICE=tpu is not cuda or cpu"),
        ((), {"LIMIT": "-1"}, "LIMIT=-1 is no number of seconds"),
        (("wheels",), {}, "wheels needs a folder"),
    ):
        code, text = finish(*words, **environment)
        assert (code, text.startswith(f"error: {message}"), text.count("\n")) == (2, True, 1), text
    out.mkdir(exist_ok=True)
    (out / "summary.json").write_text(json.dumps({"device": "cuda", "machine": {}, "stages": {}}))
    assert finish("one") == (2, f"error: {out} holds results of DEVICE=cuda: name another folder, OUT\n")


def test_what_nvidia_smi_does_not_know_is_left_out(tools, tmp_path, monkeypatch):
    _, _, run = tools
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "fields = sys.argv[1].removeprefix('--query-gpu=').split(',')\n"
        "known = {'clocks.sm': '1980 MHz', 'power.draw': '[N/A]', 'temperature.gpu': '41'}\n"
        "sys.exit(6) if set(fields) - set(known) else print(', '.join(known[name] for name in fields))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run._smi(("clocks.sm", "clocks.moon", "power.draw")) == {"clocks.sm": "1980 MHz", "power.draw": "[N/A]"}
    entry = {"gpu": {"temperature.gpu": [45.0, 50.0]}}
    run._note_gpu(entry)
    assert entry["gpu"] == {"clocks.sm": [1980.0, 1980.0], "temperature.gpu": [41.0, 50.0]}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert run._smi(("clocks.sm",)) == {}
