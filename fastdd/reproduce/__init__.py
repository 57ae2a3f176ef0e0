"""Tables of papers, run again: recipes, what is done and what is missing, ours beside the published figures."""

from fastdd.reproduce.budgets import BUDGETS
from fastdd.reproduce.comparison import Comparison, comparisons, csv_text, markdown
from fastdd.reproduce.recipes import Cell, Mean, Table, paper_names, read_paper, select
from fastdd.reproduce.work import Outcome, Workshop

__all__ = [
    "BUDGETS",
    "Cell",
    "Comparison",
    "Mean",
    "Outcome",
    "Table",
    "Workshop",
    "comparisons",
    "csv_text",
    "markdown",
    "paper_names",
    "read_paper",
    "select",
]
