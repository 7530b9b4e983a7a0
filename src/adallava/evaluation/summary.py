"""Sample records to cells: everything in `results.json` is computed from `samples.jsonl` alone."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from adallava.records import PART_NAMES, Cell, Interval, PairedDifference, Results, SampleRecord

from .plan import FULL_CELL, CellPlan
from .statistics import mean_interval, paired_difference

MAX_EMPTY_SHARE = 0.01
"""A cell with a larger share of empty responses is flagged."""


def summarise(
    plans: Sequence[CellPlan], sample_ids: Sequence[str], records: Sequence[SampleRecord], seed: int
) -> Results:
    """Sum up every planned cell. The order of `records` does not matter.

    Args:
        plans: the cells, in order.
        sample_ids: the task's, in order.
        records: one per cell and sample.
        seed: of the bootstrap.
    """
    place = {sample_id: number for number, sample_id in enumerate(sample_ids)}
    by_cell: dict[str, list[SampleRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: place[record.sample_id]):
        by_cell[record.cell].append(record)
    full = by_cell[FULL_CELL]
    return Results(cells=[summarise_cell(plan, by_cell[plan.cell], full, seed) for plan in plans])


def summarise_cell(plan: CellPlan, records: Sequence[SampleRecord], full: Sequence[SampleRecord], seed: int) -> Cell:
    """Sum up one cell. Means and medians are over its answered samples; the failed ones are counted.

    Args:
        plan: which cell.
        records: its samples; at least one.
        full: the same samples answered by the full-token model.
        seed: of the bootstrap.
    """
    answered = [record for record in records if record.score is not None]
    empties = Counter(record.empty_cause for record in records if record.empty_cause is not None)
    peaks = [record.peak_memory_bytes for record in answered if record.peak_memory_bytes is not None]
    reason = flag_reason(records)
    return Cell(
        cell=plan.cell,
        method=plan.method,
        budget_asked=plan.budget_asked,
        num_samples=len(records),
        num_failed=len(records) - len(answered),
        accuracy=mean_interval(_scores(answered), seed) if answered else None,
        accuracy_by_kind=_by_kind(answered, seed),
        difference_to_full=None if plan.cell == FULL_CELL else _difference(answered, full, seed),
        empties=dict(sorted(empties.items())),
        empty_share=empties.total() / len(records),
        flagged=reason is not None,
        flag_reason=reason,
        num_vision_tokens=_mean(answered, lambda record: record.num_vision_tokens),
        tokens_kept=_mean(answered, lambda record: record.tokens_kept),
        tokens_kept_layer_average=_mean(answered, lambda record: record.tokens_kept_layer_average),
        prompt_length=_mean(answered, lambda record: record.prompt_length),
        answer_length=_mean(answered, lambda record: record.answer_length),
        flops=_mean_flops(answered),
        part_ms=_median_part_ms(answered),
        peak_memory_bytes=max(peaks, default=None),
    )


def flag_reason(records: Sequence[SampleRecord]) -> str | None:
    """Say why a cell's score is not to be trusted, with causes and counts; None if there is no reason to."""
    failed = [record for record in records if record.score is None]
    causes = Counter(r.empty_cause for r in records if r.empty_cause not in (None, "error"))
    reasons = []
    if failed:
        reasons.append(f"{len(failed)} of {len(records)} samples failed, the first with {failed[0].error}")
    if causes.total() > MAX_EMPTY_SHARE * len(records):
        named = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        reasons.append(f"{causes.total()} of {len(records)} responses are empty: {named}")
    return "; ".join(reasons) or None


def _scores(records: Sequence[SampleRecord]) -> list[float]:
    return [record.score for record in records if record.score is not None]


def _by_kind(answered: Sequence[SampleRecord], seed: int) -> dict[str, Interval]:
    scores: dict[str, list[float]] = defaultdict(list)
    for record in answered:
        if record.kind is not None and record.score is not None:
            scores[record.kind].append(record.score)
    return {kind: mean_interval(scores[kind], seed) for kind in sorted(scores)}


def _difference(answered: Sequence[SampleRecord], full: Sequence[SampleRecord], seed: int) -> PairedDifference | None:
    full_score = {record.sample_id: record.score for record in full if record.score is not None}
    both = [record for record in answered if record.sample_id in full_score]
    if not both:
        return None
    return paired_difference(_scores(both), [full_score[record.sample_id] for record in both], seed)


def _mean(records: Sequence[SampleRecord], value: Callable[[SampleRecord], float]) -> float:
    return float(np.mean([value(record) for record in records])) if records else 0.0


def _mean_flops(answered: Sequence[SampleRecord]) -> dict[str, float]:
    def mean_of(part: str) -> float:
        return _mean(answered, lambda record: record.flops.get(part, 0))

    means = {part: mean_of(part) for part in PART_NAMES if any(part in record.flops for record in answered)}
    return {**means, "total": sum(means.values())}


def _median_part_ms(answered: Sequence[SampleRecord]) -> dict[str, float]:
    def median(value: Callable[[Mapping[str, float]], float]) -> float:
        return float(np.median([value(record.part_ms) for record in answered])) if answered else 0.0

    def median_of(part: str) -> float:
        return median(lambda part_ms: part_ms.get(part, 0.0))

    measured = [part for part in PART_NAMES if any(part in record.part_ms for record in answered)]
    return {
        **{part: median_of(part) for part in measured},
        "total": median(lambda part_ms: sum(part_ms.values())),
        "time_to_first_token": median(lambda part_ms: sum(part_ms.values()) - part_ms.get("decode", 0.0)),
    }
