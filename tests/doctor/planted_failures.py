"""Each known failure, planted in the records of a healthy run."""

from collections.abc import Callable
from typing import Any

from doctor_plants import BATCH_SIZE, N, change, every_third, number_of, wrong

from adallava.records import SampleRecord

Records = list[SampleRecord]
EMPTY: dict[str, Any] = {"response": "", "score": 0.0}


def below_full(record: SampleRecord) -> bool:
    return record.ran.method == "question" and record.ran.tokens_kept < N


def empties_without_a_cause(records: Records) -> Records:
    return change(records, lambda r: below_full(r) and every_third(r), lambda r: {**EMPTY, "answer_length": 1})


def new_tokens_without_text(records: Records) -> Records:
    """Every cell, as in the experiment where `seq_len` was 2 and `prompt_len` 353."""
    return change(records, every_third, lambda r: {**EMPTY, "empty_cause": "no-new-tokens", "answer_length": 2})


def eos_claimed_of_a_long_answer(records: Records) -> Records:
    return change(
        records,
        lambda r: below_full(r) and every_third(r),
        lambda r: {**EMPTY, "empty_cause": "first-token-eos", "answer_length": 5},
    )


def tails_of_answers(records: Records) -> Records:
    return change(records, lambda r: r.score == 1.0, lambda r: {"response": r.response[-3:], "score": 0.0})


def prompt_not_cut_off(records: Records) -> Records:
    return change(records, below_full, lambda r: {"response": f"{r.question} {r.response}", "score": 0.0})


def all_placeholders_stay(records: Records) -> Records:
    return change(records, below_full, lambda r: {"prompt_length": r.ran.prompt_length + N - r.ran.tokens_kept})


def features_do_not_match(records: Records) -> Records:
    message = "ValueError: Image features and image tokens do not match, tokens: 64, features: 16"
    return change(records, lambda r: r.cell == "question@16", lambda r: failure(message))


def failure(message: str) -> dict[str, Any]:
    fields = (
        "num_vision_tokens",
        "tokens_asked",
        "tokens_kept",
        "prompt_length",
        "answer_length",
        "batch_size",
    )
    return {
        **dict.fromkeys(fields, 0),
        **{"response": "", "score": None, "finish_reason": "error", "empty_cause": "error", "error": message},
        **{"kept_indices": None, "batch_ms": 0.0},
    }


def full_cell_is_empty(records: Records) -> Records:
    return change(
        records,
        lambda r: r.cell == "full@1.0",
        lambda r: {**EMPTY, "empty_cause": "no-new-tokens", "answer_length": 0},
    )


def full_budget_answers_otherwise(records: Records) -> Records:
    return change(records, lambda r: r.cell == "random@1.0" and every_third(r), lambda r: {"response": "other"})


def one_token_more(records: Records) -> Records:
    return change(records, below_full, lambda r: {"prompt_length": r.ran.prompt_length + 1})


def sizes_one_apart(records: Records) -> Records:
    message = "RuntimeError: The size of tensor a (353) must match the size of tensor b (354) at dimension 1"
    return change(records, lambda r: r.cell == "question@4", lambda r: failure(message))


def only_the_last_row_is_right(records: Records) -> Records:
    last = BATCH_SIZE - 1
    records = change(
        records, lambda r: r.cell == "question@0.5" and number_of(r) % BATCH_SIZE != last, lambda r: wrong(r)
    )
    return change(
        records,
        lambda r: r.cell == "question@0.5" and number_of(r) % BATCH_SIZE == last,
        lambda r: {"response": r.answers[0], "score": 1.0},
    )


def first_rows_indices_for_all(records: Records) -> Records:
    first = {(r.cell, number_of(r)): r.ran.kept_indices for r in records}
    return change(
        records,
        below_full,
        lambda r: {"kept_indices": first[r.cell, number_of(r) - number_of(r) % BATCH_SIZE]},
    )


