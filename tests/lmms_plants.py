"""Failures planted into lines of lmms-eval's samples files, by budget: made-up lines and real ones alike."""

from collections.abc import Callable

from doctor_plants import LMMS_N, Row

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


def without_counts(files: Files) -> Files:
    """As a wrapper that reports no token counts leaves them."""
    return edit(files, ALL, lambda r: {"token_counts": [None]})


def lmms_empty_everywhere(files: Files) -> Files:
    return edit(without_counts(files), ALL, lambda r: NOTHING)


def lmms_tokens_without_text(files: Files) -> Files:
    return edit(files, ALL, lambda r: {**NOTHING, **with_counts(r, output_tokens=4)}, step=2)


def lmms_tails(files: Files) -> Files:
    return edit(without_counts(files), ALL, lambda r: {"filtered_resps": r["filtered_resps"][-3:]})


def lmms_same_prompt_length(files: Files) -> Files:
    return edit(files, ALL, lambda r: with_counts(r, input_tokens=30 + LMMS_N))


def lmms_lengths_fit_no_n(files: Files) -> Files:
    return edit(files, {"0.25"}, lambda r: with_counts(r, input_tokens=r["token_counts"][0]["input_tokens"] + 9))


def lmms_full_budget_empty(files: Files) -> Files:
    return edit(without_counts(files), {"1.0"}, lambda r: NOTHING)


def lmms_one_more(files: Files) -> Files:
    return edit(files, PRUNED, lambda r: with_counts(r, input_tokens=r["token_counts"][0]["input_tokens"] + 1))


def lmms_answered_twice(files: Files) -> Files:
    return {b: [*rows, {**rows[5], "filtered_resps": "other"}] for b, rows in files.items()}


def lmms_budget_in_no_cache_key(files: Files) -> Files:
    return dict.fromkeys(files, files["1.0"])


def lmms_same_answers_only(files: Files) -> Files:
    return dict.fromkeys(files, without_counts(files)["1.0"])


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


def without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def older_version(row: Row) -> Row:
    response = row["filtered_resps"]
    return without(row, "input") | {
        "arguments": [[row["input"], {"max_new_tokens": 16}]],
        "resps": [[response]],
        "filtered_resps": [response],
        "prompt_hash": "0",
        "target_hash": "0",
    }


LMMS_FORMS: dict[str, Callable[[Row], Row]] = {
    "one list": lambda r: r | {"filtered_resps": [r["filtered_resps"]]},
    "lists in lists": lambda r: r | {"filtered_resps": [[r["filtered_resps"]]], "resps": [[[r["filtered_resps"]]]]},
    "resps alone": lambda r: without(r, "filtered_resps") | {"resps": [[r["filtered_resps"]]]},
    "a filter behind the answer": lambda r: r | {"resps": r["filtered_resps"], "filtered_resps": "[invalid]"},
    "older version": older_version,
    "counts without a list": lambda r: r | {"token_counts": r["token_counts"][0]},
    "metric kept for its aggregation": lambda r: (
        without(r, "exact_match") | {"pope_accuracy": {"question_id": 1, "score": r["exact_match"]}}
    ),
    "ids of text": lambda r: r | {"doc_id": f"question-{r['doc_id']}"},
}
"""Other ways in which versions and tasks of lmms-eval write the same line."""
