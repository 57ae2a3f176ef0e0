"""What a person, or a program, sees of results: tables, JSON, pictures."""

from fastdd.report.experts import expert_rows, expert_summary, expert_table
from fastdd.report.explanations import draw_features, draw_saliency, explanation_row, explanation_table
from fastdd.report.pictures import preview, preview_dataset, preview_snapshots
from fastdd.report.results import (
    RESULT,
    document,
    figures,
    group_table,
    network_row,
    networks,
    notes,
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
    "draw_features",
    "draw_saliency",
    "expert_rows",
    "expert_summary",
    "expert_table",
    "explanation_row",
    "explanation_table",
    "figures",
    "group_table",
    "network_row",
    "networks",
    "notes",
    "plot_weights",
    "preview",
    "preview_dataset",
    "preview_snapshots",
    "read_json",
    "read_results",
    "result_row",
    "table",
    "weight_rows",
    "weight_summary",
    "weight_table",
    "write_json",
]
