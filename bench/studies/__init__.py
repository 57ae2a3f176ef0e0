"""Studies: what settings do to results, as one picture each (``python -m fastdd.bench.studies.NAME``)."""
