"""Studies of memory and time (``python -m fastdd.bench.studies.NAME``); those of results are :mod:`fastdd.studies`."""
