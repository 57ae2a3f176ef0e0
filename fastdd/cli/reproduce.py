"""``fastdd reproduce``."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table as RichTable

from fastdd import api, models
from fastdd import reproduce as recipes
from fastdd.cli.console import console
from fastdd.cli.datasets import Root
from fastdd.cli.distill import distill_with_bar
from fastdd.cli.experts import train_with_bar
from fastdd.cli.options import Command, Device, new_app
from fastdd.cli.plan import time_text
from fastdd.cli.repeats import SeedsText
from fastdd.cli.results import evaluate_with_bar
from fastdd.cli.train import network_with_bar
from fastdd.core import files
from fastdd.core.text import one_of
from fastdd.data import Dataset
from fastdd.exchange import torch_files
from fastdd.experts.store import MANIFEST
from fastdd.methods import configure
from fastdd.report.page import TextTable, write_page
from fastdd.report.record import read_record
from fastdd.reproduce.budgets import Budget
from fastdd.reproduce.comparison import explanation, header, lines
from fastdd.session import Estimate
from fastdd.session.repeats import parse_seeds
from fastdd.training import TrainSettings, fake_counts, recipe

app = new_app()

SeedOrNone = Annotated[
    int | None,
    typer.Option(help="Of a single distillation a cell.", show_default="0; budget full repeats as often as the paper"),
]


@app.command(cls=Command)
def reproduce(
    paper: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(recipes.paper_names())}.", show_default="all")
    ] = None,
    table: Annotated[str | None, typer.Argument(help="Of the paper.", show_default="all")] = None,
    rows: Annotated[str | None, typer.Option(help="Rows joined by commas, with * for any.", show_default="all")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns joined by commas.", show_default="all")] = None,
    budget: Annotated[str, typer.Option(help="full (as published) or quick (minutes a cell).")] = "full",
    data_root: Root = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, results and tables.")] = Path("reproduce"),
    fakes: Annotated[
        str | None,
        typer.Option(
            help="Fake images of ffr: a folder DATASET/CLASS/GROUP/*.png, or stand-in[:SEVERITY] (fastdd train).",
            metavar="DIR|stand-in",
            show_default=False,
        ),
    ] = None,
    seed: SeedOrNone = None,
    seeds: SeedsText = None,
    device: Device = "auto",
    show_list: Annotated[
        bool,
        typer.Option("--list", help="Say what there is to run, what is done and what the rest costs; run nothing."),
    ] = False,
) -> None:
    """Run the rows of a paper's table: what is missing is run, what is done is kept; ours beside the published."""
    if seed is not None and seeds is not None:
        raise ValueError("--seed and --seeds: give one of them")
    wanted = [seed] if seed is not None else None if seeds is None else parse_seeds(seeds)
    if show_list or paper is None or table is None:
        _list(paper, table, rows, columns, budget, data_root, out, wanted, device, fakes)
    else:
        _run(paper, table, rows, columns, budget, data_root, out, wanted, device, fakes)


def _run(
    paper: str,
    table: str,
    rows: str | None,
    columns: str | None,
    budget: str,
    root: Path | None,
    out: Path,
    seeds: list[int] | None,
    device: str,
    fakes: str | None,
) -> None:
    selected, spent = _selected(paper, table, rows, columns), _budget(budget)
    numbers = _seeds(seeds, selected, spent)
    api.pick_device(device)
    shops = {
        seed: recipes.Workshop(
            out,
            spent,
            root=root,
            device=device,
            seed=seed,
            fakes=fakes,
            distill=lambda data, **given: distill_with_bar(data, _title(given, data.name), **given),
            train_experts=train_with_bar,
            evaluate=lambda what, data, **given: evaluate_with_bar(what, data, f"evaluating on {data.name}", **given),
            train_network=network_with_bar,
        )
        for seed in numbers
    }
    shop = shops[numbers[0]]
    for cell in selected.cells:  # a missing data set is told before hours of work on another
        if any(shops[seed].done(cell) is None for seed in recipes.seeds_of(cell, numbers)):
            shop.fakes(cell)
            shop.dataset(cell)
    out.mkdir(parents=True, exist_ok=True)
    files.check_writable(_stem(selected, spent, out).with_suffix(".md"))
    outcomes = []
    for cell in selected.cells:
        own = recipes.seeds_of(cell, numbers)
        for seed in own:
            outcomes.append(shops[seed].do(cell))
            _tell(selected, outcomes[-1], len(own) > 1)
        _write(selected, outcomes, spent, shop, out, final=cell is selected.cells[-1])
    result = RichTable(title=f"{selected.paper} {selected.name}: {selected.title}, %", title_justify="left")
    for number, title in enumerate(header(selected)):
        result.add_column(title, justify="left" if number < 2 else "right", no_wrap=True)
    compared, less = recipes.comparisons(selected, outcomes), recipes.paired_differences(selected, outcomes)
    for line in lines(selected, compared, less):
        result.add_row(*line)
    console.print(result)
    console.print(f"{explanation(outcomes)} {shop.note}")
    console.print(f"table in {_stem(selected, spent, out)}.md, .csv and .html")


