"""``relabel``: store a teacher's labels of a set, and whose labels an evaluation trains to."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
from fastdd.api.exchange import load_synthetic
from fastdd.core import ranks
from fastdd.data import Dataset, DeviceImages, SyntheticSet
from fastdd.evaluation import check_fits, in_order_of, published_protocol
from fastdd.evaluation.label_file import LabelFile, write_labels
from fastdd.evaluation.plan import relabelling
from fastdd.evaluation.relabel import Views
from fastdd.methods import Teacher, preset
from fastdd.session.teachers import open_teacher

_PROTOCOL = "rded"


def relabel(
    what: SyntheticSet | str | os.PathLike,
    data: Dataset,
    *,
    out: str | os.PathLike,
    teacher: str | os.PathLike | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> LabelFile:
    """Store what a teacher says of every view of a set that protocol rded trains on, and no image.

    2 bytes a number: 300 epochs of 100 images in 10 classes are 0.6 MB, of 10,000 in 1,000 classes 6 GB. A job that was
    stopped goes on where it was.

    Args:
        what: a synthetic set, or the path of one or of a run folder.
        data: the data set that it is of.
        out: the file, such as ``labels.safetensors``.
        teacher: as :func:`fastdd.evaluate` takes it.
        epochs: by default the protocol's, 300.
        seed: of the views, which all evaluations with this file have.
        device: auto, cpu or cuda.
        progress: called with (epochs done, epochs).

    Raises:
        ValueError: a set that does not fit the data, a teacher that does not, or a file that is there.
        OSError: the file can't be written, or the disk has no room for it.
    """
    check_dataset(data)
    target = pick_device(device)
    synthetic = what if isinstance(what, SyntheticSet) else load_synthetic(what)
    check_fits(synthetic, data)
    if synthetic.zca is not None:
        raise ValueError("the set is whitened (ZCA), and protocol rded crops images that are not: take another")
    opened = teacher_of(synthetic, data, target, teacher)
    published = published_protocol(_PROTOCOL)
    ordered = in_order_of(data, synthetic).decoded()
    ipc = -(-len(ordered.labels) // data.num_classes)
    return ranks.first(
        lambda: write_labels(
            out,
            DeviceImages(ordered.images.to(target)),
            opened,
            Views(seed, relabelling(synthetic, data)),
            classes=data.num_classes,
            epochs=epochs or published.epochs,
            batch=published.batch(data.name, data.num_classes, ipc),
            of_set=synthetic.digest(),
            about_teacher=opened.about(),
            progress=progress,
        )
    )


def labels_of(
    what: SyntheticSet | str,
    data: Dataset,
    device: torch.device,
    protocol: str | None,
    teacher: str | os.PathLike | None,
    labels: str | os.PathLike | None,
    network: Mapping[str, Any],
) -> dict[str, Any]:
    """``teacher`` and ``labels`` as :func:`fastdd.evaluation.plan_evaluation` takes them; nothing for other protocols.

    Args:
        what, protocol: of the evaluation.
        network: ``arch``, ``width`` and ``depth`` of the evaluation's networks, as far as they are given.
        teacher: a path; None: that of the set's run.
        labels: ``teacher`` (None), ``hard``, or the path of a file.

    Raises:
        ValueError: either without a protocol that relabels; a teacher that is missing, does not fit, or goes with
            labels that are not its.
    """
    if protocol is None or not published_protocol(protocol).relabels:
        for name, value in (("teacher", teacher), ("labels", labels)):
            if value is not None:
                raise ValueError(f"{name} {value} is for protocol {_PROTOCOL}: give that too, or leave it out")
        return {}
    kind: LabelFile | Literal["teacher", "hard"] = "teacher"
    if labels is not None and labels != "teacher":
        kind = "hard" if labels == "hard" else LabelFile(labels)
    if kind != "teacher":
        if teacher is not None:
            raise ValueError(f"labels {labels} are not a teacher's of the moment: leave teacher {teacher} out")
        return {"labels": kind}
    return {"labels": kind, "teacher": teacher_of(what, data, device, teacher, network)}


def teacher_of(
    what: SyntheticSet | str,
    data: Dataset,
    device: torch.device,
    path: str | os.PathLike | None,
    network: Mapping[str, Any] | None = None,
) -> Teacher:
    """The teacher at a path, or that of a set's run; of bare weights the network is that of the set's teacher, else
    ``network``, else the data set's."""
    own = what.metadata.get("teacher") or {} if isinstance(what, SyntheticSet) else {}
    if path is None and not own:
        raise ValueError("protocol rded trains to a teacher's labels: give the teacher (--teacher), or --labels hard")
    named = path is not None
    path = Path(path if named else own["path"])
    if not named and not path.exists():
        raise ValueError(f"the set's teacher {path} is not there: give it, or another one (--teacher)")
    shipped = preset("rded", data.name, 1)
    usual = network if network and network.get("arch") else shipped
    network = own if own.get("arch") else usual
    normalised = {}
    if isinstance(what, SyntheticSet):
        normalised = {name: tuple(what.metadata[name]) for name in ("mean", "std")}
    opened = open_teacher(path, data, network, device, **normalised)
    if not named and opened.digest != own["digest"]:
        raise ValueError(
            f"the teacher {path} has changed since the set was made by it: say that it is meant (--teacher)"
        )
    return opened
