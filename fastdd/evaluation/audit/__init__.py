"""What bias is in the data, in a synthetic set, and what distillation did to it."""

from fastdd.evaluation.audit.data_bias import condensed_ratio, data_bias
from fastdd.evaluation.audit.findings import (
    Audit,
    Augmented,
    Bound,
    ClassOfData,
    ClassOfSet,
    DataBias,
    Probe,
    SetBias,
)
from fastdd.evaluation.audit.information import mutual_information
from fastdd.evaluation.audit.set_bias import AuditSettings, audit, probe_groups

__all__ = [
    "Audit",
    "AuditSettings",
    "Augmented",
    "Bound",
    "ClassOfData",
    "ClassOfSet",
    "DataBias",
    "Probe",
    "SetBias",
    "audit",
    "condensed_ratio",
    "data_bias",
    "mutual_information",
    "probe_groups",
]
