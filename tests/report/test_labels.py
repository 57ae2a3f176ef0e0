"""What runs are called on a page."""

from dataclasses import replace
from pathlib import Path

import pytest

from fastdd.report.labels import labels, title
from fastdd.report.record import Record


def run(where="run", **about):
    settings = {"method": "dm", "debias": "none", "dataset": "c-digits", "ipc": 1, "seed": 0, **about}
    return Record(Path("runs") / where, None, settings, 0, 1, [], [], [], [], {})


@pytest.mark.parametrize(
    ("records", "names"),
    [
        ([run()], ["dm, c-digits, IPC 1"]),
        ([run(), run(debias="fairdd")], ["dm", "dm+fairdd"]),
        ([run(), run(ipc=10)], ["dm, IPC 1", "dm, IPC 10"]),
        ([run(), run(dataset="mnist")], ["dm, c-digits", "dm, mnist"]),
        ([run(lr_img=1.0), run(lr_img=10.0), run(method="dc")], ["dm, lr_img 1.0", "dm, lr_img 10.0", "dc"]),
        ([run(width=None), run(width=4, seed=3)], ["dm, no width", "dm, width 4"]),
        ([run(), run(seed=3)], ["dm, seed 0", "dm, seed 3"]),
        ([run("a"), run("b")], ["dm, a", "dm, b"]),
        ([run(a=1, b=1, c=1, d=1), run(a=2, b=2, c=2, d=2)], [f"dm, a {n}, b {n}, c {n}, and 1 more" for n in (1, 2)]),
    ],
)
def test_runs_are_called_by_what_differs(records, names):
    assert labels(records) == names


def test_a_name_that_was_given_stands_and_repeats_of_it_have_their_seeds():
    ours = [replace(run(seed=seed), title="ours") for seed in (0, 1)]
    assert labels([*ours, run(debias="fairdd")]) == ["ours, seed 0", "ours, seed 1", "dm+fairdd"]
    assert labels([replace(run(), title="ours")]) == ["ours"]


def test_the_title_says_what_runs_have_in_common():
    several = [run(ipc=ipc) for ipc in (1, 10, 50, 100)]
    assert title(several[:1], labels(several[:1])) == "dm, c-digits, IPC 1"
    assert title(several[:3], labels(several[:3])) == "dm, IPC 1, dm, IPC 10 and dm, IPC 50: c-digits"
    assert title(several, labels(several)) == "4 runs: c-digits"
