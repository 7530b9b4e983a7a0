"""The offline doctor: a healthy run is called healthy, and what is found is told apart and named."""

from pathlib import Path

import pytest
from doctor_plants import (
    BATCH_SIZE,
    N,
    change,
    every_third,
    found,
    healthy_records,
    number_of,
    outcome_of,
    sum_up,
    write_run,
    wrong,
)
from planted_failures import EMPTY, Records, below_full, failure, first_token_eos

from adallava.doctor import diagnose_run
from adallava.errors import InputError, RunFolderError


def test_a_healthy_run_is_healthy(tmp_path: Path) -> None:
    diagnosis = diagnose_run(write_run(tmp_path, healthy_records()))
    assert diagnosis.healthy, diagnosis.findings
    # In a finished run with batches nothing is out of sight: healthy means looked at.
    assert {outcome.status for outcome in diagnosis.outcomes} == {"passed"}


@pytest.mark.parametrize(("frame", "status"), [((0.0, 0.0, 1.0, 1.0), "passed"), ((0.375, 0.0, 0.625, 1.0), "found")])
def test_pictures_that_were_cut_are_found_where_the_folder_says_so(
    frame: tuple[float, ...], status: str, tmp_path: Path
) -> None:
    records = change(healthy_records(), lambda r: number_of(r) < 3, lambda r: {"frames": [frame]})
    diagnosis = diagnose_run(write_run(tmp_path, records))
    (outcome,) = [outcome for outcome in diagnosis.outcomes if outcome.check == "pictures-cut"]
    assert outcome.status == status
    assert diagnosis.healthy == (status == "passed")
    if status == "found":
        assert outcome.evidence[0].startswith("3 of 3 images are cut, the worst to 25 %")
        assert outcome.examples == ("s000", "s001", "s002")


def test_the_engines_that_ran_are_said(tmp_path: Path) -> None:
    records = change(healthy_records(), lambda r: r.cell.startswith("random@0.5"), lambda r: {"engine": "stock"})
    told = outcome_of(diagnose_run(write_run(tmp_path / "mixed", records)), "engines-recorded")
    assert told.status == "passed"
    assert told.evidence[1].startswith("stock: random@0.5. Their milliseconds are not comparable")
    older = change(healthy_records(), lambda r: True, lambda r: {"engine": None})
    assert outcome_of(diagnose_run(write_run(tmp_path / "older", older)), "engines-recorded").status == "not-visible"


def inside_the_llm(records: Records) -> Records:
    """As if `random` had dropped its tokens inside the LLM: all of them enter, K are left."""
    return change(
        records,
        lambda r: r.ran.method == "random",
        lambda r: {
            "tokens_kept": N,
            "tokens_kept_by_layer": [N, N, r.ran.tokens_kept, r.ran.tokens_kept],
            "prompt_length": r.ran.prompt_length + N - r.ran.tokens_kept,
        },
    )


def test_a_method_inside_the_llm_is_not_misread(tmp_path: Path) -> None:
    diagnosis = diagnose_run(write_run(tmp_path, inside_the_llm(healthy_records())))
    assert diagnosis.healthy, diagnosis.findings
    assert {outcome.status for outcome in diagnosis.outcomes} == {"passed"}


def test_a_method_inside_the_llm_that_ends_with_another_count_is_found(tmp_path: Path) -> None:
    records = change(
        inside_the_llm(healthy_records()),
        lambda r: r.cell == "random@0.5",
        lambda r: {"tokens_kept_by_layer": [N] * 4},
    )
    diagnosis = diagnose_run(write_run(tmp_path, records))
    assert [outcome.failure for outcome in diagnosis.findings] == [7]
    assert "asked for K = 32 and kept 64" in "".join(diagnosis.findings[0].evidence)


