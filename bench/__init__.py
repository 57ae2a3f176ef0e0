"""Benchmark cases, baselines and result schema (installed as ``fastdd.bench``)."""
