"""``fastdd reproduce``."""

from pathlib import Path

from rich.table import Table as RichTable

from fastdd import api, files, reproduce
from fastdd.cli.console import console
from fastdd.cli.estimate import time_text
from fastdd.cli.experts import train_with_bar
from fastdd.cli.runs import distill_with_bar, evaluate_with_bar
from fastdd.data.trajectories import MANIFEST
from fastdd.report.page import TextTable, write_page
from fastdd.report.record import read_record
from fastdd.reproduce.budgets import Budget
from fastdd.reproduce.comparison import EXPLANATION, header, lines


def run_reproduce(
    paper: str,
    table: str,
    rows: str | None,
    columns: str | None,
    budget: str,
    root: Path | None,
    out: Path,
    seed: int,
    device: str,
) -> None:
    chosen, spent = _selected(paper, table, rows, columns), _budget(budget)
    api.pick_device(device)
    out.mkdir(parents=True, exist_ok=True)
    files.check_writable(_stem(chosen, spent, out).with_suffix(".md"))
    shop = reproduce.Workshop(
        out,
        spent,
        root=root,
        device=device,
        seed=seed,
        distill=lambda data, **given: distill_with_bar(data, _title(given, data.name), **given),
        train_experts=train_with_bar,
        evaluate=lambda what, data, **given: evaluate_with_bar(what, data, f"evaluating on {data.name}", **given),
    )
    for cell in chosen.cells:  # a missing data set is told before hours of work on another
        if shop.done(cell) is None:
            shop.dataset(cell)
    outcomes = []
    for cell in chosen.cells:
        outcomes.append(shop.do(cell))
        row = outcomes[-1].row
        figures = ", ".join(
            f"{name} {'-' if row[name]['mean'] is None else format(row[name]['mean'], '.1f')}"
            for name in chosen.figures
        )
        console.print(f"{cell.row} {cell.column}: {figures}")
        _write(chosen, outcomes, spent, out, root, final=cell is chosen.cells[-1])
    found = reproduce.comparisons(chosen, outcomes)
    result = RichTable(title=f"{chosen.paper} {chosen.name}: {chosen.title}, %", title_justify="left")
    for number, title in enumerate(header(chosen)):
        result.add_column(title, justify="left" if number < 2 else "right", no_wrap=True)
    for line in lines(chosen, found):
        result.add_row(*line)
    console.print(result)
    console.print(" ".join(filter(None, (EXPLANATION, spent.note))))
    console.print(f"table in {_stem(chosen, spent, out)}.md, .csv and .html")


def run_list(
    paper: str | None,
    table: str | None,
    rows: str | None,
    columns: str | None,
    budget: str,
    root: Path | None,
    out: Path,
    seed: int,
    device: str,
) -> None:
    spent = _budget(budget)
    if table is None and (rows or columns):
        raise ValueError("--rows and --columns are a table's: name it, as in fastdd reproduce fairdd table1")
    if paper is not None and table is not None:
        _list_cells(_selected(paper, table, rows, columns), spent, root, out, seed, device)
        return
    result = RichTable(title="fastdd reproduce PAPER TABLE", title_justify="left", box=None)
    for name in ("paper", "table", "rows", "columns", "what"):
        result.add_column(name, no_wrap=name in ("paper", "table"))
    for name in [paper] if paper else reproduce.paper_names():
        for key, one in reproduce.read_paper(name).items():
            sets = ", ".join(dict.fromkeys(cell.column for cell in one.cells))
            result.add_row(name, key, str(len(one.rows)), sets, one.title)
    console.print(result)


def _list_cells(table: reproduce.Table, spent: Budget, root: Path | None, out: Path, seed: int, device: str) -> None:
    shop = reproduce.Workshop(out, spent, root=root, device=device, seed=seed)
    result = RichTable(title=f"{table.paper} {table.name}, budget {spent.name}", title_justify="left", box=None)
    for name in ("row", "set", "state", "takes"):
        result.add_column(name, justify="right" if name == "takes" else "left")
    total, counted = 0.0, set()
    for cell in table.cells:
        if shop.done(cell) is not None:
            result.add_row(cell.row, cell.column, "done", "")
            continue
        try:
            seconds = _seconds(shop, cell, device, counted)
        except (ValueError, OSError) as error:
            result.add_row(cell.row, cell.column, f"can't be run: {error}", "")
            continue
        total += seconds
        result.add_row(cell.row, cell.column, "missing", time_text(seconds))
    console.print(result)
    console.print(f"all that is missing: about {time_text(total)} here")


def _seconds(shop: reproduce.Workshop, cell: reproduce.Cell, device: str, counted: set[str]) -> float:
    """About how long the cell takes; a set that several cells evaluate is distilled once."""
    data, evaluation = shop.dataset(cell), shop.evaluation(cell)
    if cell.what is not None:
        ipc = None if cell.what == "whole" else cell.ipc
        return api.estimate_evaluation(cell.what, data, ipc=ipc, device=device, **evaluation).total
    settings, experts, training = shop.distillation(cell), shop.experts(cell), 0.0
    if experts is not None:
        settings |= {name: experts.get(name) for name in ("arch", "width", "depth")}
        folder = shop.experts_folder(cell)
        if str(folder) not in counted and not (folder / MANIFEST).exists():
            counted.add(str(folder))
            training = api.estimate_experts(data, device=device, **experts).total
    nets, epochs = (evaluation.get(name) for name in ("nets", "epochs"))
    made = api.estimate(data, device=device, nets=nets, epochs=epochs, **settings)
    distilled = repr((cell.dataset, cell.options, settings))
    if distilled in counted:
        return made.seconds["evaluation"]
    counted.add(distilled)
    return training + made.total


def _title(given: dict, dataset: str) -> str:
    return f"{given['method']} {given['debias']} {dataset}"


def _budget(name: str) -> Budget:
    if name not in reproduce.BUDGETS:
        raise ValueError(f"unknown budget {name!r}; one of: {', '.join(reproduce.BUDGETS)}")
    return reproduce.BUDGETS[name]


def _selected(paper: str, table: str, rows: str | None, columns: str | None) -> reproduce.Table:
    tables = reproduce.read_paper(paper)
    if table not in tables:
        raise ValueError(f"{paper} has no table {table!r}; one of: {', '.join(tables)}")
    return reproduce.select(tables[table], *(given.split(",") if given else () for given in (rows, columns)))


def _stem(table: reproduce.Table, spent: Budget, out: Path) -> Path:
    return out / f"{table.paper}-{table.name}-{spent.name}"


def _write(
    table: reproduce.Table,
    outcomes: list[reproduce.Outcome],
    spent: Budget,
    out: Path,
    root: Path | None,
    *,
    final: bool,
) -> None:
    """The table as far as it is; the page, whose pictures take seconds, at the end."""
    found, stem = reproduce.comparisons(table, outcomes), _stem(table, spent, out)
    files.write_text(stem.with_suffix(".md"), reproduce.markdown(table, found, spent.note))
    files.write_text(stem.with_suffix(".csv"), reproduce.csv_text(table, found))
    if not final:
        return
    runs = dict.fromkeys(outcome.run for outcome in outcomes if outcome.run is not None)
    title = f"{table.paper} {table.name}: {table.title}"
    note = " ".join(filter(None, (EXPLANATION, spent.note)))
    text = TextTable(title, note, header(table), lines(table, found))
    write_page(stem.with_suffix(".html"), [read_record(run) for run in runs], table=text)
