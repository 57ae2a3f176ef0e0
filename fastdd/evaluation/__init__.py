"""Train fresh networks on a small set and measure what they learned: accuracy and fairness."""

from fastdd.evaluation.dc_augmentation import DcAugmentation, dc_strategy
from fastdd.evaluation.metrics import METRICS, GroupCounts, Metrics, interval
from fastdd.evaluation.protocol import Evaluation, Protocol, count_right, evaluate
from fastdd.evaluation.published import PROTOCOLS, PublishedProtocol, published_protocol

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "DcAugmentation",
    "Evaluation",
    "GroupCounts",
    "Metrics",
    "Protocol",
    "PublishedProtocol",
    "count_right",
    "dc_strategy",
    "evaluate",
    "interval",
    "published_protocol",
]
