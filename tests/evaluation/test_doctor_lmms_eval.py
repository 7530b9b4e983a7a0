"""The offline doctor on lmms-eval's samples: each planted failure is found, and nothing else is."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from doctor_plants import healthy_rows, write_lmms
from lmms_plants import LMMS_PLANTS, Files

from adallava.errors import InputError
from adallava.evaluation.doctor import diagnose_answers, diagnose_run, load_answers, with_targets
from adallava.tasks.scenes import scene_sample


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


@cache
def scene_questions() -> list[Any]:
    """Sixty of the bundled task, a third of them about colours and shapes: other answers are short, or numbers."""
    questions = [scene_sample("test", index)[1] for index in range(200)]
    named = [question for question in questions if question.kind == "attribute"][:20]
    return named + [question for question in questions if question.kind != "attribute"][:40]


def vqav2_rows(*, cut: int = 0) -> Files:
    """Lines that name no right answer, as VQAv2's; three of four are right."""
    questions = scene_questions()
    files = healthy_rows()
    for rows in files.values():
        for row, question in zip(rows, questions, strict=True):
            answer = question.answer if row["doc_id"] % 4 else questions[row["doc_id"] - 1].answer
            row |= {"target": "answer", "input": question.text, "filtered_resps": answer[-cut:]}
    # Cells of a sweep differ: the same answers everywhere are another failure.
    files["0.1"][0]["filtered_resps"] = files["0.25"][1]["filtered_resps"] = "no"
    files["0.5"][2]["filtered_resps"] = "no"
    return files


def test_tails_are_seen_by_the_questions_words_where_no_right_answer_is_named(tmp_path: Path) -> None:
    assert diagnose_run(write_lmms(tmp_path / "healthy", vqav2_rows())).healthy
    (finding,) = diagnose_run(write_lmms(tmp_path / "cut", vqav2_rows(cut=3))).findings
    assert (finding.check, finding.severity) == ("answers-cut", "cannot-tell")
    assert "'lue' for 'blue'" in " ".join(finding.evidence)
    assert "--task lmms:<task>" in finding.evidence[-1]


def test_with_the_right_answers_tails_are_certain_and_whole_answers_are_none(tmp_path: Path) -> None:
    targets = {str(number): (question.answer, "don't know") for number, question in enumerate(scene_questions())}
    for cut in (0, 3):
        file = load_answers(write_lmms(tmp_path / str(cut), vqav2_rows(cut=cut)))
        (outcome,) = (
            one for one in diagnose_answers(with_targets(file, "vqav2_val", targets)).outcomes if one.failure == 2
        )
        assert (outcome.status, outcome.severity) == (("found", "harness-bug") if cut else ("passed", None))
    # 'plane' is no tail of 'airplane' where people said either.
    both = {number: (*answers, f"x{answers[0][-3:]}", answers[0][-3:]) for number, answers in targets.items()}
    assert not diagnose_answers(with_targets(file, "vqav2_val", both)).findings


def test_right_answers_of_another_task_are_refused(tmp_path: Path) -> None:
    file = load_answers(write_lmms(tmp_path, healthy_rows()))
    with pytest.raises(InputError, match="holds no samples of task 'gqa', only of 'vqav2_val'"):
        with_targets(file, "gqa", {})
    with pytest.raises(InputError, match="task 'vqav2_val' has no sample '0'"):
        with_targets(file, "vqav2_val", {})


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
