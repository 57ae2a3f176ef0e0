import time

import torch

from fastdd.bench.framework import timing
from fastdd.bench.framework.timing import MOST_ROUNDS, WARM_UP, alternate

CPU = torch.device("cpu")


def test_backends_take_turns_in_a_rotating_order():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times, failures = alternate(functions, CPU, reps=4, budget=0)
    assert not failures
    assert {name: len(spent) for name, spent in times.items()} == dict.fromkeys("abc", 4)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == WARM_UP + 4
    assert rounds[:4] == ["abc", "bca", "cab", "abc"]


def test_times_are_microseconds():
    times, _ = alternate({"sleep": lambda: time.sleep(0.002)}, CPU, reps=2, budget=0)
    assert all(2e3 <= spent < 1e6 for spent in times["sleep"])


def test_the_budget_adds_rounds():
    times, _ = alternate({"sleep": lambda: time.sleep(0.001)}, CPU, reps=1, budget=0.05)
    assert 5 <= len(times["sleep"]) <= 50
    assert len(alternate({"nothing": lambda: None}, CPU, reps=1, budget=30)[0]["nothing"]) == MOST_ROUNDS


def test_a_function_that_raises_is_left_out():
    def broken():
        raise RuntimeError("no")

    times, failures = alternate({"broken": broken, "fine": lambda: None}, CPU, reps=3, budget=0)
    assert list(failures) == ["broken"]
    assert len(times["fine"]) == 3


def test_what_takes_long_is_called_once(monkeypatch):
    monkeypatch.setattr(timing, "LONG", 0.01)
    calls = []

    def slow():
        calls.append(1)
        time.sleep(0.02)

    times, _ = alternate({"slow": slow, "fast": lambda: None}, CPU, reps=3, budget=0)
    assert len(calls) == len(times["slow"]) == 1
    assert times["slow"][0] > 2e4
    assert len(times["fast"]) == 3


def test_a_limit_stops_what_takes_longer_after_one_call():
    calls = []

    def slow():
        calls.append(1)
        time.sleep(0.2)

    began = time.perf_counter()
    times, _ = alternate({"slow": slow, "fast": lambda: time.sleep(0.001)}, CPU, reps=1, budget=0.1, limit=0.1)
    assert len(calls) == len(times["slow"]) == 1
    assert len(times["fast"]) > 5
    assert time.perf_counter() - began < 2
    assert [len(of) for of in alternate({"a": slow, "b": slow}, CPU, reps=1, budget=0, limit=0)[0].values()] == [1, 1]
