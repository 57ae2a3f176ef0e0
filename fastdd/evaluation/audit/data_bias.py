"""The bias of a data set's training images, from counts alone."""

import numpy as np

from fastdd.data import Dataset
from fastdd.evaluation.audit.findings import ClassOfData, DataBias
from fastdd.evaluation.audit.information import augmented, mutual_information

# Images per class whose condensed ratio FairDD's table 8 has.
_IPCS = (10, 50, 100)


def check_groups(data: Dataset) -> None:
    """ValueError unless the data set has groups to go by."""
    if data.num_groups < 2:
        raise ValueError(
            f"{data.name} has no groups, and an audit goes by them: take a data set with a protected attribute "
            "(fastdd data list), a folder with a groups.csv, or in Python data.with_groups(...)"
        )


def condensed_ratio(data: Dataset, ipc: int) -> float:
    """Synthetic images, ``ipc`` a class, as a share of the training images (FairDD, table 8).

    >>> from fastdd.data import load
    >>> round(condensed_ratio(load("c-digits"), 10), 4)
    0.0771
    """
    return ipc * data.num_classes / len(data.train)


def data_bias(data: Dataset) -> DataBias:
    """Majority shares, mutual information and condensed ratios of the training images.

    Raises:
        ValueError: a data set without groups.
    """
    check_groups(data)
    counts = data.train.counts(data.num_classes, data.num_groups)
    majority = counts.argmax(1)
    largest, images = counts.max(1), counts.sum(1)
    shares = np.divide(largest, images, out=np.zeros(len(counts)), where=images > 0)
    return DataBias(
        tuple(
            ClassOfData(name, tuple(row.tolist()), int(group), float(share))
            for name, row, group, share in zip(data.class_names, counts, majority, shares, strict=True)
        ),
        data.group_names,
        len(data.train),
        float(largest.sum() / images.sum()),
        mutual_information(counts),
        tuple((ipc, condensed_ratio(data, ipc)) for ipc in _IPCS),
        augmented(counts),
    )
