"""``fastdd info``: what is active, and why."""

import importlib.metadata
import os
import platform
from dataclasses import asdict
from typing import Any

import torch
from rich.table import Table

from fastdd import ops, report
from fastdd.cli.console import console
from fastdd.cli.options import Command, Json, new_app
from fastdd.core import ext, files, plugins
from fastdd.core.version import __version__

app = new_app()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extension() -> str:
    if not ext.available():
        return f"absent: {ext.reason()}; the plain PyTorch reference is used"
    build = ext.build_info()
    facts = ", ".join(f"{name} {value}" for name, value in build.items())
    note = f" ({ext.reason()})" if ext.reason() else ""
    return f"active{note}: {facts}"


def _gpu() -> str:
    if not torch.cuda.is_available():
        why = "built without CUDA" if torch.version.cuda is None else "no device found"
        return f"none: torch {torch.__version__} ({why})"
    device = torch.cuda.get_device_properties(0)
    return f"{device.name}, {device.total_memory / 2**30:.0f} GiB, capability {device.major}.{device.minor}"


def _triton() -> str:
    version = _version("triton")
    if version is None:
        return "absent: GPU kernels written in Triton can't run (pip install triton, on Linux)"
    use = "used on the GPU" if torch.cuda.is_available() else "installed, not used without a GPU"
    return f"{version}, {use}"


def _faiss() -> str:
    for package in ("faiss-gpu", "faiss-gpu-cuvs", "faiss-cpu"):
        if version := _version(package):
            return f"{package} {version}"
    return "absent (pip install 'fastdd[cpu]' or 'fastdd[gpu]')"


def _implementations() -> list[dict[str, Any]]:
    """Op by op: what runs, and why the other implementations don't."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [asdict(row) for device in devices for row in ops.implementations(device)]


def _ops(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, title="\nops (auto; reference is plain PyTorch)", title_justify="left", header_style="")
    for column in ("op", "device", "active", "why not the others"):
        table.add_column(column, overflow="fold")
    for row in rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in row["others"].items())
        table.add_row(row["op"], row["device"], row["active"], why or "-")
    return table


@app.command(cls=Command)
def info(json: Json = None) -> None:
    """Versions, devices, and which fast paths are active, and why."""
    if json is not None:
        files.check_writable(json)
    facts = {
        "fastdd": __version__,
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores "
        f"(OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})",
        "GPU": _gpu(),
        "extension": _extension(),
        "triton": _triton(),
        "faiss": _faiss(),
        "FASTDD_BACKEND": os.environ.get("FASTDD_BACKEND", "unset (auto)"),
        **{f"{origin.kind} {origin.path}": ", ".join(names) for origin, names in plugins.registered().items()},
    }
    implementations = _implementations()
    if json is not None:
        report.write_json(json, report.document(implementations, facts=facts))
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(table)
    console.print(_ops(implementations))
