"""What a person, or a program, sees of results: tables, JSON, pictures."""

from fastdd.report.experts import expert_rows, expert_summary, expert_table
from fastdd.report.pictures import preview, preview_dataset
from fastdd.report.results import (
    RESULT,
    document,
    figures,
    group_table,
    network_row,
    networks,
    notes,
    planned,
    read_json,
    read_results,
    result_row,
    table,
    write_json,
)
from fastdd.report.weights import plot_weights, weight_rows, weight_summary, weight_table

__all__ = [
    "RESULT",
    "document",
    "expert_rows",
    "expert_summary",
    "expert_table",
    "figures",
    "group_table",
    "network_row",
    "networks",
    "notes",
    "planned",
    "plot_weights",
    "preview",
    "preview_dataset",
    "read_json",
    "read_results",
    "result_row",
    "table",
    "weight_rows",
    "weight_summary",
    "weight_table",
    "write_json",
]
