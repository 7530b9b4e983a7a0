"""The offline doctor on lmms-eval's samples: each planted failure is found, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from doctor_plants import (
    LMMS_N,
    Row,
    healthy_rows,
    write_lmms,
)

from adallava.evaluation.doctor import diagnose_run

Files = dict[str, list[Row]]


def edit(files: Files, budgets: set[str], update: Callable[[Row], Row], step: int = 1) -> Files:
    return {
        budget: [{**row, **update(row)} if budget in budgets and row["doc_id"] % step == 0 else row for row in rows]
        for budget, rows in files.items()
    }


ALL = {"1.0", "0.5", "0.25", "0.1"}
PRUNED = ALL - {"1.0"}
NOTHING: Row = {"filtered_resps": "", "exact_match": 0.0}


def with_counts(row: Row, **counts: int) -> Row:
    return {"token_counts": [{**row["token_counts"][0], **counts}]}


def lmms_empty_everywhere(_: Files) -> Files:
    return edit(healthy_rows(counts=False), ALL, lambda r: NOTHING)


def lmms_tokens_without_text(files: Files) -> Files:
    return edit(files, ALL, lambda r: {**NOTHING, **with_counts(r, output_tokens=4)}, step=2)


def lmms_tails(_: Files) -> Files:
    return edit(healthy_rows(counts=False), ALL, lambda r: {"filtered_resps": r["filtered_resps"][-3:]})


def lmms_same_prompt_length(files: Files) -> Files:
    return edit(files, ALL, lambda r: with_counts(r, input_tokens=30 + LMMS_N))


def lmms_lengths_fit_no_n(files: Files) -> Files:
    return edit(files, {"0.25"}, lambda r: with_counts(r, input_tokens=r["token_counts"][0]["input_tokens"] + 9))


def lmms_full_budget_empty(_: Files) -> Files:
    return edit(healthy_rows(counts=False), {"1.0"}, lambda r: NOTHING)


def lmms_one_more(files: Files) -> Files:
    return edit(files, PRUNED, lambda r: with_counts(r, input_tokens=r["token_counts"][0]["input_tokens"] + 1))


def lmms_answered_twice(files: Files) -> Files:
    return {b: [*rows, {**rows[5], "filtered_resps": "other"}] for b, rows in files.items()}


def lmms_budget_in_no_cache_key(files: Files) -> Files:
    return dict.fromkeys(files, files["1.0"])


def lmms_same_answers_only(_: Files) -> Files:
    return dict.fromkeys(ALL, healthy_rows(counts=False)["1.0"])


def lmms_error_as_answer(files: Files) -> Files:
    message = "Error: Expected all tensors to be on the same device, but found at least two devices"
    return edit(files, {"0.5"}, lambda r: {"filtered_resps": message, "exact_match": 0.0})


def lmms_lone_eos(files: Files) -> Files:
    return edit(files, {"0.25"}, lambda r: {**NOTHING, **with_counts(r, output_tokens=1)}, step=3)


LMMS_PLANTS: list[tuple[Callable[[Files], Files], int, str]] = [
    (lmms_empty_everywhere, 1, "cannot-tell"),
    (lmms_tokens_without_text, 2, "harness-bug"),
    (lmms_tails, 2, "harness-bug"),
    (lmms_same_prompt_length, 3, "cannot-tell"),
    (lmms_lengths_fit_no_n, 3, "harness-bug"),
    (lmms_full_budget_empty, 4, "cannot-tell"),
    (lmms_one_more, 5, "harness-bug"),
    (lmms_answered_twice, 6, "harness-bug"),
    (lmms_budget_in_no_cache_key, 7, "harness-bug"),
    (lmms_same_answers_only, 7, "cannot-tell"),
    (lmms_error_as_answer, 8, "harness-bug"),
    (lmms_lone_eos, 9, "model-finding"),
]


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
