"""Tables of papers, run again: recipes, what is done and what is missing, ours beside the published figures."""

from fastdd.reproduce.amplification import bars
from fastdd.reproduce.budgets import BUDGETS
from fastdd.reproduce.comparison import (
    Comparison,
    PairedDifference,
    comparisons,
    csv_text,
    markdown,
    number,
    paired_differences,
)
from fastdd.reproduce.recipes import Cell, Difference, Mean, Table, measured_elsewhere, paper_names, read_paper, select
from fastdd.reproduce.work import Outcome, Workshop, seeds_of

__all__ = [
    "BUDGETS",
    "Cell",
    "Comparison",
    "Difference",
    "Mean",
    "Outcome",
    "PairedDifference",
    "Table",
    "Workshop",
    "bars",
    "comparisons",
    "csv_text",
    "markdown",
    "measured_elsewhere",
    "number",
    "paired_differences",
    "paper_names",
    "read_paper",
    "seeds_of",
    "select",
]
