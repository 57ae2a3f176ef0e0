"""``fastdd import`` and ``fastdd export``."""

from pathlib import Path
from typing import Any

from fastdd import api
from fastdd.cli.console import console
from fastdd.core.files import check_writable


def run_import(path: Path, *, out: Path, force: bool, mean: str | None, std: str | None, **settings: Any) -> None:
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must end in .safetensors, not {out.name!r}")
    if out.exists() and not force:
        raise ValueError(f"{out} exists; give another place, or --force to replace it")
    check_writable(out)
    made = api.import_synthetic(path, mean=_numbers("mean", mean), std=_numbers("std", std), **settings)
    made.save(out)
    metadata, source = made.metadata, made.metadata["source"]
    shape = "x".join(map(str, made.images.shape[1:]))
    console.print(f"{len(made.images)} images {shape} of {len(metadata['class_names'])} classes, {source['format']}")
    if made.zca is None:
        mean, std = (", ".join(f"{value:g}" for value in metadata[name]) for name in ("mean", "std"))
        console.print(f"normalised with mean {mean} and std {std}")
    else:
        console.print("whitened by ZCA")
    if made.learning_rate is not None:
        console.print(f"learned step size {made.learning_rate:g}")
    if made.soft_labels is not None:
        console.print("soft labels")
    for model, accuracies in source.get("accuracies", {}).items():
        average = sum(accuracies) / len(accuracies)
        console.print(f"published accuracy on {model}: {average:.2f} %, of {len(accuracies)} networks")
    for note in source["notes"]:
        console.print(f"note: {note}")
    known = "" if "dataset" in metadata else " --dataset NAME"
    console.print(f"in {out}; evaluate it with: fastdd evaluate {out}{known} --data-root DIR")


def run_export(target: Path, *, out: Path, **settings: Any) -> None:
    written = api.export_synthetic(target, out, **settings)
    for file in written.files:
        console.print(str(file))
    for note in written.notes:
        console.print(f"note: {note}")


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers joined by commas, one a channel."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--{name} must be numbers joined by commas, one a channel, not {text!r}") from None
