"""Running the cells of a table: what is missing is run, what is done is kept, in one folder for all tables."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdd import api, data, report
from fastdd.data import Dataset
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS
from fastdd.reproduce.budgets import Budget
from fastdd.reproduce.recipes import Cell


@dataclass(frozen=True)
class Outcome:
    """A cell that is done.

    Attributes:
        cell: which.
        row: its result (:func:`fastdd.report.result_row`).
        run: folder of the distillation; None where nothing is distilled.
        seed: of the distillation, of its experts and of the networks that evaluate it.
    """

    cell: Cell
    row: dict[str, Any]
    run: Path | None
    seed: int = 0


class Workshop:
    """Runs cells under one budget and keeps what is done.

    A synthetic set is distilled once, however many cells evaluate it, experts are trained once for all sets that are
    distilled from them, and what was interrupted goes on. Results are files ``results/NAME-HASH.json``; the hash is of
    everything that the result depends on, so that a changed recipe or budget is run again.

    Args:
        folder: where runs and results are kept.
        budget: of the cells.
        root: folder of the data sets' files.
        device, seed: as for :func:`fastdd.distill`.
        distill, train_experts, kde_weights, evaluate: what does the work; with progress bars on the command line.
    """

    def __init__(
        self,
        folder: Path,
        budget: Budget,
        *,
        root: Path | None = None,
        device: str = "auto",
        seed: int = 0,
        distill: Callable[..., Any] = api.distill,
        train_experts: Callable[..., Any] = api.train_experts,
        kde_weights: Callable[..., Any] = api.kde_weights,
        evaluate: Callable[..., Any] = api.evaluate,
    ):
        self._folder = folder
        self._budget = budget
        self._root = root
        self._device = device
        self.seed = seed
        self._distill = distill
        self._train_experts = train_experts
        self._kde_weights = kde_weights
        self._evaluate = evaluate
        self._datasets: dict[str, Dataset] = {}

    def dataset(self, cell: Cell, *, test: bool = False) -> Dataset:
        """The cell's data set, or the one that it is tested on; the last one is kept."""
        options = _test_options(cell) if test else cell.options
        key = _slug(cell.dataset, options)
        if key not in self._datasets:
            self._datasets = {key: data.load(cell.dataset, self._root, **options)}
        return self._datasets[key]

    def distillation(self, cell: Cell) -> dict[str, Any]:
        """Arguments of the cell's distillation, under the budget."""
        shortened = self._budget.distillation.get(cell.method, {}) | self._of_network(cell, "distillation")
        return {"method": cell.method, "debias": cell.debias, "ipc": cell.ipc, **shortened, **cell.settings}

    def experts(self, cell: Cell) -> dict[str, Any] | None:
        """Arguments of the training of the cell's experts, under the budget; None for a method without."""
        if cell.method is None or not METHODS[cell.method].needs_experts:
            return None
        kind = METHODS[cell.method]
        debias = cell.debias if kind.debias_of_experts else "none"
        return {"debias": debias, "ipc": cell.ipc, **kind.experts, **self._budget.distillation.get("experts", {})}

    def evaluation(self, cell: Cell) -> dict[str, Any]:
        """Arguments of the cell's evaluation, under the budget."""
        short = self._budget.whole if cell.what == "whole" else self._budget.evaluation
        if cell.what == "whole" and "protocol" in cell.evaluation and self._budget.published:
            return dict(cell.evaluation)  # the protocol's own networks and epochs
        return {"nets": cell.nets, **short, **self._of_network(cell, "evaluation"), **cell.evaluation}

    def _of_network(self, cell: Cell, what: str) -> dict[str, Any]:
        return self._budget.networks.get(cell.settings.get("arch"), {}).get(what, {})

    def done(self, cell: Cell) -> Outcome | None:
        """The cell's result, if it is there."""
        path = self._result(cell)
        if not path.exists():
            return None
        return Outcome(cell, report.read_results(path)["rows"][0], self.run_folder(cell), self.seed)

    def do(self, cell: Cell) -> Outcome:
        """The cell's result: the one that is there, or a new one."""
        found = self.done(cell)
        if found is not None:
            return found
        what, run, experts = cell.what, self.run_folder(cell), self.experts_folder(cell)
        given = {"resume": True, "device": self._device, "seed": self.seed}
        if run is not None:
            run.parent.mkdir(parents=True, exist_ok=True)
            settings = self.distillation(cell)
            if experts is not None:
                settings["experts"] = self._train_experts(
                    self.dataset(cell), out=experts, **given, **self.experts(cell)
                )
            if cell.weights:
                settings["weights"] = self._weights_of(cell)
            what = self._distill(self.dataset(cell), out=run, **given, **settings)
        dataset, ipc = self.dataset(cell, test=True), None if cell.what == "whole" else cell.ipc
        result = self._evaluate(what, dataset, ipc=ipc, device=self._device, seed=self.seed, **self.evaluation(cell))
        row = report.result_row(
            result, dataset=dataset.name, method=cell.method or cell.what, debias=cell.debias, ipc=ipc
        )
        path = self._result(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"budget": self._budget.name, "dataset_digest": dataset.digest()}
        report.write_json(path, report.document([row], **about))
        return Outcome(cell, row, run, self.seed)

    def _weights_of(self, cell: Cell) -> Path:
        """The cell's weights, made once for all that ask for them."""
        path = self.weights_file(cell)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            weights = self._kde_weights(self.dataset(cell), seed=self.seed, device=self._device, **cell.weights)
            weights.save(path)
        return path

    def weights_file(self, cell: Cell) -> Path | None:
        """Where the cell's weights are kept; None where it has none of its own."""
        if not cell.weights:
            return None
        name = _slug(cell.dataset, [cell.options, cell.weights, self.seed])
        return self._folder / "weights" / f"{name}.safetensors"

    def experts_folder(self, cell: Cell) -> Path | None:
        """Where the cell's experts are kept. Its IPC decides on them only where a preset says so."""
        settings = self.experts(cell)
        if settings is None:
            return None
        config = ExpertSettings.configure(dataset=cell.dataset, seed=self.seed, **settings)
        return (
            self._folder
            / "experts"
            / _slug(f"{settings['debias']}-{cell.dataset}", [cell.options, config.model_dump()])
        )

    def run_folder(self, cell: Cell) -> Path | None:
        """Where the cell's distillation is kept; None where nothing is distilled."""
        if cell.method is None:
            return None
        experts = self.experts_folder(cell)
        made_of = [path.name for path in (experts, self.weights_file(cell)) if path]
        about = [cell.dataset, cell.options, self.distillation(cell), self.seed, *made_of]
        name = f"{cell.method}-{cell.debias}-{cell.dataset}-{cell.ipc}"
        return self._folder / "runs" / _slug(name, about)

    def _result(self, cell: Cell) -> Path:
        made = [cell.what] if cell.what else [self.run_folder(cell).name]
        about = [*made, cell.dataset, _test_options(cell), cell.ipc, self.evaluation(cell), self.seed]
        return self._folder / "results" / f"{_slug(f'{cell.column}-{cell.row}'.replace(':', '-'), about)}.json"


def seeds_of(cell: Cell, seeds: Sequence[int]) -> list[int]:
    """Those of ``seeds`` that the cell is done with: one where it has no set that another seed would change."""
    return list(seeds[:1] if cell.what == "whole" else seeds)


def _test_options(cell: Cell) -> dict[str, Any]:
    return {**cell.options, **cell.test_options}


def _slug(name: str, about: Any) -> str:
    """``name`` and a short hash of everything that tells this from others of the name."""
    text = json.dumps(about, sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
