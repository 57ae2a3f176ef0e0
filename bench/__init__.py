"""Benchmarks: fastdd beside the structure of published code, in one process, with a correctness column.

``python -m fastdd.bench`` prints per-step times; a row gets a ratio only if its result matches. Installed as
``fastdd.bench``.
"""
