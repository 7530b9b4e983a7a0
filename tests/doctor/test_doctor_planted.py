"""The offline doctor: each planted failure is found, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from doctor_plants import healthy_records, write_run
from planted_failures import RUN_PLANTS, Records

from adallava.doctor import FILE_CHECKS, diagnose_run


@pytest.mark.parametrize(
    ("plant", "failure_number", "severity"), RUN_PLANTS, ids=lambda v: getattr(v, "__name__", None)
)
def test_a_failure_planted_in_a_run_is_found_and_no_other(
    tmp_path: Path, plant: Callable[[Records], Records], failure_number: int, severity: str
) -> None:
    diagnosis = diagnose_run(write_run(tmp_path, plant(healthy_records())))
    assert [outcome.failure for outcome in diagnosis.findings] == [failure_number], diagnosis.findings
    (finding,) = diagnosis.findings
    assert finding.severity == severity
    assert finding.evidence
    assert finding.remedy


def test_every_known_failure_has_a_check_and_a_plant() -> None:
    assert [check.failure for check in FILE_CHECKS if check.failure] == list(range(1, 10))
    assert {number for _, number, _ in RUN_PLANTS} == set(range(1, 10))
