"""Train fresh networks on a small set and measure what they learned: accuracy and fairness."""

from fastdd.evaluation.metrics import METRICS, GroupCounts, Metrics
from fastdd.evaluation.protocol import Evaluation, Protocol, count_right, evaluate

__all__ = ["METRICS", "Evaluation", "GroupCounts", "Metrics", "Protocol", "count_right", "evaluate"]
