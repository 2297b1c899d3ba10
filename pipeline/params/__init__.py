"""`params.yaml` as frozen models: the only reader of the file, and the only place that says what it may hold."""

from pipeline.params.family import Family, Regularisers
from pipeline.params.fields import AUTO, registered
from pipeline.params.flow import Flow
from pipeline.params.gate import Gate
from pipeline.params.racing import Budget, Racing
from pipeline.params.reading import missing_sections, parse_params, read_params
from pipeline.params.sections import OWN_EXTRACTORS, PRETRAINED, Compute, Data, Fusion, Params, Splits, conflict
from pipeline.params.student import Choose, Student
from pipeline.params.warm import WarmStart

__all__ = [
    "AUTO",
    "OWN_EXTRACTORS",
    "PRETRAINED",
    "Budget",
    "Choose",
    "Compute",
    "Data",
    "Family",
    "Flow",
    "Fusion",
    "Gate",
    "Params",
    "Racing",
    "Regularisers",
    "Splits",
    "Student",
    "WarmStart",
    "conflict",
    "missing_sections",
    "parse_params",
    "read_params",
    "registered",
]
