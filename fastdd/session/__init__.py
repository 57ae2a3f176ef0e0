"""A run of a method: the loop, callbacks, checkpoints, resume, estimates."""

from fastdd.session.by_class import ClassRun
from fastdd.session.callbacks import Callback, Curve, Progress, Report
from fastdd.session.estimate import Estimate
from fastdd.session.folder import check_out
from fastdd.session.loggers import RunLog
from fastdd.session.run import Run, run
from fastdd.session.snapshots import Snapshots, snapshot_files, snapshot_iterations

__all__ = [
    "Callback",
    "ClassRun",
    "Curve",
    "Estimate",
    "Progress",
    "Report",
    "Run",
    "RunLog",
    "Snapshots",
    "check_out",
    "run",
    "snapshot_files",
    "snapshot_iterations",
]
