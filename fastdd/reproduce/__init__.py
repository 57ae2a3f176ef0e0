"""Tables of papers, run again: recipes, what is done and what is missing, ours beside the published figures."""

from fastdd.reproduce.amplification import bars
from fastdd.reproduce.budgets import BUDGETS
from fastdd.reproduce.comparison import Comparison, comparisons, csv_text, markdown, number
from fastdd.reproduce.recipes import Cell, Difference, Mean, Table, paper_names, read_paper, select
from fastdd.reproduce.work import Outcome, Workshop

__all__ = [
    "BUDGETS",
    "Cell",
    "Comparison",
    "Difference",
    "Mean",
    "Outcome",
    "Table",
    "Workshop",
    "bars",
    "comparisons",
    "csv_text",
    "markdown",
    "number",
    "paper_names",
    "read_paper",
    "select",
]
