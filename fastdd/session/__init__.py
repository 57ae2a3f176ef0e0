"""Run a method, or train experts: configuration, loop, checkpoints, resume, metrics."""

from fastdd.session.config import METHODS, RunConfig, preset
from fastdd.session.estimate import Estimate
from fastdd.session.expert_training import ExpertConfig
from fastdd.session.experts import ExpertProgress, check_experts_out, describe_experts, train_experts
from fastdd.session.folder import GROUPS, WEIGHTS, check_out
from fastdd.session.run import Curve, Progress, run
from fastdd.session.sets import check_ipc, random_set

__all__ = [
    "GROUPS",
    "METHODS",
    "WEIGHTS",
    "Curve",
    "Estimate",
    "ExpertConfig",
    "ExpertProgress",
    "Progress",
    "RunConfig",
    "check_experts_out",
    "check_ipc",
    "check_out",
    "describe_experts",
    "preset",
    "random_set",
    "run",
    "train_experts",
]
