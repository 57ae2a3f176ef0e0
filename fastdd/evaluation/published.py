"""The evaluations of published code by name: networks, epochs, and which figures they report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from fastdd.core.text import one_of
from fastdd.ops import DSA_OPS


@dataclass(frozen=True)
class PublishedProtocol:
    """How a code base evaluates a set. Training itself is DM's (:class:`fastdd.evaluation.Protocol`) but for IDC's and
    NCFM's.

    Attributes:
        nets: networks.
        epochs: with augmentation.
        plain_epochs: without.
        figures: what it reports.
        note: what a reader who compares should know.
        dc_augmented: methods whose sets are augmented by :func:`fastdd.evaluation.dc_strategy`.
        training: what else of :class:`fastdd.evaluation.Protocol` is other than DM's.
        augmentation: from the data set's name and the factor of multi-formation, the ``dsa_strategy`` and ``cutmix`` of
            :class:`fastdd.evaluation.Protocol`; None: the set's own strategy, and no CutMix.
        learning_rate: where it is neither DM's nor the set's learned one.
        of_whole: it is of networks on the whole training set, not on a synthetic one.
        relabels: it trains to the labels of a teacher (:mod:`fastdd.evaluation.relabel`).
        batch: from the data set's name, the number of classes and the IPC, the training batch; None: ``training``'s.
        scores: what it says of a set are scores over several trainings (:mod:`fastdd.evaluation.ranking`).
    """

    nets: int
    epochs: int
    plain_epochs: int
    figures: tuple[str, ...]
    note: str
    dc_augmented: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Callable[[str, int], tuple[str, float]] | None = None
    learning_rate: float | None = None
    of_whole: bool = False
    relabels: bool = False
    batch: Callable[[str, int, int], int] | None = None
    scores: bool = False


def _of_idc(dataset: str, factor: int) -> tuple[str, float]:
    """IDC's: all operations but cutout, which CutMix is in place of; numbers are not mirrored, and of MNIST with
    multi-formation no batch is mixed.

    >>> _of_idc("cifar10", 2), _of_idc("mnist", 2)
    (('color_crop_flip_scale_rotate', 0.5), ('color_crop_scale_rotate', 0.0))
    """
    operations = [name for name in _WITHOUT_CUTOUT if not (name == "flip" and dataset in _NUMBERS)]
    return "_".join(operations), 0.0 if dataset == "mnist" and factor > 1 else _CUTMIX


def _of_ncfm(dataset: str, factor: int) -> tuple[str, float]:
    """NCFM's: all operations but cutout, of all its data sets, none of which is of numbers."""
    return "_".join(_WITHOUT_CUTOUT), _CUTMIX


def _batch_of_rded(dataset: str, classes: int, ipc: int) -> int:
    """RDED's, which it gives for IPC 1, 10 and 50; of IPC between these that of the lower one.

    >>> _batch_of_rded("cifar10", 10, 10), _batch_of_rded("imagenet", 1000, 10), _batch_of_rded("cifar10", 10, 1)
    (50, 100, 10)
    """
    if dataset == "cifar100":
        return 25
    if dataset.startswith("tiny-imagenet"):
        return min(100, ipc * classes)
    batch = 100 if ipc >= 50 else 50 if ipc >= 10 else 10
    return min(batch * (2 if classes in (100, 1000) else 1), ipc * classes)


# CutMix is in cutout's place, in half of the batches.
_WITHOUT_CUTOUT = tuple(name for name in DSA_OPS if name != "cutout")
_CUTMIX = 0.5
# Data sets that IDC's code does not mirror; coloured MNIST, which it does not know, is another.
_NUMBERS = ("mnist", "svhn")

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
        "idc": PublishedProtocol(
            3,
            1000,
            1000,
            ("accuracy",),
            "IDC and DREAM: CutMix, and a learning rate that falls to a fifth after 2/3 and 5/6 of the epochs. Of "
            "ImageNet their epochs and augmentation are others. Their scripts print the best test on the way too; "
            "this is the one at the end.",
            training=MappingProxyType(
                {"batch": 64, "composition": "idc", "milestones": (Fraction(2, 3), Fraction(5, 6)), "gamma": 0.2}
            ),
            augmentation=_of_idc,
        ),
        "ncfm": PublishedProtocol(
            10,
            2000,
            2000,
            ("accuracy",),
            "NCFM: AdamW, CutMix, and a learning rate that is halved after every fifth of the epochs. Of Tiny-ImageNet "
            "its epochs are 300 at IPC 10 and 40 at IPC 50, of ImageNet subsets its networks are 3. It reports the "
            "best of the tests on the way; this is the one at the end.",
            training=MappingProxyType(
                {
                    "optimizer": "adamw",
                    "weight_decay": 0.01,
                    "batch": 128,
                    "composition": "idc",
                    "milestones": tuple(Fraction(fifth, 5) for fifth in range(1, 5)),
                    "gamma": 0.5,
                }
            ),
            augmentation=_of_ncfm,
            learning_rate=1e-3,
        ),
        "rded": PublishedProtocol(
            3,
            300,
            300,
            ("accuracy", "deo_m", "deo_a"),
            "RDED: a teacher's labels of every view, AdamW, a learning rate that falls to half. It reports the best of "
            "the tests in the last fifth of the epochs; this is the one at the end.",
            training=MappingProxyType({"optimizer": "adamw", "weight_decay": 0.01, "cutmix": 1.0, "milestones": ()}),
            augmentation=lambda dataset, factor: ("none", 0.0),
            learning_rate=1e-3,
            relabels=True,
            batch=_batch_of_rded,
        ),
        "dcbench": PublishedProtocol(5, 1000, 300, ("accuracy",), "DC-Bench, with the set's own augmentation."),
        "ddranking": PublishedProtocol(
            5,
            300,
            300,
            ("accuracy", "wa", "deo_m", "deo_a"),
            "DD-Ranking 0.2.0: SGD, a learning rate that falls to a tenth half-way. Rates and best epochs are chosen "
            "on held-out training images; the package chooses both on the test set.",
            training=MappingProxyType({"milestones": (Fraction(1, 2),)}),
            scores=True,
        ),
        "biased-dd": PublishedProtocol(
            3,
            150,
            150,
            ("accuracy",),
            "Biased-DD's networks on the whole training set (section 4.2): SGD, batch 256, a learning "
            "rate that falls to a tenth after epochs 50 and 100. No augmentation is stated, and none is used.",
            training=MappingProxyType({"milestones": (Fraction(1, 3), Fraction(2, 3)), "gamma": 0.1}),
            augmentation=lambda dataset, factor: ("none", 0.0),
            of_whole=True,
        ),
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
        raise ValueError(f"unknown protocol {name!r}; {one_of(name, PROTOCOLS)}")
    return PROTOCOLS[name]
