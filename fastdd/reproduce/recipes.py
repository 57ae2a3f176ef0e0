"""What stands in the papers, as YAML: rows, columns, published figures, and what has to be run for each cell."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files as resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from fastdd.core.text import one_of

# Of an evaluation, or, of a data set itself: its condensed ratio, and its share of bias-aligned images.
Figure = Literal["accuracy", "deo_m", "deo_a", "wa", "ba", "condensed", "aligned"]
# A figure, or its mean and standard deviation; None where the paper's text is not readable.
Published = float | tuple[float, float] | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Column(_Strict):
    what: Literal["random", "whole", "train", "data"] | None = None
    method: str | None = None
    debias: str = "none"
    settings: dict[str, Any] = {}
    networks: dict[str, Any] = {}
    experts: dict[str, Any] = {}
    teacher: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    published_as: str | None = None


class _Row(_Strict):
    dataset: str | None = None
    ipc: int | None = None
    options: dict[str, Any] = {}
    stand_in_options: dict[str, Any] | None = None
    test_options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    teacher: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    columns: list[str] | None = None
    published: dict[str, list[Published]] = {}


class _Mean(_Strict):
    rows: str
    published: dict[str, list[Published]]


class _Difference(_Strict):
    of: str
    less: str
    published: dict[str, list[Published]]


class _Table(_Strict):
    title: str
    figures: list[Figure]
    nets: int
    rows: dict[str, _Row]
    also: list[str] = []
    means: dict[str, _Mean] = {}
    differences: dict[str, _Difference] = {}


class _Paper(_Strict):
    title: str
    repeats: int = 1
    elsewhere: dict[str, str] = {}
    columns: dict[str, _Column]
    tables: dict[str, _Table]


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what to distil and evaluate, or to train, and what was published.

    Attributes:
        row, column: its place.
        dataset: name. options: of the data set.
        test_options: in place of some of these, of the data set that is tested on.
        stand_in_options: in place of all of these, where stand-ins are the fake images; None where it can't be.
        weights: of :func:`fastdd.kde_weights`, in place of its defaults.
        ipc: synthetic images per class; None where there are none.
        what: ``random``, ``whole`` or ``train`` (one network, by :func:`fastdd.train_network`), where nothing is
            distilled; or ``data``, where nothing is evaluated either.
        method, debias: of the distillation. settings: its own, or those of the training.
        networks: settings of the trained networks that it matches on; none for random ones.
        experts: settings of the experts that it follows, which are not the method's.
        teacher: settings of the training of a teacher (:func:`fastdd.train_network`), by which crops or images are
            chosen, and whose labels the evaluation learns; none for a cell without.
        evaluation: settings of the evaluation that are not the budget's.
        nets: networks of a full evaluation.
        published: by figure; a number, mean and standard deviation, or None.
    """

    row: str
    column: str
    dataset: str
    ipc: int | None
    what: str | None
    method: str | None
    debias: str
    nets: int
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Published] = field(default_factory=dict)
    test_options: dict[str, Any] = field(default_factory=dict)
    stand_in_options: dict[str, Any] | None = None
    networks: dict[str, Any] = field(default_factory=dict)
    experts: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mean:
    """The mean over some rows of a table, as the paper prints it.

    Attributes:
        row, column: its place.
        rows: pattern of the rows that it is over.
        published: as a cell's.
    """

    row: str
    column: str
    rows: str
    published: dict[str, Published]


@dataclass(frozen=True)
class Difference:
    """What one row of a table has more than another.

    Attributes:
        row, column: its place.
        of, less: rows.
        published: as a cell's.
    """

    row: str
    column: str
    of: str
    less: str
    published: dict[str, Published]


@dataclass(frozen=True)
class Table:
    """A table of a paper: its title, its figures in their order, its cells, row by row, means over rows, differences.

    ``also`` are cells of columns that the paper does not have, or of its own run in another way, for those who ask for
    them by name. ``repeats`` is how often the paper repeats a cell, distillation and evaluation, or training; 1 where
    it does not say.
    """

    paper: str
    name: str
    title: str
    figures: tuple[str, ...]
    cells: tuple[Cell, ...]
    means: tuple[Mean, ...] = ()
    also: tuple[Cell, ...] = ()
    differences: tuple[Difference, ...] = ()
    repeats: int = 1

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))


