"""Made-up answers of a healthy run in both formats, for the doctor's tests to plant failures in."""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from run_records import changed, reader

from adallava.analysis import statistics
from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.doctor import Diagnosis, Outcome
from adallava.records import Results, Run, SampleRecord
from adallava.records.cells import CellPlan

N = 64
NUM_SAMPLES = 30
LMMS_SAMPLES = 60
BATCH_SIZE = 4
WORDS = ("walking", "umbrella", "yellow", "triangle", "kitchen", "running", "purple", "seven")
BUDGETS = ("1.0", "0.5", "0.25", "16", "4")
METHODS = ("question", "random", "uniform")
CELLS = (("full", "1.0"), *((m, b) for m in METHODS for b in BUDGETS), ("none", "none"))


def healthy_records(num_samples: int = NUM_SAMPLES) -> list[SampleRecord]:
    """Every cell over the same samples; fewer tokens answer fewer questions; 0.25 and 16 are equal work."""
    return list(_healthy_records(num_samples))


@cache
def _healthy_records(num_samples: int) -> tuple[SampleRecord, ...]:
    records = []
    for method, budget in CELLS:
        kept = 0 if method == "none" else TokenBudget.parse(budget).resolve(N)
        for number in range(num_samples):
            records.append(_record(method, budget, kept, number))
    return tuple(records)


