"""WebDataset's samples in a tar file: 00000.png, 00000.cls (the class's number), 00000.json; 8 bits.

The set's metadata lie in the archive's own header (pax), where readers of samples see nothing of them.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from fastdd.core.files import DAMAGE, write_atomic
from fastdd.core.reading import is_number, parse_json
from fastdd.core.text import shown
from fastdd.data.pictures import picture
from fastdd.data.sets.shards import field_of, samples
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange.folder import pixels_of, rounded, stacked
from fastdd.exchange.found import Content, Export, Found, as_record, check_free

DESCRIPTION = "a .tar file with the samples KEY.png, KEY.cls, KEY.json"
_HEADER = "fastdd"


def matches(content: Content) -> bool:
    return content.value is None and content.path.suffix == ".tar"


def read(content: Content) -> Found:
    """All samples of the archive, in order."""
    path = content.path
    pixels, labels, soft, names, hash_ = [], [], [], [], hashlib.sha256()
    for key, sample in samples(path):
        if "image" not in sample:
            raise ValueError(f"{path}: {key} has no image, only {', '.join(sorted(sample))}")
        try:
            pixels.append(pixels_of(sample["image"]))
        except ValueError as error:
            raise RuntimeError(f"{path}: {key} can't be read as an image: {error}") from None
        hash_.update(sample["image"])
        names.append(key)
        labels.append(field_of(sample, None, f"{path}: {key}", "label"))
        soft.append(sample.get("soft_label"))
    if not pixels:
        raise ValueError(f"{path} has no samples")
    words = all(isinstance(label, str) for label in labels)
    if not words and any(isinstance(label, str) for label in labels):
        word = next(label for label in labels if isinstance(label, str))
        raise ValueError(f"{path}: some classes are numbers, others are words, such as {shown(word)}")
    class_names = tuple(sorted(set(labels))) if words else None
    numbers = [class_names.index(label) for label in labels] if words else labels
    record = _record(path, hash_.hexdigest())
    if class_names is None and record:
        class_names = tuple(record["class_names"])
    has_soft = any(row is not None for row in soft)
    for key, row in zip(names, soft, strict=True):
        if has_soft and not (isinstance(row, list) and len(row) == len(soft[0]) and all(map(is_number, row))):
            raise ValueError(f"{path}: the soft_label of {key} is {shown(row)}, not a number a class as of the others")
    return Found(
        stacked(pixels, names),
        np.array(numbers, np.int64),
        "pixels",
        [path],
        record,
        soft_labels=np.array(soft, np.float32) if has_soft else None,
        class_names=class_names,
    )


def _record(path: Path, digest: str) -> dict[str, Any] | None:
    """The metadata in the archive's header; None if there are none, or if they are of other images."""
    try:
        with tarfile.open(path) as archive:
            archive.next()
            record = parse_json(archive.pax_headers[_HEADER])
        return as_record(record["metadata"]) if record["sha256"] == digest else None
    except (KeyError, TypeError, tarfile.TarError, *DAMAGE):
        return None


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """A tar file, the same bytes of the same set."""
    if path.suffix != ".tar":
        raise ValueError(f"{path} must end in .tar")
    check_free([path], force)
    notes = rounded(made)
    classes, soft = made.metadata["class_names"], made.soft_labels
    members, hash_ = [], hashlib.sha256()
    for row, (image, label) in enumerate(zip(made.to_uint8().cpu().numpy(), made.labels.tolist(), strict=True)):
        file = io.BytesIO()
        picture(image).save(file, format="PNG")
        hash_.update(file.getvalue())
        about = {"label": label, "class_name": classes[label]}
        if soft is not None:
            about["soft_label"] = soft[row].tolist()
        parts = {"png": file.getvalue(), "cls": str(label).encode(), "json": json.dumps(about, sort_keys=True).encode()}
        members += [(f"{row:05d}.{suffix}", content) for suffix, content in parts.items()]
    metadata = made.metadata | ({} if made.zca is None else {"zca": made.zca.digest()})
    header = {_HEADER: json.dumps({"sha256": hash_.hexdigest(), "metadata": metadata}, sort_keys=True)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=header) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))
    return Export([path], notes)