def _tell(table: recipes.Table, outcome: recipes.Outcome, several: bool) -> None:
    row = outcome.row
    figures = ", ".join(f"{name} {recipes.number(row[name]['mean'], name)}" for name in table.figures)
    seed = f", seed {outcome.seed}" if several else ""
    console.print(f"{outcome.cell.row} {outcome.cell.column}{seed}: {figures}")


def _seeds(given: list[int] | None, table: recipes.Table, spent: Budget) -> list[int]:
    """As asked for; else as often as the paper repeats, but for a budget that shortens everything."""
    if given is not None:
        return given
    return list(range(table.repeats)) if spent.published else [0]


def _list(
    paper: str | None,
    table: str | None,
    rows: str | None,
    columns: str | None,
    budget: str,
    root: Path | None,
    out: Path,
    seeds: list[int] | None,
    device: str,
    fakes: str | None,
) -> None:
    spent = _budget(budget)
    if table is None and (rows or columns):
        raise ValueError("--rows and --columns are a table's: name it, as in fastdd reproduce fairdd table1")
    if paper is not None and table is not None:
        _list_cells(_selected(paper, table, rows, columns), spent, root, out, seeds, device, fakes)
        return
    result = RichTable(title=f"fastdd reproduce PAPER TABLE, budget {budget}", title_justify="left", box=None)
    numbers = ("rows", "cells x seeds done", "distilled sets", "trained experts")
    for name in ("paper", "table", *numbers, "columns", "what"):
        result.add_column(name, no_wrap=name in ("paper", "table"), justify="right" if name in numbers else "left")
    for name in [paper] if paper else recipes.paper_names():
        for key, one in recipes.read_paper(name).items():
            numbers = _seeds(seeds, one, spent)
            shops = [recipes.Workshop(out, spent, seed=seed, fakes=fakes) for seed in numbers]
            work = [(shop, cell) for cell in one.cells for shop in shops[: len(recipes.seeds_of(cell, numbers))]]
            done = sum(shop.done(cell) is not None for shop, cell in work)
            sets = str(len({shop.run_folder(cell) for shop, cell in work} - {None}))
            experts = str(len({shop.experts_folder(cell) for shop, cell in work} - {None}))
            columns_of = ", ".join(dict.fromkeys(cell.column for cell in one.cells))
            result.add_row(name, key, str(len(one.rows)), f"{done}/{len(work)}", sets, experts, columns_of, one.title)
    console.print(result)
    console.print("what a table takes here, cell by cell: fastdd reproduce PAPER TABLE --list")


def _list_cells(
    table: recipes.Table,
    spent: Budget,
    root: Path | None,
    out: Path,
    given: list[int] | None,
    device: str,
    fakes: str | None,
) -> None:
    seeds = _seeds(given, table, spent)
    shops = {seed: recipes.Workshop(out, spent, root=root, device=device, seed=seed, fakes=fakes) for seed in seeds}
    title = f"{table.paper} {table.name}, budget {spent.name}"
    if len(seeds) > 1:
        title += f", seeds {', '.join(map(str, seeds))}"
    result = RichTable(title=title, title_justify="left", box=None)
    for name in ("row", "set", "state", "takes"):
        result.add_column(name, justify="right" if name == "takes" else "left")
    total, stuck, costs = 0.0, 0, {seed: _Costs(shop, device) for seed, shop in shops.items()}
    for one in costs.values():  # the same work takes the same time, whatever its seed
        one.measured = costs[seeds[0]].measured
    for cell in table.cells:
        own = recipes.seeds_of(cell, seeds)
        try:
            missing = [seed for seed in own if shops[seed].done(cell) is None]
            if not missing:
                result.add_row(cell.row, cell.column, "done", "")
                continue
            shops[own[0]].fakes(cell)
            seconds = sum(costs[seed].of(cell) for seed in missing)
        except (ValueError, OSError) as error:
            result.add_row(cell.row, cell.column, f"can't be run: {error}", "")
            stuck += 1
            continue
        total += seconds
        state = "missing" if len(missing) == len(own) else f"{len(own) - len(missing)} of {len(own)} done"
        result.add_row(cell.row, cell.column, state, time_text(seconds))
    console.print(result)
    rest = f", without the {stuck} that can't be run" if stuck else ""
    console.print(f"all that is missing: about {time_text(total)} here{rest}")


