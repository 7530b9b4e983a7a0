"""Finds the known ways in which a token-budget evaluation lies, in result files or in a live model.

`diagnose_run` reads files and needs no torch; `adallava.doctor.live.checks` drives a model.
"""

from adallava.doctor.answers import Answer, AnswerCell, AnswerFile, with_targets
from adallava.doctor.findings import Diagnosis, Observation, Outcome, Severity, Status
from adallava.doctor.registry import FILE_CHECKS, FileCheck, diagnose_answers, diagnose_run, load_answers

__all__ = [
    "FILE_CHECKS",
    "Answer",
    "AnswerCell",
    "AnswerFile",
    "Diagnosis",
    "FileCheck",
    "Observation",
    "Outcome",
    "Severity",
    "Status",
    "diagnose_answers",
    "diagnose_run",
    "load_answers",
    "with_targets",
]
