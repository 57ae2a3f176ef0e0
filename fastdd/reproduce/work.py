"""Running the cells of a table: what is missing is run, what is done is kept, in one folder for all tables."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdd import api, data, report
from fastdd.api.network_training import STAND_IN
from fastdd.data import Dataset
from fastdd.evaluation.audit import condensed_ratio, data_bias
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS
from fastdd.reproduce.budgets import Budget
from fastdd.reproduce.recipes import Cell
from fastdd.training import recipe

# That a distillation matches on in turn; no paper says how many.
_NETWORKS = 10


@dataclass(frozen=True)
class Outcome:
    """A cell that is done.

    Attributes:
        cell: which.
        row: its result (:func:`fastdd.report.result_row`), or the figures of its data set.
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
        fakes: of cells that train on fake images: a folder that has those of each data set in a folder of its name, or
            ``stand-in`` (:func:`fastdd.train_network`); None where there are none.
        distill, train_experts, kde_weights, evaluate, train_network: what does the work; with progress bars on the
            command line.
    """

    def __init__(
        self,
        folder: Path,
        budget: Budget,
        *,
        root: Path | None = None,
        device: str = "auto",
        seed: int = 0,
        fakes: str | None = None,
        distill: Callable[..., Any] = api.distill,
        train_experts: Callable[..., Any] = api.train_experts,
        kde_weights: Callable[..., Any] = api.kde_weights,
        evaluate: Callable[..., Any] = api.evaluate,
        train_network: Callable[..., Any] = api.train_network,
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
        self._train_network = train_network
        self._fakes = fakes
        self._datasets: dict[str, Dataset] = {}

    def dataset(self, cell: Cell, *, test: bool = False) -> Dataset:
        """The cell's data set, or the one that it is tested on; the last one is kept."""
        options = self.options(cell) | (cell.test_options if test else {})
        key = _slug(cell.dataset, options)
        if key not in self._datasets:
            self._datasets = {key: data.load(cell.dataset, self._root, **options)}
        return self._datasets[key]

    def options(self, cell: Cell) -> dict[str, Any]:
        """Options of the cell's data set, under the budget.

        Raises:
            ValueError: stand-ins are asked for, and the recipe does not say of which images.
        """
        if cell.what != "train":
            return cell.options
        if self.stand_in and cell.stand_in_options is None:
            raise ValueError(
                f"{cell.dataset} has too few images to hold out for stand-ins: give generated ones, --fakes DIR with "
                f"DIR/{cell.dataset}/CLASS/GROUP/*.png"
            )
        options = cell.stand_in_options if self.stand_in else cell.options
        return {**options, **self._budget.training.get("data", {})}

    @property
    def stand_in(self) -> bool:
        """Whether fake images are stand-ins, and real ones those that are left beside them."""
        return (self._fakes or "").partition(":")[0] == STAND_IN

    @property
    def note(self) -> str:
        """What a reader of the figures has to know: of the budget, and of the fake images."""
        if not self.stand_in:
            return self._budget.note
        return (
            f"{self._budget.note} Fake images are not generated: they are held-out real images, degraded, and training "
            "is on the images that are left, dropped to the level of bias."
        )

    def fakes(self, cell: Cell) -> str | None:
        """The fake images of the cell; None for a cell without.

        Raises:
            ValueError: there are none.
        """
        if cell.settings.get("use", "none") == "none":
            return None
        if self._fakes is None:
            raise ValueError(
                f"{cell.column} trains on fake images: give --fakes DIR, with DIR/{cell.dataset}/CLASS/GROUP/*.png, or "
                f"--fakes {STAND_IN}"
            )
        return self._fakes if self.stand_in else str(Path(self._fakes) / cell.dataset)

    def training(self, cell: Cell) -> dict[str, Any]:
        """Settings of the training of the cell's network, under the budget."""
        of_budget = {name: value for name, value in self._budget.training.items() if name not in ("data", "ffr")}
        later = self._budget.training.get("ffr", {}) if cell.settings.get("use") == "ffr" else {}
        return {**of_budget, **later, **cell.settings}

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
        shortened = self._budget.distillation.get("experts", {})
        return {"debias": debias, "ipc": cell.ipc, **kind.experts, **shortened, **cell.experts}

    def networks(self, cell: Cell) -> dict[str, Any] | None:
        """Arguments of the training of the networks that the cell matches on, under the budget; None for random ones.

        ``num_experts`` of them; experts, or networks of :func:`fastdd.train_network` where experts are not trained so.
        """
        if not cell.networks:
            return None
        shortened = self._budget.distillation.get("networks", {})
        constants = self._budget.constants.get(cell.networks["training"])
        constants = {"constants": constants} if constants else {}
        return {"num_experts": _NETWORKS, **cell.networks, **shortened, **constants}

    def teacher(self, cell: Cell) -> dict[str, Any] | None:
        """Arguments of the training of the cell's teacher, under the budget; None for a cell without."""
        return {**cell.teacher, **self._budget.distillation.get("teacher", {})} if cell.teacher else None

    def evaluation(self, cell: Cell) -> dict[str, Any]:
        """Arguments of the cell's evaluation, under the budget; none where nothing is evaluated."""
        if cell.what == "data":
            return {}
        short = self._budget.whole if cell.what == "whole" else self._budget.evaluation
        if cell.what == "whole" and "protocol" in cell.evaluation and self._budget.published:
            return dict(cell.evaluation)  # the protocol's own networks and epochs
        settings = {"nets": cell.nets, **short, **self._of_network(cell, "evaluation"), **cell.evaluation}
        shortened = self._budget.constants.get(settings.get("training"))
        return settings | ({"constants": settings.get("constants", {}) | shortened} if shortened else {})

    def _of_network(self, cell: Cell, what: str) -> dict[str, Any]:
        return self._budget.networks.get(cell.settings.get("arch"), {}).get(what, {})

    def done(self, cell: Cell) -> Outcome | None:
        """The cell's result, if it is there."""
        path = self._result(cell)
        if not path.exists():
            return None
        read = report.read_json if cell.what == "data" else report.read_results
        return Outcome(cell, read(path)["rows"][0], self.run_folder(cell), self.seed)

    def do(self, cell: Cell) -> Outcome:
        """The cell's result: the one that is there, or a new one."""
        found = self.done(cell)
        if found is not None:
            return found
        if cell.what == "train":
            return self._keep(cell, self._trained(cell), self.dataset(cell))
        return self._keep(cell, *(self._figures_of_data if cell.what == "data" else self._evaluated)(cell))

    def _figures_of_data(self, cell: Cell) -> tuple[dict[str, Any], Dataset]:
        """The row of a cell that is of the data set itself, and the data set."""
        dataset = self.dataset(cell)
        figures = {"condensed": condensed_ratio(dataset, cell.ipc), "aligned": data_bias(dataset).majority_share}
        exact = {name: {"mean": 100 * value, "std": 0.0, "interval": None} for name, value in figures.items()}
        return {"dataset": dataset.name, "ipc": cell.ipc, "nets": 0, **exact}, dataset

    def _evaluated(self, cell: Cell) -> tuple[dict[str, Any], Dataset]:
        """The row of a cell that is evaluated, once it is distilled, and the data set that it is tested on."""
        what, run, experts = cell.what, self.run_folder(cell), self.experts_folder(cell)
        given, teacher = self._given, self._teacher_of(cell)
        evaluation = self.evaluation(cell)
        if teacher is not None and evaluation.get("labels") != "hard":
            evaluation["teacher"] = teacher
        if run is not None:
            run.parent.mkdir(parents=True, exist_ok=True)
            settings = self.distillation(cell)
            if experts is not None:
                settings["experts"] = self._train_experts(
                    self.dataset(cell), out=experts, **given, **self.experts(cell)
                )
            if teacher is not None:
                settings["teacher"] = teacher
            if cell.networks:
                settings["networks"] = self._matched_on(cell)
            if cell.weights:
                settings["weights"] = self._weights_of(cell)
            what = self._distill(self.dataset(cell), out=run, **given, **settings)
        dataset, ipc = self.dataset(cell, test=True), None if cell.what == "whole" else cell.ipc
        if what == "random" and teacher is not None:
            evaluation |= {name: cell.teacher.get(name) for name in ("arch", "width", "depth")}
        result = self._evaluate(what, dataset, ipc=ipc, device=self._device, seed=self.seed, **evaluation)
        row = report.result_row(
            result, dataset=dataset.name, method=cell.method or cell.what, debias=cell.debias, ipc=ipc
        )
        return row, dataset

    def _teacher_of(self, cell: Cell) -> Path | None:
        """The folder of the cell's teacher, trained if it is not there; None for a cell without."""
        folder = self.teacher_folder(cell)
        if folder is not None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._train_network(self.dataset(cell), out=folder, **self._given, **self.teacher(cell))
        return folder

    def _matched_on(self, cell: Cell) -> Path:
        """The folder of the trained networks that the cell matches on, trained if they are not there."""
        folder, settings = self.networks_folder(cell), self.networks(cell)
        if recipe(settings["training"]).net_predicts:
            self._train_experts(self.dataset(cell), out=folder, eval_every=0, **self._given, **settings)
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(settings.pop("num_experts")):
            given = self._given | {"seed": self.seed + number}
            self._train_network(self.dataset(cell), out=folder / str(number), **given, **settings)
        return folder

    @property
    def _given(self) -> dict[str, Any]:
        return {"resume": True, "device": self._device, "seed": self.seed}

    def _trained(self, cell: Cell) -> dict[str, Any]:
        folder = self._folder / "networks" / self._result(cell).stem
        folder.parent.mkdir(parents=True, exist_ok=True)
        trained = self._train_network(
            self.dataset(cell), out=folder, fakes=self.fakes(cell), **self._given, **self.training(cell)
        )
        return report.network_row(trained)

    def _keep(self, cell: Cell, row: dict[str, Any], dataset: Dataset) -> Outcome:
        path = self._result(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"budget": self._budget.name, "dataset_digest": dataset.digest()}
        report.write_json(path, report.document([row], **about))
        return Outcome(cell, row, self.run_folder(cell), self.seed)

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

    def networks_folder(self, cell: Cell) -> Path | None:
        """Where the trained networks are kept that the cell matches on; None for random ones."""
        settings = self.networks(cell)
        if settings is None:
            return None
        about = [cell.options, settings, self.seed]
        return self._folder / "networks" / _slug(f"{settings['training']}-{cell.dataset}", about)

    def teacher_folder(self, cell: Cell) -> Path | None:
        """Where the cell's teacher is kept; None for a cell without."""
        settings = self.teacher(cell)
        if settings is None:
            return None
        return self._folder / "teachers" / _slug(cell.dataset, [cell.options, settings, self.seed])

    def run_folder(self, cell: Cell) -> Path | None:
        """Where the cell's distillation is kept; None where nothing is distilled."""
        if cell.method is None:
            return None
        paths = (
            *(self.experts_folder(cell), self.networks_folder(cell)),
            *(self.weights_file(cell), self.teacher_folder(cell)),
        )
        made_of = [path.name for path in paths if path]
        about = [cell.dataset, cell.options, self.distillation(cell), self.seed, *made_of]
        matched_on = f"-on-{cell.networks['training']}" if cell.networks else ""
        name = f"{cell.method}-{cell.debias}{matched_on}-{cell.dataset}-{cell.ipc}"
        return self._folder / "runs" / _slug(name, about)

    def _result(self, cell: Cell) -> Path:
        if cell.what == "train":
            about = [cell.dataset, self.options(cell), self.training(cell), self.seed, self._fakes]
        else:
            made = [cell.what] if cell.what else [self.run_folder(cell).name]
            made += [self.teacher_folder(cell).name] if cell.what and cell.teacher else []
            options = {**cell.options, **cell.test_options}
            about = [*made, cell.dataset, options, cell.ipc, self.evaluation(cell), self.seed]
        return self._folder / "results" / f"{_slug(f'{cell.column}-{cell.row}'.replace(':', '-'), about)}.json"


# Of these another seed changes no set and no trained network of the cell's own.
_ONCE = ("whole", "data")


def seeds_of(cell: Cell, seeds: Sequence[int]) -> list[int]:
    """Those of ``seeds`` that the cell is done with: one where it has no set that another seed would change."""
    return list(seeds[:1] if cell.what in _ONCE else seeds)


def _slug(name: str, about: Any) -> str:
    """``name`` and a short hash of everything that tells this from others of the name."""
    text = json.dumps(about, sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
