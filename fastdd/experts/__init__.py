"""Experts: networks trained on the real data and stored after every epoch, which trajectory matching follows."""

from fastdd.experts.settings import ExpertSettings
from fastdd.experts.store import Experts
from fastdd.experts.training import (
    ExpertProgress,
    check_experts_out,
    check_experts_room,
    check_processes,
    describe_experts,
    train_experts,
)

__all__ = [
    "ExpertProgress",
    "ExpertSettings",
    "Experts",
    "check_experts_out",
    "check_experts_room",
    "check_processes",
    "describe_experts",
    "train_experts",
]
