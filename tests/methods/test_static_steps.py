"""Steps as units of work that a GPU can replay: what they draw with is said ahead, and may lie on a device."""

import pytest
import torch
from tiny_runs import begun, graphs_of

from fastdd.core import graph, rng
from fastdd.methods import methods_with_steps

# What settings of some methods bring in besides.
MORE = {
    "warmed": ("dm", {"embed_warmup": 2}),
    "scheduled": ("dm", {"lr_schedule": "cosine", "match_width": 4}),
    "trained": ("dm", {"networks": "./there"}),
    "batch norm": ("dsa", {"arch": "ConvNetBN"}),
    "parts, mixed": ("idc", {"batch_synthetic": 3, "train_images": 12, "cutmix": 0.5}),
    "soft labels": ("mtt", {"soft_labels": "teacher", "batch_syn": 4}),
}
KINDS = {**{name: (name, {}) for name in methods_with_steps()}, **MORE}
STEPS = 6


class Noted(dict):
    """Keys, and which of them are looked up."""

    def __init__(self, keys):
        super().__init__(keys)
        self.used = set()

    def __getitem__(self, name):
        self.used.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_draws_with_the_keys_that_it_says_and_no_others(kind, monkeypatch):
    name, settings = KINDS[kind]
    method, noted, inside = begun(name, **settings), {}, []
    right = rng.key

    def key(*arguments):
        assert not inside or inside[-1], f"rng.key{arguments} is asked for in the middle of a unit"
        return right(*arguments)

    def watch(graphs, call):
        def watched(number, keys, *inputs):
            noted.setdefault(graphs, []).append(Noted(keys))
            # DREAM's refreshing steps are none of a graph's.
            inside.append(name == "dream" and method._refreshes(number))
            try:
                return call(number, noted[graphs][-1], *inputs)
            finally:
                inside.pop()

        return watched

    for graphs in graphs_of(method):
        monkeypatch.setattr(graphs, "_call", watch(graphs, graphs._call))
    monkeypatch.setattr(rng, "key", key)
    for number in range(4):
        method.step(number)
    assert len(noted) == len(graphs_of(method))
    for units in noted.values():
        assert len({tuple(keys) for keys in units}) == 1  # the same names in the same order
        assert set.union(*(keys.used for keys in units)) == {*units[0]}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_a_table_and_of_the_host_give_the_same_bits(kind, monkeypatch):
    """Those of the table with checkpoints between, from which another object goes on; it is sent anew on the way."""
    monkeypatch.setattr(graph.KeyTable.__init__, "__defaults__", (2,))  # rows
    name, settings = KINDS[kind]
    plain = begun(name, **settings)
    losses = [plain.step(number) for number in range(STEPS)]
    monkeypatch.setattr(graph, "enabled", lambda device: True)

    def another():
        method = begun(name, **settings)
        for graphs in graphs_of(method):
            assert graphs._table is not None
            monkeypatch.setattr(graphs, "_phase", lambda number: 0)
        return method

    static = another()
    for number, loss in enumerate(losses):
        if number in (STEPS // 3, 2 * STEPS // 3 + 1):
            state = {name: tensor.clone() for name, tensor in static.state().items()}
            static = another()
            static.restore(state)
        assert torch.equal(static.step(number), loss), number
    expected, found = plain.state(), static.state()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
