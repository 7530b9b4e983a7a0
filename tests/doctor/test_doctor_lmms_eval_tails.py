"""The offline doctor on lmms-eval's samples: tails of answers, by the questions' words and by right answers."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from doctor_plants import Row, healthy_rows, write_lmms, write_lmms_file
from lmms_plants import Files

from adallava.doctor import diagnose_answers, diagnose_run, load_answers, with_targets
from adallava.errors import InputError
from adallava.tasks.scenes import scene_sample


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


def one_answer_rows(target: str, responses: list[str]) -> list[Row]:
    """A file whose lines all name one right answer."""
    rows = healthy_rows()["0.5"][: len(responses)]
    return [row | {"target": target, "filtered_resps": text} for row, text in zip(rows, responses, strict=True)]


@pytest.mark.parametrize(
    ("target", "responses", "targets"),
    [
        ("yes", ["yes"] * 15 + ["no"] * 5, ("yes",)),
        ("yes", [" Yes"] * 15 + ["no"] * 5, ("yes",)),
        ("umbrella", ["rella"] * 15 + ["no"] * 5, ("umbrella",)),
        ("3", ["4"] * 20, ("3",)),
        ("a dog", ["a cat"] * 20, ("a dog",)),
        ("['dog', 'hound']", ["cat"] * 20, ("dog", "hound")),
        ("answer", ["blue"] * 20, ()),
        # 'wer' is left of 'flower', and by chance of 'answer', too.
        ("answer", ["wer"] + ["lue"] * 19, ()),
    ],
)
def test_what_all_lines_name_is_the_right_answer_unless_it_names_a_column(
    tmp_path: Path, target: str, responses: list[str], targets: tuple[str, ...]
) -> None:
    write_lmms_file(tmp_path / "run", "pretrained=tiny", one_answer_rows(target, responses))
    (cell,) = load_answers(tmp_path).cells
    assert {answer.targets for answer in cell.answers} == {targets}


def test_tails_of_an_answer_that_is_right_in_all_of_a_slice_are_certain(tmp_path: Path) -> None:
    rows = one_answer_rows("umbrella", ["brella", "rella", "ella", "lla", "umbrella"] * 4)
    write_lmms_file(tmp_path / "run", "pretrained=tiny", rows)
    (finding,) = diagnose_run(tmp_path).findings
    assert (finding.check, finding.severity) == ("answers-cut", "harness-bug")


def test_right_answers_of_another_task_are_refused(tmp_path: Path) -> None:
    file = load_answers(write_lmms(tmp_path, healthy_rows()))
    with pytest.raises(InputError, match="holds no samples of task 'gqa', only of 'vqav2_val'"):
        with_targets(file, "gqa", {})
    with pytest.raises(InputError, match="task 'vqav2_val' has no sample '0'"):
        with_targets(file, "vqav2_val", {})
