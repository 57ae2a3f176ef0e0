"""What a person, or a program, sees of results: tables, JSON, pictures."""

from fastdd.report.pictures import preview
from fastdd.report.results import document, group_table, read_json, result_row, table, write_json

__all__ = ["document", "group_table", "preview", "read_json", "result_row", "table", "write_json"]
