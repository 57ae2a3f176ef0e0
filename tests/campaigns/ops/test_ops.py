"""Hostile calls of every op, in forked processes: none crashes, hangs, ends in a traceback or differs in silence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tally import Tally

from fastdd.core import ext

RUN = Path(__file__).with_name("run.py")


def count(tally: Tally, *options: object) -> int:
    """Count the calls of a campaign; how many there were."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _path()}
    # Sanitizers map terabytes for their shadow.
    options += ("--no-memory-limit",) if ext.build_info().get("build_type") == "sanitized" else ()
    done = subprocess.run(
        [sys.executable, RUN, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    seed = options[options.index("--seed") + 1]
    for row in rows:
        again = f"run.py --seed {seed} --first {row['number']} --calls 1: {row['how']}: {row['what']}"
        tally.count(f"ops {row['stage']}", row["outcome"], again)
    return len(rows)


def _path() -> str:
    """Where the worker's modules are, also where Python adds no folder of a script (PYTHONSAFEPATH)."""
    return os.pathsep.join(filter(None, [str(RUN.parent), os.environ.get("PYTHONPATH")]))


@pytest.mark.full
def test_some_hostile_calls():
    tally = Tally()
    assert count(tally, "--seed", 1, "--calls", 400, "--seconds", 8) > 20
    assert not tally.faults


@pytest.mark.campaigns
def test_hostile_calls(tally, seconds):
    """At least 10,000 calls; and for as long as campaigns are to take."""
    seed, number = int(os.environ.get("FASTDD_CAMPAIGN_SEED", 1)), 0
    number += count(tally, "--seed", seed, "--calls", 10000)
    count(tally, "--seed", seed, "--first", number, "--calls", 10**6, "--seconds", seconds)
    assert not tally.faults_of(*[stage for stage in tally.counts if stage.startswith("ops ")])