def paper_names() -> list[str]:
    """Papers that have recipes."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def read_paper(name: str) -> dict[str, Table]:
    """The tables of a paper, by name.

    Raises:
        ValueError: a paper without recipes.

    >>> [cell.column for cell in read_paper("fairdd")["table1"].cells[3:7]]
    ['DC', 'DC+FairDD', 'IDC', 'IDC+FairDD']
    """
    paper = _read(name)
    return {key: _table(name, key, table, paper) for key, table in paper.tables.items()}


def _read(name: str) -> _Paper:
    if name not in paper_names():
        raise ValueError(f"no recipes for a paper {name!r}; {one_of(name, paper_names())}")
    return _Paper.model_validate(yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8")))


def measured_elsewhere(paper: str, table: str) -> str | None:
    """The command that measures a table of time and memory, which has no recipe; None for any other.

    >>> measured_elsewhere("fairdd", "table13")
    "fastdd bench --case 'scale/groups*' --memory"
    """
    return _read(paper).elsewhere.get(table) if paper in paper_names() else None


def select(table: Table, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Table:
    """The table with only some of its rows and columns; both may be patterns with ``*``.

    Columns that the paper does not have are there where one is asked for by its name.

    Raises:
        ValueError: a row or column that the table does not have, or rows that have none of the columns.
    """
    names = {"row": rows, "column": columns}
    cells = [*table.cells, *(cell for cell in table.also if cell.column in columns)]
    for what, wanted in names.items():
        known = list(dict.fromkeys(getattr(cell, what) for cell in [*table.cells, *table.also]))
        for pattern in wanted:
            if not fnmatch.filter(known, pattern):
                raise ValueError(f"{table.paper} {table.name} has no {what} {pattern!r}; {one_of(pattern, known)}")
    cells = tuple(
        cell
        for cell in cells
        if all(
            not wanted or any(fnmatch.fnmatchcase(getattr(cell, what), pattern) for pattern in wanted)
            for what, wanted in names.items()
        )
    )
    if not cells:
        raise ValueError(
            f"{table.paper} {table.name}: no row {','.join(rows) or '*'} has a column {','.join(columns) or '*'}; one "
            "that the paper does not have is asked for by its name, without *"
        )
    # Of all rows that a mean is over, or it is not the published one's.
    left = {(cell.row, cell.column) for cell in cells}
    means = tuple(
        mean
        for mean in table.means
        if all((cell.row, cell.column) in left for cell in table.cells if covers(mean, cell))
    )
    differences = tuple(one for one in table.differences if {(one.of, one.column), (one.less, one.column)} <= left)
    return replace(table, cells=cells, means=means, also=(), differences=differences)


def covers(mean: Mean, cell: Cell) -> bool:
    """Whether the mean is over the cell, among others."""
    return mean.column == cell.column and fnmatch.fnmatchcase(cell.row, mean.rows)


def _folder():
    return resources("fastdd.reproduce") / "papers"


def _table(paper: str, name: str, table: _Table, of: _Paper) -> Table:
    def cell(row_name: str, column_name: str) -> Cell:
        row, column = table.rows[row_name], of.columns[column_name]
        dataset, _, rest = row_name.partition(":")
        figures = row.published.get(column.published_as or column_name, [None] * len(table.figures))
        ipc = row.ipc if row.ipc is not None or column.what == "train" else int(rest.partition(":")[0])
        return Cell(
            row_name,
            column_name,
            row.dataset or dataset,
            ipc,
            column.what,
            column.method,
            column.debias,
            table.nets,
            row.options,
            {**column.settings, **row.settings} if column.what in (None, "train") else {},
            {**column.evaluation, **row.evaluation},
            dict(zip(table.figures, figures, strict=True)),
            row.test_options,
            row.stand_in_options,
            column.networks,
            column.experts,
            column.weights,
            {**column.teacher, **row.teacher} if column.teacher else {},
        )

    cells = [cell(row, column) for row in table.rows for column in table.rows[row].columns or table.rows[row].published]
    also = [cell(row, column) for row in table.rows for column in table.also]
    means = [
        Mean(row, column, mean.rows, dict(zip(table.figures, figures, strict=True)))
        for row, mean in table.means.items()
        for column, figures in mean.published.items()
    ]
    differences = [
        Difference(row, column, one.of, one.less, dict(zip(table.figures, figures, strict=True)))
        for row, one in table.differences.items()
        for column, figures in one.published.items()
    ]
    return Table(
        paper,
        name,
        table.title,
        tuple(table.figures),
        tuple(cells),
        tuple(means),
        tuple(also),
        tuple(differences),
        of.repeats,
    )