class _Costs:
    """About how long cells take. The same work on data sets of the same sizes is measured once."""

    def __init__(self, shop: recipes.Workshop, device: str):
        self._shop, self._device = shop, device
        self.measured: dict[str, float] = {}
        self._counted: set[Path] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="fastdd-")  # of stand-ins for teachers

    def of(self, cell: recipes.Cell) -> float:
        """Seconds; sets that an earlier cell distils, experts that it trains, or weights, are not counted again."""
        shop, evaluation = self._shop, self._shop.evaluation(cell)
        if cell.what == "train":
            return self._training(cell)
        if cell.what == "data":
            return 0.0
        teacher, total = self._teacher(cell)
        if teacher and evaluation.get("labels") != "hard":
            evaluation["teacher"] = teacher["teacher"]
        network = {name: value for name, value in teacher.items() if name != "teacher"}
        if cell.what is not None:
            about = {"what": cell.what, "ipc": None if cell.what == "whole" else cell.ipc, **network, **evaluation}
            return total + self._seconds(cell, api.estimate_evaluation, about)
        settings, experts = shop.distillation(cell) | teacher, shop.experts(cell)
        if experts is not None:
            settings |= {name: experts.get(name) for name in ("arch", "width", "depth")}
            folder = shop.experts_folder(cell)
            if self._first(folder) and not (folder / MANIFEST).exists():
                total += self._seconds(cell, api.estimate_experts, experts)
        if cell.networks and self._first(folder := shop.networks_folder(cell)) and not folder.exists():
            total += self._networks(cell)
        if cell.weights:
            # Made before the run, which is given them.
            if self._first(file := shop.weights_file(cell)) and not file.exists():
                total += self._seconds(cell, api.estimate_weights, dict(cell.weights))
            settings["weights"] = np.linspace(1, 2, len(shop.dataset(cell).train))
        if self._first(shop.run_folder(cell)):
            total += self._seconds(cell, api.estimate, settings)
        without_groups = {name: value for name, value in settings.items() if name not in ("groups", "weights")}
        run = configure(dataset=cell.dataset, **without_groups).model_dump()
        alike = {name: run[name] for name in ("ipc", "arch", "width", "depth", "dsa_strategy")}
        return total + self._seconds(cell, api.estimate_evaluation, {"what": "random", **alike, **evaluation})

    def _training(self, cell: recipes.Cell) -> float:
        """As long as an evaluation of the whole set, times the images of all stages; validation is not in it."""
        data, settings = self._shop.dataset(cell), self._shop.training(cell)
        config = TrainSettings.configure(dataset=cell.dataset, **settings)
        fakes = fake_counts(data.train.counts(data.num_classes, data.num_groups), config.use, config.scale)
        return self._whole(cell, config) * (1 + int(fakes.sum()) / len(data.train))

    def _whole(self, cell: recipes.Cell, config: TrainSettings) -> float:
        about = {"what": "whole", "nets": 1, "epochs": config.epochs, "arch": config.arch, "dsa_strategy": "none"}
        return self._seconds(cell, api.estimate_evaluation, about)

    def _teacher(self, cell: recipes.Cell) -> tuple[dict[str, Any], float]:
        """The teacher's weights, at random, and its network; seconds of its training, where it is not there yet."""
        settings = self._shop.teacher(cell)
        if settings is None:
            return {}, 0.0
        data, config = self._shop.dataset(cell), TrainSettings.configure(dataset=cell.dataset, **settings)
        network = {"arch": config.arch, "width": config.width, "depth": config.depth}
        shape = data.channels, data.num_classes, data.size
        net = models.build(config.arch, *shape, width=config.width, depth=config.depth)
        path = Path(self._folder.name) / f"{cell.dataset}.pth"
        torch_files.save(net.state_dict(), path)
        folder = self._shop.teacher_folder(cell)
        seconds = self._whole(cell, config) if self._first(folder) and not folder.exists() else 0.0
        return {"teacher": str(path), **network}, seconds

    def _networks(self, cell: recipes.Cell) -> float:
        """Experts as they are measured; others, with a second network beside each, as twice a whole training."""
        settings = self._shop.networks(cell)
        if recipe(settings["training"]).net_predicts:
            return self._seconds(cell, api.estimate_experts, {**settings, "eval_every": 0})
        number = settings.pop("num_experts")
        return 2 * number * self._whole(cell, TrainSettings.configure(dataset=cell.dataset, **settings))

    def _first(self, folder: Path) -> bool:
        known = folder in self._counted
        self._counted.add(folder)
        return not known

    def _seconds(self, cell: recipes.Cell, estimate: Callable[..., Estimate], about: dict) -> float:
        data = self._shop.dataset(cell)
        sizes = (data.channels, data.size, data.num_classes, data.num_groups, len(data.train), len(data.test))
        key = repr((estimate.__name__, sizes, about))
        if key not in self.measured:
            self.measured[key] = estimate(data=data, device=self._device, **about).total
        return self.measured[key]


