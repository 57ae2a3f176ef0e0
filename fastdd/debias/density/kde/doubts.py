"""Weights that do nothing, or rest on hardly any image, are told."""

import warnings
from collections.abc import Sequence

from torch import Tensor

from fastdd.debias.density.kde.diagnostics import Diagnostics
from fastdd.debias.density.kde.settings import KdeSettings

# Fewer images than this, in effect, are no sample of a class.
_LEAST_ESS = 5.0
# Weights are alike where none is further above the average than this part of it.
_ALIKE = 1e-3


def warn(
    diagnostics: Diagnostics, class_names: Sequence[str] | None = None, cure_of_even: str | None = None
) -> list[str]:
    """Warn (RuntimeWarning) of weights that are alike in all classes, and of classes with few images in effect.

    Args:
        diagnostics: of the weights.
        class_names: for the message; None: numbers.
        cure_of_even: what to do about weights that are alike; None: weights that are not from here.

    Returns:
        What was said, a line each.
    """
    told = [*_even(diagnostics, cure_of_even), *_few(diagnostics, class_names)]
    for line in told:
        warnings.warn(line, RuntimeWarning, stacklevel=3)
    return told


def _even(diagnostics: Diagnostics, cure: str | None) -> list[str]:
    """A class alone may well be even, such as one of equal images."""
    if any(largest > 1 + _ALIKE for largest in diagnostics.largest):
        return []
    alike = f"the weights are all alike (ESS = n = {sum(diagnostics.counts)}): debiasing does nothing"
    return [f"{alike}; {cure or 'give others, or use debias none'}"]


def _few(diagnostics: Diagnostics, class_names: Sequence[str] | None) -> list[str]:
    few = [label for label, ess in enumerate(diagnostics.ess) if ess < _LEAST_ESS]
    if not few:
        return []
    worst = min(few, key=lambda label: diagnostics.ess[label])
    name = worst if class_names is None else class_names[worst]
    rest = f" ({len(few)} classes have fewer than {_LEAST_ESS:g})" if len(few) > 1 else ""
    return [
        f"the weights of class {name} amount to {diagnostics.ess[worst]:.1f} of its {diagnostics.counts[worst]} "
        f"images{rest}: raise the temperature, or lower clip"
    ]


def cure_of_even_weights(settings: KdeSettings, near: Tensor, sizes: Tensor) -> str:
    """What to do about weights that are alike.

    Args:
        settings: that they were made with.
        near: float64 [N], of every image, how many images are near it, in kernels' heights.
        sizes: float64 [N], of how many images.
    """
    if bool((near < 1 + _ALIKE).all()):
        return f"every image is alone: normalise the rows of the embedding, or raise variance ({settings.variance:g})"
    if bool((near > (1 - _ALIKE) * sizes).all()):
        return f"all images are in one place: use another embedding, or lower variance ({settings.variance:g})"
    clip = "" if settings.clip is None else f", or raise clip ({settings.clip:g})"
    return f"lower temperature ({settings.temperature:g}){clip}"
