"""Formation: what networks see of the images that are stored and learned.

Images have two spaces. Networks, segments and synthetic sets (:class:`fastdd.data.SyntheticSet`) know *normalised*
images only. What a method *stores*, its leaf, is in the space that its formation says: normalised images themselves
(:class:`Pixels`), or pixels in [0, 1] (:class:`MultiFormation`). There the learning rate, the momentum and bounds act:
a step of SGD on pixels is, seen normalised, one at the learning rate divided by the channel's std squared, so that the
spaces can't be exchanged.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fastdd import ops


class Formation(Protocol):
    """Stored images to seen ones, differentiable.

    Attributes:
        per_image: images that a stored one becomes; they stay together, so that a class's seen images do too.
    """

    per_image: int

    def __call__(self, stored: Tensor, parts: Tensor | None = None) -> Tensor:
        """[M, channels, H, W] -> [M * per_image, channels, H, W], normalised; or those at the addresses ``parts``,
        int64 [N, 2] (:func:`fastdd.ops.all_parts` has all of them, in this order)."""
        ...

    def augmented(self, stored: Tensor, params: Tensor, rows: Tensor, parts: Tensor | None = None) -> Tensor:
        """What it is called for, each image augmented by its row of parameters (:func:`fastdd.ops.augment`)."""
        ...

    def store(self, images: Tensor) -> Tensor:
        """Normalised images [M, channels, H, W], as they are stored: what a run starts from."""
        ...

    def normalised(self, stored: Tensor) -> Tensor:
        """Stored images, not decoded, as a synthetic set holds them."""
        ...

    def describe(self) -> dict[str, Any]:
        """For the synthetic set's metadata: what evaluation, pictures and export decode it by; nothing for pixels."""
        ...


class Pixels:
    """The stored images themselves, normalised."""

    per_image = 1

    def __call__(self, stored: Tensor, parts: Tensor | None = None) -> Tensor:
        return stored if parts is None else stored[parts[:, 0]]

    def augmented(self, stored: Tensor, params: Tensor, rows: Tensor, parts: Tensor | None = None) -> Tensor:
        return ops.augment_passes(self(stored, parts), params, rows)

    def store(self, images: Tensor) -> Tensor:
        return images

    def normalised(self, stored: Tensor) -> Tensor:
        return stored

    def describe(self) -> dict[str, Any]:
        return {}


class MultiFormation:
    """IDC's: stored are pixels in [0, 1], and seen the factor x factor parts of each, enlarged and normalised
    (:func:`fastdd.ops.formation`). The bounds are the method's to keep: ``images.clamp_(0, 1)``.

    A set holds the stored images normalised, and its ``formation`` is the factor; decoded there, they are the same
    bits. Published code decodes pixels and normalises what comes out; as decoding is an average, that is the same but
    for rounding.

    Args:
        factor: f, 1 to the side of the images. With 1 images are what is stored, normalised.
        mean, std: of the data set, one a channel.
        device: where the stored images are.
    """

    def __init__(
        self, factor: int, mean: Sequence[float], std: Sequence[float], device: torch.device | str | None = None
    ):
        self.factor, self.per_image = factor, factor**2
        self._mean, self._std = (torch.tensor([*values], device=device).view(-1, 1, 1) for values in (mean, std))
        self._fill = (ops.GREY - self._mean.flatten()) / self._std.flatten()

    def __call__(self, stored: Tensor, parts: Tensor | None = None) -> Tensor:
        normalised, parts = self.normalised(stored), self._parts(stored, parts)
        return normalised if parts is None else ops.formation(normalised, self.factor, parts, fill=self._fill)

    def augmented(self, stored: Tensor, params: Tensor, rows: Tensor, parts: Tensor | None = None) -> Tensor:
        seen, parts = self.normalised(stored), self._parts(stored, parts)
        if parts is None:
            return ops.augment_passes(seen, params, rows)
        # The first pass decodes on its way.
        first, *others = params.unbind(1) if params.dim() == 3 else (params,)
        seen = ops.augment_stored(seen, first.contiguous(), rows, factor=self.factor, parts=parts, fill=self._fill)
        for of_pass in others:
            seen = ops.augment(seen, of_pass.contiguous(), rows)
        return seen

    def _parts(self, stored: Tensor, parts: Tensor | None) -> Tensor | None:
        """Addresses of what is seen; None for all that is stored, whole."""
        whole = parts is None and self.factor == 1
        return ops.all_parts(len(stored), self.factor, stored.device) if parts is None and not whole else parts

    def store(self, images: Tensor) -> Tensor:
        return images * self._std + self._mean

    def normalised(self, stored: Tensor) -> Tensor:
        return (stored - self._mean) / self._std

    def describe(self) -> dict[str, Any]:
        return {} if self.factor == 1 else {"formation": self.factor}