def _title(given: dict, dataset: str) -> str:
    return f"{given['method']} {given['debias']} {dataset}"


def _budget(name: str) -> Budget:
    if name not in recipes.BUDGETS:
        raise ValueError(f"unknown budget {name!r}; {one_of(name, recipes.BUDGETS)}")
    return recipes.BUDGETS[name]


def _selected(paper: str, table: str, rows: str | None, columns: str | None) -> recipes.Table:
    tables = recipes.read_paper(paper)
    if table not in tables:
        command = recipes.measured_elsewhere(paper, table)
        if command is not None:
            raise ValueError(f"{paper} {table} is of time and memory: {command}")
        raise ValueError(f"{paper} has no table {table!r}; {one_of(table, tables)}")
    return recipes.select(tables[table], *(given.split(",") if given else () for given in (rows, columns)))


def _stem(table: recipes.Table, spent: Budget, out: Path) -> Path:
    return out / f"{table.paper}-{table.name}-{spent.name}"


def _write(
    table: recipes.Table,
    outcomes: list[recipes.Outcome],
    spent: Budget,
    shop: recipes.Workshop,
    out: Path,
    *,
    final: bool,
) -> None:
    """The table as far as it is; the page, whose pictures take seconds, at the end."""
    compared, stem = recipes.comparisons(table, outcomes), _stem(table, spent, out)
    files.write_text(stem.with_suffix(".md"), recipes.markdown(table, outcomes, shop.note))
    files.write_text(stem.with_suffix(".csv"), recipes.csv_text(table, outcomes))
    if not final:
        return
    shown = outcomes[0].seed  # other seeds' pictures are alike
    distilled = [outcome for outcome in outcomes if outcome.run is not None and outcome.seed == shown]
    rows: dict[Path, list[dict[str, Any]]] = {}
    for outcome in distilled:
        rows.setdefault(outcome.run, []).append(outcome.row)
    records = [replace(read_record(run), rows=of_run) for run, of_run in rows.items()]
    title = f"{table.paper} {table.name}: {table.title}"
    less = recipes.paired_differences(table, outcomes)
    note = f"{explanation(outcomes)} {shop.note}"
    text = TextTable(title, note, header(table), lines(table, compared, less), recipes.bars(table, compared))
    data, why = _shown(shop, [one.cell for one in distilled])
    write_page(stem.with_suffix(".html"), records, data, table=text, without=why)


def _shown(shop: recipes.Workshop, cells: list[recipes.Cell]) -> tuple[Dataset | None, str]:
    """The data set of all cells, to be shown beside theirs, or why it can't be."""
    if not cells:
        return None, "nothing was distilled"
    if any((cell.dataset, cell.options) != (cells[0].dataset, cells[0].options) for cell in cells):
        return None, "the table is of several data sets"
    try:
        return shop.dataset(cells[0]), ""
    except (ValueError, OSError) as error:  # all is done, so the table needs no files
        return None, str(error)