def equal_work_answered_twice(records: Records) -> Records:
    """0.25 of 64 tokens and 16 of them are the same request."""
    return change(records, lambda r: r.cell == "question@16" and every_third(r), lambda r: {"response": "other"})


def budget_never_arrives(records: Records) -> Records:
    full = {r.sample_id: r.model_dump() for r in records if r.cell == "full@1.0"}
    same = ("tokens_kept", "prompt_length", "kept_indices", "response", "score")
    return change(records, below_full, lambda r: {name: full[r.sample_id][name] for name in same})


def full_model_under_another_name(records: Records) -> Records:
    """The record says K, yet prompts are as long as the full model's and answers are its answers."""
    full = {r.sample_id: r for r in records if r.cell == "full@1.0"}
    return change(
        records,
        below_full,
        lambda r: {
            "prompt_length": full[r.sample_id].ran.prompt_length,
            "response": full[r.sample_id].response,
            "score": full[r.sample_id].score,
        },
    )


def one_token_too_few(records: Records) -> Records:
    return change(
        records,
        below_full,
        lambda r: {
            "tokens_kept": r.ran.tokens_kept - 1,
            "prompt_length": r.ran.prompt_length - 1,
            "kept_indices": [(r.ran.kept_indices or [[]])[0][1:]],
        },
    )


def budget_misread(records: Records) -> Records:
    """Asked for a quarter, and everything consistently kept a half."""
    half = {r.sample_id: r.model_dump() for r in records if r.cell == "random@0.5"}
    same = ("tokens_asked", "tokens_planned", "tokens_kept", "prompt_length", "kept_indices", "response", "score")
    return change(
        records,
        lambda r: r.cell == "random@0.25",
        lambda r: {name: half[r.sample_id][name] for name in same},
    )


def another_method_ran(records: Records) -> Records:
    return change(records, below_full, lambda r: {"method": "random"})


def another_methods_patches(records: Records) -> Records:
    grid = {(r.sample_id, r.ran.budget_asked): r.ran.kept_indices for r in records if r.ran.method == "uniform"}
    return change(
        records,
        below_full,
        lambda r: {"kept_indices": grid[r.sample_id, r.ran.budget_asked]},
    )


def two_devices(records: Records) -> Records:
    message = (
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, "
        "cuda:0 and cuda:1!"
    )
    return change(records, lambda r: r.cell == "question@0.5", lambda r: failure(message))


def first_token_eos(records: Records) -> Records:
    return change(
        records,
        lambda r: r.cell == "question@0.5" and every_third(r),
        lambda r: {**EMPTY, "empty_cause": "first-token-eos", "answer_length": 1},
    )


RUN_PLANTS: list[tuple[Callable[[Records], Records], int, str]] = [
    (empties_without_a_cause, 1, "harness-bug"),
    (new_tokens_without_text, 2, "harness-bug"),
    (eos_claimed_of_a_long_answer, 2, "harness-bug"),
    (tails_of_answers, 2, "harness-bug"),
    (prompt_not_cut_off, 2, "harness-bug"),
    (all_placeholders_stay, 3, "harness-bug"),
    (features_do_not_match, 3, "harness-bug"),
    (full_cell_is_empty, 4, "harness-bug"),
    (full_budget_answers_otherwise, 4, "harness-bug"),
    (one_token_more, 5, "harness-bug"),
    (sizes_one_apart, 5, "harness-bug"),
    (only_the_last_row_is_right, 6, "harness-bug"),
    (first_rows_indices_for_all, 6, "harness-bug"),
    (equal_work_answered_twice, 6, "harness-bug"),
    (budget_never_arrives, 7, "harness-bug"),
    (full_model_under_another_name, 7, "harness-bug"),
    (one_token_too_few, 7, "harness-bug"),
    (budget_misread, 7, "harness-bug"),
    (another_method_ran, 7, "harness-bug"),
    (another_methods_patches, 7, "harness-bug"),
    (two_devices, 8, "harness-bug"),
    (first_token_eos, 9, "model-finding"),
]