def _record(method: str, budget: str, kept: int, number: int) -> SampleRecord:
    target = WORDS[number % len(WORDS)]
    # What is answered belongs to the method, K and the sample: equal work gives equal answers.
    ran = "full" if kept == N else method
    luck = random.Random(f"{ran}/{kept}/{number}").random()
    right = luck < 0.35 + 0.6 * kept / N
    response = target if right else WORDS[(number + 1 + number % 5) % len(WORDS)]
    grid = range(0, N, N // kept) if kept else ()
    chosen = random.Random(f"{ran}/{kept}/{number}").sample(range(N), kept)
    return SampleRecord(
        cell=f"{method}@{budget}",
        sample_id=f"s{number:03d}",
        question=f"What is shown in picture {number}?",
        answers=[target],
        kind=("attribute", "reading", "counting")[number % 3],
        response=response,
        score=float(right),
        method=method,
        budget_asked=budget,
        num_vision_tokens=N,
        tokens_asked=kept,
        tokens_kept=kept,
        kept_indices=[sorted(grid if method == "uniform" else chosen)],
        chosen_per_sample=method not in ("uniform", "full"),
        prompt_length=20 + number % 7 + kept,
        answer_length=3,
        finish_reason="eos",
        engine="graphs",
        batch_ms=10.0 + number // BATCH_SIZE + kept / 1000,
        batch_size=BATCH_SIZE,
        part_ms={},
        flops={},
    )


def change(
    records: Iterable[SampleRecord],
    where: Callable[[SampleRecord], bool],
    update: Callable[[SampleRecord], dict[str, Any]],
) -> list[SampleRecord]:
    """Return the records with `update`'s fields in those that `where` picks."""
    return [changed(record, **update(record)) if where(record) else record for record in records]


def number_of(record: SampleRecord) -> int:
    return int(record.sample_id[1:])


def sum_up(records: Sequence[SampleRecord]) -> Results:
    plans = [CellPlan(m, None if b == "none" else TokenBudget.parse(b)) for m, b in CELLS]
    return sum_up_cells(plans, [f"s{number:03d}" for number in range(NUM_SAMPLES)], records)


def sum_up_cells(plans: Sequence[CellPlan], sample_ids: Sequence[str], records: Iterable[SampleRecord]) -> Results:
    """Return the summary, its intervals of fewer resamples: the doctor reads none of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 200)
        return summarise(plans, sample_ids, reader(records), seed=0)


def write_run(folder: Path, records: Sequence[SampleRecord], results: Results | None = None, **changes: Any) -> Path:
    """Write a run folder as a sweep does; the summary follows from the records unless another is given."""
    fields: dict[str, Any] = {
        "model": "tiny",
        "task": "scenes",
        "methods": [*METHODS, "none"],
        "token_budgets": list(BUDGETS),
        "limit": NUM_SAMPLES,
        "batch_size": BATCH_SIZE,
        "seed": 0,
        "max_new_tokens": 16,
        "dtype": "float32",
        "device": "cpu",
        "attn_implementation": "sdpa",
        "decoding": {"eos_token_ids": [2], "pad_token_id": 0},
    }
    provenance = {
        "adallava_version": "0.1.0",
        "versions": {},
        "git_commit": None,
        "git_dirty": None,
        "weights_sha256": "0" * 64,
        "adapter_sha256": {},
        "task_sha256": None,
        "hardware": {},
        "command": "adallava sweep",
        "started_at": "2026-01-01T00:00:00Z",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(Run(config=fields | changes, provenance=provenance).model_dump_json())
    (folder / "samples.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    (folder / "results.json").write_text((results or sum_up(records)).model_dump_json())
    return folder


Row = dict[str, Any]
LMMS_BUDGETS = ("1.0", "0.5", "0.25", "0.1")
LMMS_N = 576


def healthy_rows(*, counts: bool = True) -> dict[str, list[Row]]:
    """One list of lmms-eval samples lines a budget, with or without counted tokens."""
    files: dict[str, list[Row]] = {}
    for budget in LMMS_BUDGETS:
        kept = TokenBudget.parse(budget).resolve(LMMS_N)
        files[budget] = [_row(number, kept, counts) for number in range(LMMS_SAMPLES)]
    return files


def _row(number: int, kept: int, counts: bool) -> Row:
    target = WORDS[number % len(WORDS)]
    right = random.Random(f"{kept}/{number}").random() < 0.35 + 0.6 * kept / LMMS_N
    tokens = {"input_tokens": 30 + number % 7 + kept, "output_tokens": 3}
    return {
        "doc_id": number,
        "target": target,
        "filtered_resps": target if right else WORDS[(number + 1 + number % 5) % len(WORDS)],
        "token_counts": [tokens if counts else None],
        "doc_hash": "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b",
        "exact_match": float(right),
        "input": f"What is shown in picture {number}?\nAnswer the question using a single word or phrase.",
    }


def write_lmms(folder: Path, files: dict[str, list[Row]], *, arguments: bool = True) -> Path:
    """Write a folder a budget, as lmms-eval does; the budget is in `model_args`, or only in the path."""
    for number, (budget, rows) in enumerate(files.items()):
        name = f"run{number}" if arguments else f"budget_{budget}"
        model_args = f"pretrained=tiny,token_budget={budget}" if arguments else "pretrained=tiny"
        write_lmms_file(folder / name, model_args, rows)
    return folder


def write_lmms_file(folder: Path, model_args: str, rows: Iterable[Row], **options: Any) -> None:
    """Write one samples file and the results beside it, which name lmms-eval's own options, too."""
    model, date = folder / "adallava__tiny", "20260101_000000"
    model.mkdir(parents=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (model / f"{date}_samples_vqav2_val.jsonl").write_text(lines)
    config = {"model": "adallava", "model_args": model_args, "batch_size": "4", **options}
    (model / f"{date}_results.json").write_text(json.dumps({"results": {}, "config": config}))


def found(diagnosis: Diagnosis) -> list[str]:
    return [outcome.check for outcome in diagnosis.findings]


def outcome_of(diagnosis: Diagnosis, check: str) -> Outcome:
    (outcome,) = (outcome for outcome in diagnosis.outcomes if outcome.check == check)
    return outcome


def every_third(record: SampleRecord) -> bool:
    return number_of(record) % 3 == 0


def wrong(record: SampleRecord) -> dict[str, Any]:
    others = [word for word in WORDS if word not in record.answers]
    return {"response": others[number_of(record) % len(others)], "score": 0.0}
