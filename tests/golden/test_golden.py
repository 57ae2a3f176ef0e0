"""What runs make is the same, to the last bit, as when ``digests.json`` was recorded; and runs of then go on now."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

import fastdd
from fastdd.ops.conv_block import why_no_bf16_products
from fastdd.report.page import write_page
from fastdd.report.record import read_record

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("golden_record", HERE / "record.py")
record = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(record)

RECORDED = json.loads((HERE / "digests.json").read_text())
OLD = json.loads((HERE / "old" / "ends.json").read_text())
SAME_MACHINE = record.where() == RECORDED["where"]
RUNS, EXPERTS = record.run_cases(), record.expert_cases()
SETTINGS = list(dict.fromkeys(name.split(" ", 1)[1] for name in RUNS))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield record.Recorder(tmp_path_factory.mktemp("golden"))
    torch.set_num_threads(threads)


def compare(found: dict, recorded: dict, single: dict | None = None) -> None:
    """All of it where it was recorded; elsewhere a few values, and what depends on no arithmetic.

    ``single`` was recorded of the same run in single precision. Products of bfloat16 round otherwise elsewhere, so that
    there its values are held to those: at most twice as far from them as where both were recorded.
    """
    if SAME_MACHINE:
        assert found == recorded
        return
    for name in ("files", "config", "data", "number"):
        assert found.get(name) == recorded.get(name)
    if "sketch" not in found:
        return
    truth = (single or recorded)["sketch"]
    rounded = max(abs(value - true) for value, true in zip(recorded["sketch"], truth, strict=True))
    assert found["sketch"] == pytest.approx(truth, rel=0.02, abs=0.02 + 2 * rounded)


def always(name: str) -> bool:
    """Whether a run is of the default suite: every mode with one of the methods, and the first three with each; every
    other setting with one."""
    setting = name.split(" ", 1)[1]
    if setting.endswith(("fp32", "bf16")):
        if setting in ("fairdd stratified bf16", "kde weighted fp32", "none random bf16"):
            return True
        if not setting.endswith("random fp32"):
            return False
        if setting.split()[0] in record.MODES[:3]:
            return True
    of_methods = [run for run in RUNS if run.split(" ", 1)[1] == setting]
    return name == of_methods[SETTINGS.index(setting) % len(of_methods)]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if always(n) else pytest.mark.full) for n in RUNS])
def test_runs(recorder, name):
    if name.startswith("dm ") and name.endswith("bf16") and why_no_bf16_products():
        pytest.skip("recorded on products of bfloat16: " + why_no_bf16_products())
    single = RECORDED["runs"][name.replace("bf16", "fp32")] if name.endswith("bf16") else None
    compare(recorder.run(name, RUNS[name]), RECORDED["runs"][name], single)


@pytest.mark.parametrize("name", EXPERTS)
def test_experts(recorder, name):
    compare(recorder.experts(name, EXPERTS[name]), RECORDED["experts"][name])


def test_weights_and_groups(recorder):
    for name, found in recorder.weight_cases().items():
        compare(found, RECORDED["weights"][name])


def test_evaluations(recorder):
    for name, found in recorder.evaluation_cases().items():
        compare(found, RECORDED["evaluations"][name])


def test_default_settings():
    assert record.defaults() == RECORDED["defaults"]


@pytest.mark.parametrize("name", OLD["runs"])
def test_old_runs_are_evaluated_reported_and_resumed(recorder, tmp_path, name):
    shutil.copytree(HERE / "old", tmp_path / "old")
    run, recorded = tmp_path / "old" / name, OLD["runs"][name]
    counts = fastdd.evaluate(run, recorder.data, nets=1, epochs=2, device="cpu").counts
    found = record.digest([[each.right.tolist(), each.total.tolist()] for each in counts])
    write_page(tmp_path / "page.html", [read_record(run)], recorder.data)
    assert f"{name}" in (tmp_path / "page.html").read_text()
    settings = dict(recorded["settings"])
    if "experts" in settings:
        settings["experts"] = tmp_path / "old" / "experts"
    made = fastdd.distill(recorder.data, out=run, resume=True, **settings)
    if SAME_MACHINE:
        assert found == recorded["counts"]
        assert record.digest(made.images, made.labels) == recorded["images"]
    assert record.sketch(made.images) == pytest.approx(recorded["sketch"], rel=0.02, abs=0.02)
