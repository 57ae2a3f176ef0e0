"""``estimate``: what a distillation will take on this machine."""

from typing import TYPE_CHECKING

from fastdd.api.distillation import Distillation
from fastdd.api.signature import keywords_of, with_keywords
from fastdd.data import Dataset
from fastdd.session import Estimate

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import DistillationArguments


@with_keywords(keywords_of(Distillation))
def estimate(
    data: Dataset, *, nets: int = 0, epochs: int | None = None, **arguments: "Unpack[DistillationArguments]"
) -> Estimate:
    """What :func:`distill` with these arguments will take on this machine: some of its steps are done and timed.

    Args:
        data, **arguments: as :func:`distill` takes them. Without ``experts``, where the method needs them, they are
            still to be trained, which is not in the estimate (:func:`fastdd.api.estimate_experts`).
        nets, epochs: of an evaluation of the result; no networks, no evaluation.

    Returns:
        Seconds of every part, the largest memory, and bytes on the disk. It takes about 20 s, more where a step does.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`distill`.

    >>> import fastdd
    >>> taken = fastdd.estimate(fastdd.data.load("c-digits"), ipc=1, iterations=10, width=8)
    >>> list(taken.seconds), taken.disk > 0
    (['distillation'], True)
    """
    return Distillation(data, **arguments).estimate(nets=nets, epochs=epochs)
