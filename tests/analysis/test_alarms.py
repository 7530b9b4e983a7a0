"""Runs whose accuracies say nothing of the methods say so first: planted in records, found in summary and doctor."""

from pathlib import Path

import numpy as np
import pytest
from doctor_plants import change, found, healthy_records, number_of, outcome_of, sum_up, write_run
from run_records import reader, sample_record

from adallava.analysis.clusters import Clusters
from adallava.analysis.find_alarms import alarm_of_floor
from adallava.analysis.majority import score_majority
from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.doctor import diagnose_run
from adallava.records import Results, SampleRecord
from adallava.records.alarms import raised
from adallava.records.cells import plan_cells
from adallava.tasks.scoring import exact_match, load_metric

SHAPES = ("cross", "no", "triangle")


def true_or_false(record: SampleRecord) -> dict[str, object]:
    """Labels that the model never writes: 0.0 % everywhere."""
    number = number_of(record)
    response = SHAPES[number % 3]
    return {"answers": [("true", "false")[number % 2]], "response": response, "score": 0.0, "kind": None}


def every(record: SampleRecord) -> bool:
    return True


def kinds(results: Results) -> dict[str, str]:
    return {alarm.kind: alarm.severity for alarm in results.alarms}


def test_a_healthy_run_raises_nothing_and_knows_its_majority_answer() -> None:
    results = sum_up(healthy_records())
    assert results.alarms == []
    assert results.majority is not None
    # Eight words take turns over 30 samples, so the most frequent of them is right on 4.
    assert (results.majority.accuracy.mean, results.majority.accuracy.n) == (pytest.approx(4 / 30), 30)


def test_responses_that_are_none_of_the_tasks_answers_are_said_first_with_their_count() -> None:
    results = sum_up(change(healthy_records(), every, true_or_false))
    assert kinds(results) == {
        "answers-outside-task": "alarm", "full-not-above-none": "alarm", "full-not-above-majority": "alarm",
    }  # fmt: skip
    first = results.alarms[0]
    assert (first.count, first.total) == (0, 510)
    assert first.message == (
        "none of 510 responses is one of the task's 2 answers ('false', 'true'), right or wrong; the most frequent: "
        "'cross' (170), 'no' (170), 'triangle' (170)"
    )
    assert results.majority.accuracy.mean == 0.5


def test_a_task_whose_answers_no_response_can_equal_is_said_though_none_is_known() -> None:
    results = sum_up(change(healthy_records(), every, lambda r: {"answers": ["+", ""], "response": "+", "score": 0.0}))
    first = results.alarms[0]
    assert (first.kind, first.severity, first.count, first.total) == ("answers-outside-task", "alarm", 0, 510)
    assert "the task's answers are only punctuation ('+')" in first.message


def test_a_few_responses_among_the_answers_do_not_hide_the_rest() -> None:
    records = change(healthy_records(), every, true_or_false)
    records = change(records, lambda r: number_of(r) == 0, lambda r: {"response": "true", "score": 1.0})
    alarm = sum_up(records).alarms[0]
    assert (alarm.kind, alarm.count, alarm.total) == ("answers-outside-task", 17, 510)
    assert "only 17 of 510 responses (3.3 %)" in alarm.message


def test_wrong_answers_of_the_task_are_no_alarm_of_that_kind() -> None:
    """All wrong, but of the task's own words: another word each time."""
    results = sum_up(change(healthy_records(), lambda r: r.score == 1.0, lambda r: {"response": "seven", "score": 0.0}))
    assert "answers-outside-task" not in kinds(results)
    assert "full-not-above-none" in kinds(results)


def test_three_samples_are_a_caution_and_no_alarm() -> None:
    ids = ["a", "b", "c"]
    records = [sample_record("full@1.0", i, answers=[i], response="x", score=0.0) for i in ids]
    results = summarise(plan_cells([], [TokenBudget(ratio=0.5)], ()), ids, reader(records), seed=0)
    assert set(kinds(results).values()) == {"caution"}
    assert not raised(results.alarms)


@pytest.mark.parametrize(
    ("full", "floor", "severity"),
    [
        ([1.0] * 60 + [0.0] * 40, [0.0] * 100, None),
        ([0.0] * 100, [1.0] * 10 + [0.0] * 90, "alarm"),
        ([1.0, 0.0] * 50, [1.0, 0.0] * 50, "alarm"),
        # Three of ten more: nobody could tell, and nobody could say that it is not above.
        ([1.0] * 3 + [0.0] * 7, [0.0] * 3 + [1.0] + [0.0] * 6, "caution"),
        # 30 up, 25 down of 2,000: not told apart, and by no more than a point.
        ([1.0] * 30 + [0.0] * 1970, [0.0] * 30 + [1.0] * 25 + [0.0] * 1945, "alarm"),
    ],
)
def test_not_above_is_said_where_the_samples_can_say_it(
    full: list[float], floor: list[float], severity: str | None
) -> None:
    alarm = alarm_of_floor(
        "full-not-above-none", np.array(full), np.array(floor), "none", 0, Clusters.distinct(len(full))
    )
    assert (alarm.severity if alarm else None) == severity


def test_each_question_type_has_its_own_most_frequent_answer() -> None:
    answers = {f"c{n}": ["2"] if n < 9 else ["3"] for n in range(12)} | {f"y{n}": ["yes"] for n in range(20)}
    kinds = {id_: "count" if id_[0] == "c" else "exists" for id_ in answers}
    scores = score_majority(answers, kinds, lambda id_, response: exact_match(response, answers[id_]))
    assert scores is not None
    assert (scores.answer, scores.answers_by_kind) == ("yes", {"count": "2", "exists": "yes"})
    assert (scores.overall.sum(), scores.by_kind.sum()) == (20, 29)


def test_ten_peoples_answers_are_scored_by_the_metric_itself() -> None:
    """'no' is said by more people, in lots too small to score; 'yes' scores 1 wherever four people say it."""
    metric = load_metric("vqa")
    answers = {f"a{n}": ["yes"] * 4 + ["no"] * 3 + ["maybe"] * 3 for n in range(6)}
    answers |= {f"b{n}": ["no"] * 2 + [f"x{n}{m}" for m in range(8)] for n in range(10)}
    scores = score_majority(answers, {}, lambda id_, response: metric(response, answers[id_]))
    assert scores is not None
    # yes: 6 * 1.0; no: 6 * 0.9 + 10 * 0.6.
    assert scores.answer == "no"
    assert scores.overall.sum() == pytest.approx(6 * 0.9 + 10 * 0.6)


def test_the_doctor_says_it_first_and_of_folders_that_know_no_alarms(tmp_path: Path) -> None:
    records = change(healthy_records(), every, true_or_false)
    old = sum_up(records).model_copy(update={"alarms": [], "majority": None})
    diagnosis = diagnose_run(write_run(tmp_path, records, old))
    assert found(diagnosis) == ["answers-outside-task", "full-not-above-none", "full-not-above-majority"]
    assert [outcome.check for outcome in diagnosis.outcomes[:3]] == found(diagnosis)
    assert "none of 510 responses" in outcome_of(diagnosis, "answers-outside-task").evidence[0]


def test_the_doctor_names_the_majority_answer_of_a_healthy_run(tmp_path: Path) -> None:
    diagnosis = diagnose_run(write_run(tmp_path, healthy_records()))
    assert diagnosis.healthy
    (_, line) = outcome_of(diagnosis, "full-not-above-majority").evidence
    # Each of three types has 20 samples and eight words by turns: the most frequent stands 3 times in each.
    assert line.endswith("is right on 6 of 30 (20.0 %)")
