"""Train fresh networks on a small set and measure what they learned: accuracy and fairness."""

from fastdd.evaluation.metrics import METRICS, GroupCounts, Metrics, interval
from fastdd.evaluation.protocol import Evaluation, Protocol, count_right, evaluate
from fastdd.evaluation.published import PROTOCOLS, PublishedProtocol, published_protocol

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Evaluation",
    "GroupCounts",
    "Metrics",
    "Protocol",
    "PublishedProtocol",
    "count_right",
    "evaluate",
    "interval",
    "published_protocol",
]
