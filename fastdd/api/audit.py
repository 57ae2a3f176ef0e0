"""``audit``: what bias is in the data, in a synthetic set, and what distillation did to it."""

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastdd.api import arguments
from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
from fastdd.api.exchange import load_synthetic
from fastdd.api.signature import check_known, settings_of, with_keywords
from fastdd.core import ranks
from fastdd.core.settings import given, parse
from fastdd.data import Dataset, SyntheticSet
from fastdd.evaluation import DoubtfulFigures
from fastdd.evaluation import audit as auditing

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import AuditSettings


@with_keywords(settings_of(arguments.AuditSettings))
def audit(
    data: Dataset,
    synthetic: SyntheticSet | str | os.PathLike | None = None,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **settings: "Unpack[AuditSettings]",
) -> auditing.Audit:
    """What bias is in the training images and, where one is given, in a synthetic set of them.

    Of the data: majority shares, the mutual information of classes and groups, and what fake images make of it (From
    Fake to Real, theorem 1). Of the set: the groups of its images, as a probe tells them that was trained on real ones;
    where the mean of each class lies between the optima of vanilla (0) and of FairDD's matching (1); its losses of
    both; which real images of every class and group it covers. Positions, losses and coverage are means over random
    ConvNets.

    Args:
        data: from :func:`fastdd.data.load`, with groups.
        synthetic: a set, or the path of one or of a run. Classes go by their names; whitened images are unwhitened,
            and of images that hold several (multi-formation) those are looked at that networks see.
        device: auto, cpu or cuda.
        progress: called with (steps done, steps).
        **settings: any of :class:`fastdd.evaluation.audit.AuditSettings`: nets, per_cell, probe_steps, probe_accuracy,
            seed.

    Returns:
        Figures as plain values; :class:`fastdd.evaluation.audit.Audit` says what each is.

    Raises:
        TypeError: data that is not a data set.
        ValueError: data without groups, a set of other classes or sizes, several ranks, settings out of range.

    Warns:
        RuntimeWarning: the probe can't tell the groups: there are no figures of groups in the set.

    Cost: ``probe_steps`` steps of 64 images, and ``nets`` forward passes of the set and of up to ``per_cell`` real
    images of every class and group. Two runs on one machine and number of threads give the same bits.

    >>> import fastdd
    >>> found = fastdd.audit(fastdd.data.load("c-digits"))
    >>> round(found.data.majority_share, 2), round(found.data.information, 2)
    (0.9, 2.52)
    """
    check_dataset(data)
    check_known(settings, audit)
    if ranks.world() > 1:
        raise ValueError(f"an audit is done by one process, not by torchrun's {ranks.world()} ranks")
    checked = parse(auditing.AuditSettings, given(settings))
    if isinstance(synthetic, str | os.PathLike):
        synthetic = load_synthetic(synthetic)
    found = auditing.audit(data, synthetic, checked, device=pick_device(device), progress=progress)
    for line in found.doubts:
        warnings.warn(line, DoubtfulFigures, stacklevel=2)
    return found
