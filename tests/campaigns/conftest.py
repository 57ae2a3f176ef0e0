"""One tally for all campaigns, also where several processes share them, and the time that each test of one has."""

import os

import pytest
from tally import Tally

_tally = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    """Where a campaign counts; printed at the end, and written to the file that $FASTDD_CAMPAIGN_JSON names."""
    return _tally


@pytest.fixture(scope="session")
def seconds() -> float:
    """How long one test of a campaign draws new cases: $FASTDD_CAMPAIGN_SECONDS, or 5 minutes."""
    return float(os.environ.get("FASTDD_CAMPAIGN_SECONDS", 300))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["campaigns"] = _tally.as_dict()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    if "campaigns" in getattr(node, "workeroutput", {}):
        _tally.add(node.workeroutput["campaigns"])


def pytest_terminal_summary(terminalreporter):
    if _tally.counts:
        terminalreporter.section("campaigns")
        terminalreporter.write_line(_tally.table())
        if path := os.environ.get("FASTDD_CAMPAIGN_JSON"):
            _tally.write(path)