def test_k_rounded_down_as_the_method_said_is_healthy_and_otherwise_is_not(tmp_path: Path) -> None:
    rounded = change(
        healthy_records(),
        below_full,
        lambda r: {
            "tokens_planned": r.ran.tokens_kept - 1,
            "tokens_kept": r.ran.tokens_kept - 1,
            "prompt_length": r.ran.prompt_length - 1,
            "kept_indices": [(r.ran.kept_indices or [[]])[0][1:]],
        },
    )
    assert diagnose_run(write_run(tmp_path / "rounded", rounded)).healthy
    planned = change(rounded, below_full, lambda r: {"tokens_planned": r.ran.tokens_asked})
    found = [outcome.failure for outcome in diagnose_run(write_run(tmp_path / "planned", planned)).findings]
    assert 7 in found


def test_evidence_names_cell_count_and_samples(tmp_path: Path) -> None:
    finding = diagnose_run(write_run(tmp_path, first_token_eos(healthy_records()))).findings[0]
    assert "question@0.5: 10 of 30 (33.3 %) empty" in finding.evidence[0]
    assert finding.examples[0] == "s000 in question@0.5"
    assert "full@1.0" in finding.evidence[-1]


def test_first_token_eos_in_every_cell_may_be_the_harness(tmp_path: Path) -> None:
    eos = {**EMPTY, "empty_cause": "first-token-eos", "answer_length": 1}
    records = change(healthy_records(), every_third, lambda r: eos)
    diagnosis = diagnose_run(write_run(tmp_path, records))
    assert found(diagnosis) == ["first-token-eos"]
    assert diagnosis.findings[0].severity == "cannot-tell"


def test_a_rare_first_token_eos_is_no_finding(tmp_path: Path) -> None:
    eos = {**EMPTY, "empty_cause": "first-token-eos", "answer_length": 1}
    # 1 of 30 would be above one percent.
    rare = change(healthy_records(120), lambda r: r.cell == "question@0.5" and number_of(r) == 7, lambda r: eos)
    (tmp_path / "samples.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in rare))
    assert diagnose_run(tmp_path).healthy


def test_an_unflagged_summary_over_empties_is_failure_1(tmp_path: Path) -> None:
    records = first_token_eos(healthy_records())
    results = sum_up(records)
    cells = [cell.model_copy(update={"flagged": False, "flag_reason": None}) for cell in results.cells]
    diagnosis = diagnose_run(write_run(tmp_path, records, results.model_copy(update={"cells": cells})))
    assert found(diagnosis) == ["empty-answers-scored", "first-token-eos"]


def test_blank_answers_are_told_apart(tmp_path: Path) -> None:
    blank = {**EMPTY, "empty_cause": "whitespace-only", "answer_length": 4}
    records = change(healthy_records(), lambda r: below_full(r) and every_third(r), lambda r: blank)
    assert found(diagnose_run(write_run(tmp_path, records))) == ["blank-answers"]


def test_question_types_that_alternate_with_the_batch_are_no_batch_dependence(tmp_path: Path) -> None:
    """An easy type in every last place: accuracy follows the place, and nothing is broken."""
    hard, easy = ("hard", "easy")
    records = [
        record.model_copy(update={"kind": easy if number_of(record) % BATCH_SIZE == BATCH_SIZE - 1 else hard})
        for record in healthy_records()
    ]
    records = change(records, lambda r: r.kind == easy, lambda r: {"response": r.answers[0], "score": 1.0})
    records = change(records, lambda r: r.kind == hard and number_of(r) % 5 != 0, wrong)
    assert diagnose_run(write_run(tmp_path, records)).healthy


def test_one_set_of_patches_for_all_samples(tmp_path: Path) -> None:
    records = change(healthy_records(), lambda r: r.cell == "question@4", lambda r: {"kept_indices": [[3, 9, 20, 41]]})
    assert found(diagnose_run(write_run(tmp_path, records))) == ["selection-ignores-input"]


def test_a_grid_may_be_the_same_for_all_samples(tmp_path: Path) -> None:
    assert all(r.ran.kept_indices == ((0, 16, 32, 48),) for r in healthy_records() if r.cell == "uniform@4")
    assert diagnose_run(write_run(tmp_path, healthy_records())).healthy


def test_a_corrupt_image_is_a_failed_sample_and_nothing_else(tmp_path: Path) -> None:
    message = "UnidentifiedImageError: cannot identify image file"
    records = change(healthy_records(), lambda r: r.sample_id == "s007", lambda r: failure(message))
    diagnosis = diagnose_run(write_run(tmp_path, records))
    assert found(diagnosis) == ["failed-samples"]
    assert "UnidentifiedImageError" in "".join(diagnosis.findings[0].evidence)


@pytest.mark.parametrize("damage", ["missing", "doubled", "no-cell"])
def test_missing_and_doubled_samples(tmp_path: Path, damage: str) -> None:
    records = healthy_records()
    results = sum_up(records)
    victim = next(record for record in records if record.cell == "question@4")
    damaged = {
        "missing": [record for record in records if record is not victim],
        "doubled": [*records, victim],
        "no-cell": [record for record in records if record.cell != "none@none"],
    }[damage]
    diagnosis = diagnose_run(write_run(tmp_path, damaged, results))
    assert "samples-incomplete" in found(diagnosis)
    assert not any(outcome.failure for outcome in diagnosis.findings)


def test_a_killed_run_is_read_up_to_its_torn_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path, healthy_records())
    (folder / "results.json").unlink()
    whole = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(whole[:-40])
    diagnosis = diagnose_run(folder)
    assert found(diagnosis) == ["samples-incomplete"]
    assert any("torn" in line for line in diagnosis.findings[0].evidence)
    assert outcome_of(diagnosis, "summary-mismatch").status == "not-visible"


