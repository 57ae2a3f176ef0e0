"""The evaluations of published code by name: networks, epochs, and which figures they report."""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PublishedProtocol:
    """How a code base evaluates a set. Training itself is the same in all (:class:`fastdd.evaluation.Protocol`).

    Attributes:
        nets: networks.
        epochs: with augmentation.
        plain_epochs: without.
        figures: what it reports.
        note: what a reader who compares should know.
        dc_augmented: methods whose sets are augmented by :func:`fastdd.evaluation.dc_strategy`.
    """

    nets: int
    epochs: int
    plain_epochs: int
    figures: tuple[str, ...]
    note: str
    dc_augmented: tuple[str, ...] = ()


PROTOCOLS = MappingProxyType(
    {
        "dc": PublishedProtocol(
            20,
            1000,
            300,
            ("accuracy",),
            "DatasetCondensation. For sets of DC on MNIST or ConvNetBN its augmentation of single images is used.",
            dc_augmented=("dc",),
        ),
        "fairdd": PublishedProtocol(
            10, 1000, 300, ("accuracy", "deo_m", "deo_a"), "FairDD's scripts.", dc_augmented=("dc",)
        ),
        "mtt": PublishedProtocol(
            5,
            1000,
            1000,
            ("accuracy",),
            "MTT, with the learned step size. MTT reports the best of the test accuracies of a whole run; this is the "
            "accuracy of the set at hand.",
        ),
        "dcbench": PublishedProtocol(5, 1000, 300, ("accuracy",), "DC-Bench, with the set's own augmentation."),
    }
)


def published_protocol(name: str) -> PublishedProtocol:
    """A protocol by its name.

    Raises:
        ValueError: an unknown one.

    >>> published_protocol("fairdd").figures
    ('accuracy', 'deo_m', 'deo_a')
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; one of: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
