"""What a person, or a program, sees of results: tables, JSON, pictures."""

from fastdd.report.audit import (
    AUDIT,
    LEGEND,
    audit_document,
    audit_lines,
    audit_summary,
    audit_tables,
    read_audit,
    set_digest,
)
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
    trained_networks,
    write_json,
)
from fastdd.report.weights import plot_weights, weight_rows, weight_summary, weight_table

__all__ = [
    "AUDIT",
    "LEGEND",
    "RESULT",
    "audit_document",
    "audit_lines",
    "audit_summary",
    "audit_tables",
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
    "read_audit",
    "read_json",
    "read_results",
    "result_row",
    "set_digest",
    "table",
    "trained_networks",
    "weight_rows",
    "weight_summary",
    "weight_table",
    "write_json",
]
