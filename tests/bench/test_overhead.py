"""Ratios of steps with groups to those without, by hand, beside the paper's."""

import pytest

from fastdd.bench.framework.overhead import overheads


def row(case, backend, us, *, groups=0, side=32, peak=None, match=True):
    shape = {"groups": groups, "image": [3, side, side]}
    return {"case": case, "backend": backend, "median_us": us, "shape": shape, "peak_bytes": peak, "match": match}


def test_steps_are_compared_with_those_without_groups():
    rows = [
        row("scale/groups-dc", "fastdd", 1e6, peak=100),
        row("scale/groups-dc", "fastdd", 1.1e6, groups=10, peak=102),
        row("scale/groups-dc", "torch", 3e6, groups=10),  # without its vanilla
        row("scale/size-dm", "fastdd", 1e6, side=64),
        row("scale/size-dm+fairdd", "fastdd", 1.5e6, groups=2, side=64),
        row("scale/size-dm+fairdd", "fastdd", 1.5e6, groups=2, side=96),
        row("scale/size-dm+fairdd", "torch", 1.5e6, groups=2, side=64, match=False),
    ]
    dc, dm = overheads(rows)
    assert (dc.case, dc.of, dc.time, dc.memory) == ("scale/groups-dc", "groups=10", pytest.approx(1.1), 1.02)
    assert dc.minutes == pytest.approx(1.1 * 10_000 / 60)
    assert dc.published == (pytest.approx(210 / 70), pytest.approx(2443 / 2143))
    assert (dm.of, dm.time, dm.memory) == ("pixels=64", 1.5, None)
    assert dm.published.time == pytest.approx(12.2 / 11.18)
