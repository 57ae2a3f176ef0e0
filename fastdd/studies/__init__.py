"""What settings do to results: a study a file, each with rows of figures and one picture of them.

``fastdd study NAME`` runs one; its folder keeps every row as soon as it is there, and a study that was stopped goes on.
"""

from fastdd.studies import density, kde, severity
from fastdd.studies.kept import KeptRows, Work

STUDIES = {"kde": kde, "severity": severity, "density": density}

__all__ = ["STUDIES", "KeptRows", "Work", "density", "kde", "severity"]
