"""Run a method: configuration, loop, checkpoints, resume, metrics."""

from fastdd.session.config import RunConfig
from fastdd.session.run import Progress, run
from fastdd.session.sets import random_set

__all__ = ["Progress", "RunConfig", "random_set", "run"]
