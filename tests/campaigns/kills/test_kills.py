"""Commands killed at every file operation and at any moment, alone and two in a folder: they go on to the same end."""

import random
import tempfile
import time
from pathlib import Path

import pytest
from kills import stages
from kills.harness import Stage, Victim
from kills.stages import Sources
from tally import Tally

GROUPS = (
    stages.builds,
    stages.exchanges,
    stages.trainings,
    stages.distillations,
    stages.reproductions,
    stages.two_process_trainings,
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return Sources(tmp_path_factory.mktemp("kills") / "sources")


def victim_of(stage: Stage, sources: Sources, tally: Tally) -> Victim:
    folder = Path(tempfile.mkdtemp(prefix=f"{stage.name}-".replace(" ", "-"), dir=sources.folder))
    return Victim(stage, folder, tally)


@pytest.mark.full
def test_some_operations_of_a_run_of_builds_and_of_exchanges(sources, tally):
    """What the campaign does with every command and all of their operations."""
    chosen = {"distill dm", "build streamed", "build in memory --force", "export mtt --force", "experts import"}
    found = [
        stage
        for group in (stages.distillations, stages.builds, stages.exchanges)
        for stage in group(sources)
        if stage.name in chosen
    ]
    assert {stage.name for stage in found} == chosen
    for stage in found:
        victim = victim_of(stage, sources, tally)
        for operation in range(1, len(victim.operations) + 1, 6):
            victim.die_at(operation)
    assert not tally.faults_of(*chosen)


@pytest.mark.campaigns
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_a_command_killed_at_each_of_its_operations(group, sources, tally, seconds):
    found = group(sources)
    for stage in found:
        victim, until = victim_of(stage, sources, tally), time.monotonic() + seconds / len(found)
        operations = list(range(1, len(victim.operations) + 1))
        random.Random(stage.name).shuffle(operations)  # where time is short, some from all over
        for operation in operations:
            victim.die_at(operation)
            if time.monotonic() > until:
                break
    assert not tally.faults_of(*(stage.name for stage in found))


@pytest.mark.campaigns
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_a_command_killed_at_any_time_often_and_two_in_a_folder(group, sources, tally, seconds):
    found = group(sources)
    for stage in found:
        victim, until = victim_of(stage, sources, tally), time.monotonic() + seconds / len(found)
        draws, last = random.Random(stage.name), len(victim.operations)
        for _ in range(10):
            victim.die_after(draws.uniform(0, victim.seconds))
            victim.die_often([draws.randint(1, last) for _ in range(draws.randint(2, 4))])
            victim.two_at_once(draws.randint(1, last))
            if time.monotonic() > until:
                break
    assert not tally.faults_of(*(stage.name for stage in found))
