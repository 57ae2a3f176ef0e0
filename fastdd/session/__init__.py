"""Run a method: configuration, loop, checkpoints, resume, metrics."""

from fastdd.session.config import RunConfig
from fastdd.session.folder import GROUPS, WEIGHTS, check_out
from fastdd.session.run import Progress, run
from fastdd.session.sets import check_ipc, random_set

__all__ = ["GROUPS", "WEIGHTS", "Progress", "RunConfig", "check_ipc", "check_out", "random_set", "run"]
