"""C-MNIST FG at IPC 10 as published: DM and DM + FairDD, distilled and evaluated, beside the paper's figures.

20,000 iterations with 256 real images a class (the preset of DM), then 5 networks of 1,000 epochs. The published loop
(the bench's ``reference-loop``) does 200 iterations on the same images; what 20,000 would take is a hundred times that.

    python -m fastdd.bench.studies.headline --data-root DIR --out FOLDER

What the folder has is kept, and a distillation that was stopped goes on from its checkpoint. FairDD comes first, and
the loops before the long work.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import fastdd
from fastdd import reproduce
from fastdd.api import pick_device
from fastdd.bench.baselines.problem import Problem
from fastdd.bench.baselines.published import PublishedLoop
from fastdd.bench.framework import machine
from fastdd.data import Dataset
from fastdd.session import Progress
from fastdd.studies import KeptRows

ROW, COLUMNS = "c-mnist-fg:10", {"fairdd": "DM+FairDD", "none": "DM"}
FIGURES = ("accuracy", "deo_m", "deo_a")
# As published; and to see whether it runs.
FULL = {"iterations": 20_000, "nets": 5, "epochs": 1000, "loop_iterations": 200}
QUICK = {"iterations": 2, "nets": 1, "epochs": 2, "loop_iterations": 1}
_WARM_UP = 3
_TELL_SECONDS = 15.0


def published(debias: str) -> dict[str, Any]:
    """The paper's figures, percent."""
    table = reproduce.select(reproduce.read_paper("fairdd")["table1"], [ROW], [COLUMNS[debias]])
    return dict(table.cells[0].published)


class Headline:
    """The work of a device, row by row.

    Args:
        data: C-MNIST FG.
        device: where.
        out: folder of rows and runs.
        work: how much; :data:`FULL` or :data:`QUICK`.
        settings: of the distillation, in place of the preset's.
    """

    def __init__(self, data: Dataset, device: torch.device, out: Path, work: dict[str, int], **settings: Any):
        self._data, self._device, self._out, self._work, self._settings = data, device, out, work, settings

    def run(self) -> list[dict[str, Any]]:
        """All rows: ``what`` is ``reference-loop``, ``distill`` or ``evaluate``, by ``debias``."""
        about = {**self._work, **self._settings, "device": self._device.type, "dataset_digest": self._data.digest()}
        makers = {"reference-loop": self._loop, "distill": self._distil, "evaluate": self._evaluate}
        order = [("reference-loop", debias) for debias in COLUMNS]
        order += [(what, debias) for debias in COLUMNS for what in ("distill", "evaluate")]
        with KeptRows(self._out, "headline", about) as kept:
            for what, debias in order:
                row = kept.get(
                    {"what": what, "debias": debias},
                    lambda what=what, debias=debias: {**makers[what](debias), **_where(self._device)},
                )
                _tell(" ".join(f"{name}={value}" for name, value in row.items() if name != "machine"))
        return kept.rows

    def _loop(self, debias: str) -> dict[str, Any]:
        problem = Problem.make(self._data, self._device, debias=debias, ipc=10, seed=0, **self._settings)
        loop, count = PublishedLoop(problem), self._work["loop_iterations"]
        for _ in range(min(_WARM_UP, count)):
            loop.step()
        self._wait()
        began = time.perf_counter()
        for _ in range(count):
            loop.step()
        self._wait()
        each = (time.perf_counter() - began) / count
        return {"iterations": count, "ms": 1e3 * each, "seconds_of_all": each * self._work["iterations"]}

    def _distil(self, debias: str) -> dict[str, Any]:
        last: list[Progress] = []
        told = [time.perf_counter()]

        def progress(state: Progress) -> None:
            last[:] = [state]
            if time.perf_counter() - told[0] > _TELL_SECONDS:
                told[0] = time.perf_counter()
                _tell(f"distill {debias}: {state.step} of {state.total}, {state.seconds:.0f} s")

        run = self._run(debias)
        fastdd.distill(
            self._data,
            debias=debias,
            ipc=10,
            iterations=self._work["iterations"],
            device=str(self._device),
            out=run,
            resume=run.exists(),
            progress=progress,
            **self._settings,
        )
        # The seconds of the last report, over all starts; a run that was found finished makes none.
        return {"iterations": self._work["iterations"], "seconds": last[-1].seconds if last else None}

    def _evaluate(self, debias: str) -> dict[str, Any]:
        began = time.perf_counter()
        nets, epochs = self._work["nets"], self._work["epochs"]
        result = fastdd.evaluate(self._run(debias), self._data, nets=nets, epochs=epochs, device=str(self._device))
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            **{name: result.summary()[name] for name in FIGURES},
            "published": published(debias),
        }

    def _run(self, debias: str) -> Path:
        return self._out / f"dm-{debias}"

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _where(device: torch.device) -> dict[str, Any]:
    names = ("device", "driver", "torch", "triton", "fastdd", "git", "utc")
    return {"machine": {name: value for name, value in machine.describe(device).items() if name in names}}


def table(rows: list[dict[str, Any]]) -> Table:
    """Ours beside the published figures, and the time beside that of the published loop."""
    result = Table(title="C-MNIST FG, IPC 10: ours (published)", title_justify="left", box=None, header_style="")
    for name in ("", "accuracy", "DEO_M", "DEO_A", "distilled in", "evaluated in", "published loop", "x"):
        result.add_column(name, justify="right" if name else "left", no_wrap=True)
    of = {(row["what"], row["debias"]): row for row in rows}
    for debias, column in COLUMNS.items():
        loop, distilled, evaluated = (of[what, debias] for what in ("reference-loop", "distill", "evaluate"))
        figures = [f"{evaluated[name]['mean']:.2f} ({evaluated['published'][name]})" for name in FIGURES]
        ours, theirs = distilled["seconds"], loop["seconds_of_all"]
        times = [f"{ours:.1f} s" if ours else "-", f"{evaluated['seconds']:.1f} s"]
        ratio = f"{theirs / ours:.2f}" if ours else "-"
        result.add_row(column, *figures, *times, f"{theirs:.0f} s of {loop['iterations']}", ratio)
    return result


def _tell(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m fastdd.bench.studies.headline", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder with MNIST's four files")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and runs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny: does it work? Says nothing about time or figures")
    given = parser.parse_args()
    data = fastdd.data.load("c-mnist-fg", given.data_root)
    work, settings = (QUICK, {"width": 8, "batch_real": 16}) if given.quick else (FULL, {})
    try:
        rows = Headline(data, pick_device(given.device), given.out, work, **settings).run()
    except KeyboardInterrupt as stop:
        _tell(f"{stop or 'stopped'}; the same command goes on")
        return 130
    Console(width=160).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
