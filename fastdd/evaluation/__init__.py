"""Train fresh networks on a small set and measure what they learned: accuracy and fairness."""

from fastdd.evaluation.dc_augmentation import DcAugmentation, dc_strategy
from fastdd.evaluation.doubts import DoubtfulFigures
from fastdd.evaluation.metrics import METRICS, GroupCounts, Metrics, interval
from fastdd.evaluation.networks import Evaluation, count_right, evaluate
from fastdd.evaluation.plan import EvaluationPlan, check_fits, in_order_of, plan_evaluation
from fastdd.evaluation.protocol import Protocol
from fastdd.evaluation.published import PROTOCOLS, PublishedProtocol, published_protocol
from fastdd.evaluation.relabel import Labeller

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "DcAugmentation",
    "DoubtfulFigures",
    "Evaluation",
    "EvaluationPlan",
    "GroupCounts",
    "Labeller",
    "Metrics",
    "Protocol",
    "PublishedProtocol",
    "check_fits",
    "count_right",
    "dc_strategy",
    "evaluate",
    "in_order_of",
    "interval",
    "plan_evaluation",
    "published_protocol",
]
