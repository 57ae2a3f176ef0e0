"""Formation: what networks see of the images that are stored and learned."""

from typing import Any, Protocol

from torch import Tensor


class Formation(Protocol):
    """Stored images to seen ones, differentiable.

    Attributes:
        per_image: images that a stored one becomes; they stay together, so that a class's seen images do too.
    """

    per_image: int

    def __call__(self, stored: Tensor) -> Tensor:
        """[M, channels, H, W] -> [M * per_image, channels, H, W]."""
        ...

    def describe(self) -> dict[str, Any]:
        """For the synthetic set's metadata: what evaluation, pictures and export decode it by; nothing for pixels."""
        ...


class Pixels:
    """The stored images themselves."""

    per_image = 1

    def __call__(self, stored: Tensor) -> Tensor:
        return stored

    def describe(self) -> dict[str, Any]:
        return {}
