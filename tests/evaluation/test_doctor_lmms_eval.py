"""The offline doctor on lmms-eval's samples: each planted failure is found, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from doctor_plants import healthy_rows, write_lmms
from lmms_plants import LMMS_PLANTS, Files

from adallava.evaluation.doctor import diagnose_run


@pytest.mark.parametrize("arguments", [True, False], ids=["model_args", "path"])
def test_a_healthy_lmms_eval_sweep_is_healthy(tmp_path: Path, arguments: bool) -> None:
    diagnosis = diagnose_run(write_lmms(tmp_path, healthy_rows(), arguments=arguments))
    assert diagnosis.healthy, diagnosis.findings
    assert diagnosis.summary.startswith("240 answers in 4 cells: model@")
    passed = {outcome.failure for outcome in diagnosis.outcomes if outcome.status == "passed" and outcome.failure}
    assert passed == {1, 2, 3, 4, 5, 7, 9}


@pytest.mark.parametrize(
    ("plant", "failure_number", "severity"), LMMS_PLANTS, ids=lambda v: getattr(v, "__name__", None)
)
def test_a_failure_planted_in_lmms_eval_samples_is_found_and_no_other(
    tmp_path: Path, plant: Callable[[Files], Files], failure_number: int, severity: str
) -> None:
    diagnosis = diagnose_run(write_lmms(tmp_path, plant(healthy_rows())))
    assert [outcome.failure for outcome in diagnosis.findings] == [failure_number], diagnosis.findings
    assert diagnosis.findings[0].severity == severity


def test_what_lmms_eval_does_not_record_is_not_called_healthy(tmp_path: Path) -> None:
    folder = write_lmms(tmp_path, {"0.5": healthy_rows(counts=False)["0.5"]})
    (file,) = folder.rglob("*_samples_*.jsonl")
    diagnosis = diagnose_run(file)
    assert diagnosis.healthy
    unseen = {outcome.failure for outcome in diagnosis.outcomes if outcome.status == "not-visible"}
    assert {3, 4, 5, 6, 7, 8, 9} <= unseen


def test_tasks_of_one_folder_are_not_compared(tmp_path: Path) -> None:
    folder = write_lmms(tmp_path, healthy_rows())
    for file in list(folder.rglob("*_samples_vqav2_val.jsonl")):
        lines = file.read_text().splitlines(keepends=True)
        file.with_name(file.name.replace("vqav2_val", "gqa")).write_text("".join(lines[:20]))
    assert diagnose_run(folder).healthy
