"""A made-up run of both dials. Nothing here was measured: who is right follows from a rule that a test can restate."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from run_records import reader, run, sample_record

from adallava.analysis.summary import summarise
from adallava.budget import Latency, TokenBudget
from adallava.records import Results, SampleRecord, Spread, Timing, TimingRecord
from adallava.records.cells import CellPlan, plan_cells

NUM_TOKENS, NUM_LAYERS, NUM_SAMPLES = 16, 8, 60
LATENCIES = (Latency.parse("1.0"), Latency.parse("0.75"), Latency.parse("0.5"))
BUDGETS = (TokenBudget(count=8), TokenBudget(count=4))
SCHEDULERS = ("layers", "fixed", "random", "spaced")
KINDS = ("counting", "reading")
PREFIXES = dict.fromkeys(SCHEDULERS, 4)
BEST_PLAN = {"counting": (4, 6), "reading": (5, 7)}
"""What the made-up learned scheduler picks at 0.75, by question type."""


def dial_plans(schedulers: Sequence[str] = SCHEDULERS) -> tuple[CellPlan, ...]:
    return plan_cells(
        ["uniform"], BUDGETS, drawing={"/random"}, draws=2, schedulers=schedulers, latencies=LATENCIES
    )  # fmt: skip


def sample_ids() -> list[str]:
    return [f"s{number}" for number in range(NUM_SAMPLES)]


def dial_records(plans: Sequence[CellPlan]) -> list[SampleRecord]:
    return [
        _record(plan, number, draw) for plan in plans for draw in range(plan.draws) for number in range(NUM_SAMPLES)
    ]


def dial_results(plans: Sequence[CellPlan] | None = None, batch_sizes: Sequence[int] = (1, 8)) -> Results:
    return _results(dial_plans() if plans is None else tuple(plans), tuple(batch_sizes)).model_copy(deep=True)


@cache
def _results(plans: tuple[CellPlan, ...], batch_sizes: tuple[int, ...]) -> Results:
    timings = [_timing(plan, size) for plan in plans for size in batch_sizes]
    return summarise(plans, sample_ids(), reader(dial_records(plans)), seed=0, timings=timings, prefixes=PREFIXES)


def write_dial_run(folder: Path) -> Path:
    """Write `run.json`, `samples.jsonl` and `results.json`, and return the folder."""
    plans = dial_plans()
    config = {
        "methods": ["uniform"],
        "token_budgets": [str(budget) for budget in BUDGETS],
        "schedulers": list(SCHEDULERS),
        "latencies": [str(latency) for latency in LATENCIES],
        "limit": NUM_SAMPLES,
        "timing_batch_sizes": [1, 8],
    }
    (folder / "run.json").write_text(run(config).model_dump_json())
    (folder / "results.json").write_text(dial_results().model_dump_json())
    with (folder / "samples.jsonl").open("w") as file:
        for record in dial_records(plans):
            file.write(json.dumps(record.model_dump()) + "\n")
    return folder


def plan_of(plan: CellPlan, number: int, draw: int = 0) -> list[list[int]] | None:
    """Return the layers that run: the first four, and at 0.75 two more."""
    if plan.scheduler is None:
        return None
    kind = KINDS[number % 2]
    two = {
        "layers": BEST_PLAN[kind],
        "fixed": BEST_PLAN["counting"],
        "random": [(4, 5), (4, 6), (5, 6), (6, 7)][(number + draw) % 4],
        "spaced": (5, 7),
    }[plan.scheduler]
    more = two if plan.latency_asked == "0.75" else ()
    return [[0] if layer < 4 or layer in more else [] for layer in range(NUM_LAYERS)]


@cache
def _record(plan: CellPlan, number: int, draw: int) -> SampleRecord:
    kept = NUM_TOKENS if plan.budget is None or plan.budget.count is None else plan.budget.count
    groups, kind = plan_of(plan, number, draw), KINDS[number % 2]
    share = 1.0 if groups is None else sum(map(len, groups)) / NUM_LAYERS
    more = [] if groups is None else [layer for layer in range(4, NUM_LAYERS) if groups[layer]]
    # The best plan of a question type is as good as the whole LLM; other plans lose 30 points, the prefix alone 40.
    lost = 0.0 if groups is None or tuple(more) == BEST_PLAN[kind] else 0.3 if more else 0.4
    difficulty = float(np.random.default_rng([7, number]).random())
    score = float(difficulty < 0.98 - lost - 0.1 * np.log2(NUM_TOKENS / kept))
    learned = plan.scheduler == "layers"
    return sample_record(
        plan.cell,
        f"s{number}",
        draw=draw,
        kind=kind,
        question=f"{kind} {number}?",
        answers=[str(number)],
        response=str(number if score else number + 1),
        score=score,
        method=plan.method,
        budget_asked=plan.budget_asked,
        num_vision_tokens=NUM_TOKENS,
        tokens_asked=kept,
        tokens_kept=kept,
        scheduler=plan.scheduler,
        latency_asked=plan.latency_asked,
        groups_run=groups,
        latency_tokens=int(learned),
        prompt_length=kept + 14 + learned,
        kv_bytes=int(1000 * share),
        flops={"vision": 10, "prefill": int(1000 * share * (kept + 14)), "decode": 10},
        part_ms={"vision": 1.0, "prefill": share * (kept + 14) / 4, "decode": 1.0},
    )


def _timing(plan: CellPlan, batch_size: int) -> TimingRecord:
    record = _record(plan, 0, 0)
    first = batch_size**0.5 * (1.0 + record.part_ms["prefill"])
    part_ms = {"time_to_first_token": Spread(median=first, low=0.9 * first, high=1.1 * first)}
    timing = Timing(batch_size=batch_size, repeats=10, part_ms=part_ms, peak_memory_bytes=None)
    return TimingRecord(cell=plan.cell, batch_size=batch_size, timing=timing)
