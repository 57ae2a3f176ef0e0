"""A data set of one's own: fastdd distill --plugin stripes.py --dataset stripes --data-option share=0.95 ..."""

import numpy as np

import fastdd
from fastdd.data import Dataset, Split


def stripes(*, share: float = 0.9, images: int = 50, seed: int = 0) -> Dataset:
    """Two classes; ``share`` of the training images of a class are bright, if they are rows, or dark, if columns."""
    generator = np.random.default_rng(seed)

    def split(n: int, share: float) -> Split:
        labels = np.repeat(np.arange(2), n)
        aligned = generator.random(2 * n) < share
        groups = np.where(aligned, labels, 1 - labels).astype(np.int64)
        pixels = generator.integers(0, 60, (2 * n, 1, 16, 16), dtype=np.uint8)
        pixels[labels == 0, :, ::2] += 180
        pixels[labels == 1, :, :, ::2] += 180
        pixels[groups == 1] //= 2
        return Split(pixels, labels, groups)

    return Dataset(
        "stripes",
        split(images, share),
        split(images, 0.5),
        ("rows", "columns"),
        ("bright", "dark"),
        (0.4,),
        (0.3,),
        {"seed": seed},
    )


fastdd.register_dataset(
    "stripes", stripes, about="rows and columns, bright and dark, 1x16x16", arch="ConvNetD2", width=32
)
