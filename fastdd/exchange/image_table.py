"""What formats of the package ``datasets`` have in common: columns image, label, soft_label where there are any."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.core.files import reason
from fastdd.data.pictures import picture
from fastdd.data.sets.shards import huggingface, huggingface_splits, image_columns
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange.folder import pixels_of, stacked
from fastdd.exchange.found import Found

_SOFT = "soft_label"


def table_of(made: SyntheticSet) -> tuple[dict[str, list], Any]:
    """The columns of a set, and their features."""
    datasets = huggingface()
    images = []
    for image in made.to_uint8().cpu().numpy():
        file = io.BytesIO()
        picture(image).save(file, format="PNG")
        images.append({"bytes": file.getvalue(), "path": None})
    columns = {"image": images, "label": made.labels.tolist()}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(made.metadata["class_names"]))}
    if made.soft_labels is not None:
        columns[_SOFT] = made.soft_labels.tolist()
        features[_SOFT] = datasets.Sequence(datasets.Value("float32"))
    return columns, datasets.Features(features)


def found_in(path: Path, files: list[Path], record: dict[str, Any] | None) -> Found:
    """The images and classes of a data set's one split, or of train."""
    datasets = huggingface()
    splits = huggingface_splits(datasets, path)
    if len(splits) > 1 and "train" not in splits:
        raise ValueError(f"{path} has the splits {', '.join(splits)}, and none is train")
    table = splits.get("train", next(iter(splits.values())))
    image, label, _ = image_columns(datasets, table)
    feature = table.features[label]
    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    pixels = []
    for row, value in enumerate(table[image]):
        try:
            pixels.append(pixels_of(value["bytes"]))
        except (ValueError, TypeError) as error:
            raise RuntimeError(f"{path}: row {row} can't be read as an image: {reason(error)}") from None
    return Found(
        stacked(pixels, [f"row {row}" for row in range(len(pixels))]),
        np.array(table[label], np.int64),
        "pixels",
        files,
        record,
        soft_labels=np.array(table[_SOFT], np.float32) if _SOFT in table.features else None,
        class_names=tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None,
    )
