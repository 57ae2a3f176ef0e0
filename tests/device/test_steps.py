"""What every step asks of a GPU, read without one: nothing that the host must wait for, and how many kernels.

The numbers of kernels are recorded in bench/results/launches.json, which this file writes anew when it is run as a
script with tests/helpers on the path; a step that launches more than is recorded there fails.
"""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from pretend_gpu import CUDA, PretendGpu, Record
from tiny_runs import in_turn, inputs, made, modes_of, tiny

from fastdd.bench.cases import CASES
from fastdd.debias import MODES
from fastdd.methods import METHODS, Context, methods_with_steps
from fastdd.ops._dispatch import has_triton

RECORDED = Path(__file__).parents[2] / "bench" / "results" / "launches.json"
# Steps for which something is taken from the host: the experts' parameters, which stay there.
UPLOADS = {"mtt": {"store.at"}}
# Modes that the host has to wait in.
WAIT = {name for name, mode in MODES.items() if mode.waits}
# Methods without steps on all classes ask a GPU for forward passes of a teacher, class by class, and are not counted.
STEPS = [(method, mode) for method in methods_with_steps() for mode in modes_of(method)]

pytestmark = pytest.mark.skipif(not has_triton(), reason="triton is not installed, whose launchers are counted")


@cache
def step(method: str, mode: str, depth: int = 2, width: int = 4) -> tuple[Record, float]:
    """What the second step of a run asks of a GPU, and how far its images are from those of the same steps on the CPU,
    in units of the largest."""
    config, data = tiny(method, debias=mode, depth=depth, width=width), made("colour")
    given = inputs(config, "colour")
    weights = None if given.get("weights") is None else torch.as_tensor(given["weights"])
    images = torch.linspace(-1, 1, 3 * 2 * 3 * 8 * 8).view(6, 3, 8, 8).sin()

    def run(device: torch.device):
        method = METHODS[config.method](config, Context(data, device, images, weights, given.get("experts")))
        method.step(0)
        return method

    on_cpu = run(torch.device("cpu"))
    on_cpu.step(1)
    with PretendGpu() as gpu:
        there = run(CUDA)
        if there.phase(0) is None:
            there._steps._table.seek(1)  # keys of many steps are sent at once, which a recorded one need not be
        with gpu.recording() as record:
            there.step(1)
        found = there.images.detach().cpu()
    expected = on_cpu.images.detach()
    return record, ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(("method", "mode"), in_turn(STEPS))
def test_a_step_waits_for_nothing_and_launches_no_more_than_is_recorded(method, mode):
    record, difference = step(method, mode)
    assert difference < 1e-5
    if mode in WAIT:
        assert record.waits  # which is why it is not asked for the rest
        return
    assert record.waits == []
    assert {place.split(" < ")[0] for _, place in record.uploads} == UPLOADS.get(method, set())
    assert record.launches <= json.loads(RECORDED.read_text())["steps"][method][mode], record.places.most_common(10)


@pytest.mark.parametrize(("method", "tiles", "blocks"), [("dm", 2, 1), ("dc", 6, 0)])
def test_a_step_takes_split_convolutions_where_they_are_chosen(monkeypatch, method, tiles, blocks):
    """DM: real images forward in one kernel a block, synthetic ones forward and back. DC: both sides forward and to the
    input, and through these once more on the synthetic side. The first block, of three colours, stays with cuDNN."""
    monkeypatch.setenv("FASTDD_CONVOLUTIONS", "split")
    record, difference = step.__wrapped__(method, "none", width=16)
    assert difference < 1e-5
    assert record.waits == []
    kernels = Counter({name: n for (_, name), n in record.places.items() if n})
    assert (kernels["conv3x3_tiles"], kernels["conv_block_whole"]) == (tiles, blocks)


def of_cases() -> dict[str, int]:
    """Kernels of the second call of ours, without CUDA graphs, of every bench case that runs on the pretended GPU."""
    launches = {}
    os.environ["FASTDD_CUDA_GRAPHS"] = "0"
    for case in (case for case in CASES if "fastdd" in case.backends(None)):
        try:
            with PretendGpu() as gpu:
                given = case.inputs(0, CUDA, True)
                case.fastdd(given)
                with gpu.recording() as record:
                    case.fastdd(given)
            launches[case.label] = record.launches
        except Exception as error:
            print(f"{case.label} is not counted: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
    return launches


def main() -> None:
    launches = {method: {} for method in methods_with_steps()}
    for method, mode in STEPS:
        launches[method][mode] = step(method, mode)[0].launches
    # Networks of 32x32 images have three blocks. Those of experts have as many as the experts'.
    published = {
        method: {mode: step(method, mode, 3)[0].launches for mode in ("none", "fairdd")}
        for method in methods_with_steps()
        if not METHODS[method].needs_experts
    }
    found = {"steps": launches, "three blocks": published, "cases": of_cases()}
    RECORDED.write_text(json.dumps(json.loads(RECORDED.read_text()) | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
