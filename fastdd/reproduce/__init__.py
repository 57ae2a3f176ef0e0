"""Tables of papers, run again: recipes, what is done and what is missing, ours beside the published figures."""

from fastdd.reproduce.budgets import BUDGETS
from fastdd.reproduce.comparison import Comparison, Difference, comparisons, csv_text, differences, markdown
from fastdd.reproduce.recipes import Cell, Mean, Table, measured_elsewhere, paper_names, read_paper, select
from fastdd.reproduce.work import Outcome, Workshop, seeds_of

__all__ = [
    "BUDGETS",
    "Cell",
    "Comparison",
    "Difference",
    "Mean",
    "Outcome",
    "Table",
    "Workshop",
    "comparisons",
    "csv_text",
    "differences",
    "markdown",
    "measured_elsewhere",
    "paper_names",
    "read_paper",
    "seeds_of",
    "select",
]