def test_a_summary_that_does_not_follow(tmp_path: Path) -> None:
    records = healthy_records()
    results = sum_up(records)
    first = results.cells[0]
    assert first.accuracy is not None
    better = first.model_copy(update={"accuracy": first.accuracy.model_copy(update={"mean": 0.999})})
    results = results.model_copy(update={"cells": [better, *results.cells[1:]]})
    assert found(diagnose_run(write_run(tmp_path, records, results))) == ["summary-mismatch"]


def test_batches_of_one_cannot_show_batch_dependence(tmp_path: Path) -> None:
    records = change(healthy_records(), lambda r: True, lambda r: {"batch_size": 1, "batch_ms": 1.0 + number_of(r)})
    diagnosis = diagnose_run(write_run(tmp_path, records))
    assert diagnosis.healthy
    assert outcome_of(diagnosis, "batch-dependence").status == "not-visible"


# --- what cannot be read ---


def test_unreadable_input_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        diagnose_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds neither"):
        diagnose_run(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="not a JSONL file"):
        diagnose_run(tmp_path / "notes.txt")
    (tmp_path / "other.jsonl").write_text('{"text": 1}\n')
    with pytest.raises(InputError, match="neither"):
        diagnose_run(tmp_path / "other.jsonl")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, healthy_records())
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join([lines[0], "{}\n", *lines[1:]]))
    with pytest.raises(RunFolderError, match=r"line 2 of .*samples\.jsonl is not .* Remove that line"):
        diagnose_run(folder)


def test_of_a_run_without_an_answer_nothing_is_claimed(tmp_path: Path) -> None:
    failed = change(healthy_records(), lambda r: True, lambda r: {"error": "the picture cannot be read"})
    diagnosis = diagnose_run(write_run(tmp_path, failed))
    for check in ("engines-recorded", "batch-dependence", "budget-not-applied", "full-budget-differs"):
        outcome = outcome_of(diagnosis, check)
        assert outcome.status == "not-visible"
        assert "no sample was answered" in outcome.evidence[0]
    # Of these, failures show all there is; the rest say nothing of answers that are not there.
    passed = {outcome.check for outcome in diagnosis.outcomes if outcome.status == "passed"}
    assert passed <= {"devices-mixed", "samples-incomplete", "summary-mismatch", "decoding-unrecorded"}
