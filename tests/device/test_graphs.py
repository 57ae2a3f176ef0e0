"""CUDA graphs of steps, on the pretended GPU: a replay does what was captured, with the numbers of then."""

import warnings

import pytest
import torch
from pretend_gpu import CUDA, PretendGpu
from tiny_runs import begun, graphs_of

from fastdd.core.graph import Graphs, KeyTable
from fastdd.methods import dc, methods_with_steps
from fastdd.ops._dispatch import has_triton

STEPS = 12
full = pytest.mark.full
KINDS = {
    **{name: (name, {}) for name in methods_with_steps()},
    "warmed": ("dm", {"embed_warmup": 2}),
    "scheduled": ("dm", {"lr_schedule": "cosine", "match_width": 4}),
    "trained": ("dm", {"networks": "./there"}),
    "batch norm": ("dsa", {"arch": "ConvNetBN"}),
    "parts, mixed": ("idc", {"batch_synthetic": 3, "train_images": 12, "cutmix": 0.5}),
    "soft labels": ("mtt", {"soft_labels": "teacher", "batch_syn": 4}),
}
# The rest is for the full suite: a step on the pretended GPU takes a tenth of a second.
USUAL = "dm", "scheduled", "dc"


def add(number, keys, total, more=None):
    """A unit of work in place; returns what comes out of it."""
    total.add_(keys["key"] if more is None else keys["key"] * more)
    return total * 2


def sums(count, phase=lambda number: 0, call=None):
    """What units return on the pretended GPU, and the record."""
    with PretendGpu() as gpu, gpu.recording() as record:
        total = torch.zeros((), dtype=torch.int64, device="cuda")
        graphs = Graphs(call or (lambda n, keys: add(n, keys, total)), lambda n: {"key": n + 1}, CUDA, "x", phase=phase)
        found = [graphs(number) for number in count]
        return [int(one) for one in found], record


def test_units_are_done_once_each_captured_ones_too_and_results_stay():
    found, record = sums(range(8))
    assert found == [2 * sum(range(1, n + 2)) for n in range(8)]
    assert record.kernels["replay"] == 5


def test_a_phase_has_a_graph_and_a_jump_of_the_number_sends_keys_only_where_there_are_none():
    numbers = [0, 1, 2, 3, 4, 40, 41, 5, 1000, 1001]
    found, record = sums(numbers, phase=lambda number: number % 2)
    assert found == [2 * sum(n + 1 for n in numbers[: place + 1]) for place in range(len(numbers))]
    assert record.kernels["replay"] == len(numbers) - 2 * 3
    assert record.uploads == [("copy_", "graph._send < graph.seek")] * 2


def test_constants_that_a_graph_reads_are_never_forgotten():
    """On a GPU it would read on where they lay."""
    table = pytest.importorskip("fastdd.kernels.gradient_match_layers")._table
    cpu = torch.device("cpu")
    first = dc._layout(2, 3, cpu)[0], table((2,), (3,), cpu)[0]
    for each in range(4, 204):
        dc._layout(2, each, cpu), table((2,), (each,), cpu)
    assert dc._layout(2, 3, cpu)[0] is first[0]
    assert table((2,), (3,), cpu)[0] is first[1]


def test_what_a_unit_takes_from_its_number_is_that_of_the_capture():
    """Which is what makes the runs below the truth about steps."""
    found, _ = sums(range(6), call=lambda number, keys: keys["key"] * 0 + number)
    assert found == [0, 1, 2, 3, 3, 3]


def test_inputs_are_copied_to_where_the_graph_reads_them():
    with PretendGpu():
        total = torch.zeros((), dtype=torch.int64, device="cuda")
        graphs = Graphs(lambda n, keys, more: add(n, keys, total, more), lambda n: {"key": 1}, CUDA, "x")
        found = [int(graphs(number, torch.full((), number, device="cuda"))) for number in range(6)]
    assert found == [0, 2, 6, 12, 20, 30]


def test_what_can_not_be_captured_goes_on_kernel_by_kernel_after_one_warning():
    def waits(number, keys):
        total.add_(keys["key"])
        return total * (2 if total.item() else 0)

    with PretendGpu() as gpu, gpu.recording() as record, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        total = torch.zeros((), dtype=torch.int64, device="cuda")
        graphs = Graphs(waits, lambda n: {"key": n + 1}, CUDA, "a step of this", phase=lambda n: n % 2)
        found = [int(graphs(number)) for number in range(12)]
    assert found == [2 * sum(range(1, n + 2)) for n in range(12)]
    assert len(told) == 1
    assert "a step of this is no CUDA graph" in str(told[0].message)
    assert "\n" not in str(told[0].message)
    assert not record.kernels["replay"]


def test_the_environment_turns_graphs_off(monkeypatch):
    monkeypatch.setenv("FASTDD_CUDA_GRAPHS", "0")
    found, record = sums(range(6))
    assert found == [2 * sum(range(1, n + 2)) for n in range(6)]
    assert not record.kernels["replay"]
    assert not record.uploads


def test_a_unit_reads_its_keys_in_two_kernels_and_numbers_keep_their_last_bit():
    with PretendGpu() as gpu:
        table = KeyTable(lambda number: {"key": -number, "share": 1 / (number + 3)}, CUDA, rows=4)
        table.seek(0)
        with gpu.recording() as record:
            keys = table.take()
        assert record.launches == 2
        assert [int(keys["key"]), float(keys["share"])] == [0, 1 / 3]
        for number in (1, 2, 3, 4, 9, 2):
            table.seek(number)
            keys = table.take()
            assert [int(keys["key"]), float(keys["share"])] == [-number, 1 / (number + 3)]


@pytest.mark.skipif(not has_triton(), reason="triton is not installed, whose launchers are counted")
@pytest.mark.parametrize("kind", [kind if kind in USUAL else pytest.param(kind, marks=full) for kind in KINDS])
def test_replayed_steps_are_those_of_the_cpu(kind, monkeypatch):
    name, settings = KINDS[kind]
    plain = begun(name, **settings)
    losses = torch.stack([plain.step(number) for number in range(STEPS)])
    if name == "dream":  # where rounding chooses other images
        monkeypatch.setenv("FASTDD_CUDA_GRAPHS", "0")
        with PretendGpu():
            plain = begun(name, CUDA, **settings)
            losses = torch.stack([plain.step(number).cpu() for number in range(STEPS)])
            expected = plain.images.detach().cpu()
        monkeypatch.delenv("FASTDD_CUDA_GRAPHS")
    else:
        expected = plain.images.detach()
    with warnings.catch_warnings(), PretendGpu() as gpu, gpu.recording() as record:
        warnings.simplefilter("error")
        method = begun(name, CUDA, **settings)
        found = torch.stack([method.step(number).cpu() for number in range(STEPS)])
        assert all(graphs._graphs for graphs in graphs_of(method))
        images = method.images.detach().cpu()
    assert record.kernels["replay"] >= (STEPS - 2 * 3 if name != "dream" else 3)
    assert {place.split(" < ")[0] for _, place in record.uploads} >= {"graph._send"}
    torch.testing.assert_close(found, losses, rtol=1e-5, atol=0)
    assert (images - expected).abs().max() <= 1e-5 * expected.abs().max()
