"""Sample records to cells: everything in `results.json` is computed from `samples.jsonl` and `timings.jsonl` alone.

One cell's records are read, summed up and dropped before the next one's: those of all do not fit into memory.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from adallava.dials import CellPlans
from adallava.records import (
    PART_NAMES,
    Axis,
    Cell,
    Interval,
    PairedDifference,
    Results,
    SampleRecord,
    SeenPictures,
    Timing,
    TimingRecord,
)

from .answer_places import answer_key
from .areas import find_curves, share_scores, sum_up_areas
from .comparisons import compare
from .dials import sum_up_dials
from .front import AXES, axis_costs, pareto_front
from .hard_split import HardSamples, split_hard
from .layer_plans import count_plans
from .plan import FULL_CELL, CellPlan
from .scores import ScoreTable, tabulate_scores
from .statistics import mean_interval, paired_difference

MAX_EMPTY_SHARE = 0.01
"""A cell with a larger share of empty responses is flagged."""


@dataclass(frozen=True)
class SummedCell:
    """What is kept of a cell's answers.

    Attributes:
        cell: summed up, but for what needs the other cells: differences, hard split, fronts.
        scores: of the samples, [samples]; NaN where there is none.
        kinds: question types by sample id.
        plans: of the layers that ran; None for a cell that ran all.
        learned: whether its scheduler reads a latency token.
        seen: by sample id, the share of its picture that the model sees, where it is known.
    """

    cell: Cell
    scores: NDArray[np.float64]
    kinds: Mapping[str, str | None]
    plans: CellPlans | None
    learned: bool
    seen: Mapping[str, float]


def summarise(
    plans: Sequence[CellPlan],
    sample_ids: Sequence[str],
    read_cell: Callable[[str], Sequence[SampleRecord]],
    seed: int,
    timings: Sequence[TimingRecord] = (),
    prefixes: Mapping[str, int] = MappingProxyType({}),
) -> Results:
    """Sum up every planned cell, and compare them. The order of a cell's records does not matter.

    Args:
        plans: the cells, in order.
        sample_ids: the task's, in order.
        read_cell: returns a cell's records, one per sample and draw; called once for each.
        seed: of the bootstrap.
        timings: of the cells, if the run has them.
        prefixes: P of each scheduler, how many first layers always run.
    """
    place = {sample_id: number for number, sample_id in enumerate(sample_ids)}
    summed = []
    for plan in plans:
        records = sorted(read_cell(plan.cell), key=lambda record: (record.draw, place[record.sample_id]))
        summed.append(summarise_cell(plan, records, sample_ids, _timings_of(plan.cell, timings), seed))
    scores = ScoreTable(tuple(plan.cell for plan in plans), np.stack([one.scores for one in summed]))
    kinds: dict[str, str | None] = {}
    for one in summed:
        kinds |= one.kinds
    cells = [_compared_to_full(one.cell, scores, seed) for one in summed]
    hard = split_hard(scores, {cell.cell: cell.tokens_kept for cell in cells})
    if hard is not None:
        cells = [_with_hard(cell, scores, _kinds(sample_ids, kinds), hard, seed) for cell in cells]
    curves, shared = find_curves(cells), share_scores(scores, seed)
    comparisons, area_comparisons = compare(cells, scores, curves, shared, seed)
    learned = {one.cell.cell for one in summed if one.learned}
    cell_plans = [one.plans for one in summed if one.plans is not None]
    return Results(
        cells=_with_fronts(cells, scores),
        comparisons=comparisons,
        areas=sum_up_areas(curves, shared, seed) if shared.values.shape[1] else [],
        area_comparisons=area_comparisons,
        hard_split=None if hard is None else hard.split,
        dials=sum_up_dials(cells, cell_plans, learned, scores, shared, prefixes, seed),
        seen=SeenPictures.of(_seen_of_any(summed)),
    )


def summarise_cell(
    plan: CellPlan,
    records: Sequence[SampleRecord],
    sample_ids: Sequence[str],
    timings: Sequence[Timing],
    seed: int,
) -> SummedCell:
    """Sum up one cell. Means and medians are over its answered samples; the failed ones are counted.

    Args:
        plan: which cell.
        records: its answers; at least one.
        sample_ids: the task's, in order.
        timings: of the cell.
        seed: of the bootstrap.
    """
    answered = _answered(records)
    scores = {answer_key(record): record.score for record in records}
    own = tabulate_scores([plan.cell], sample_ids, scores).row(plan.cell)
    kinds = {record.sample_id: record.kind for record in records}
    num_samples = len(kinds)
    empties = Counter(record.empty_cause for record in records if record.empty_cause is not None)
    peaks = [record.peak_memory_bytes for record in answered if record.peak_memory_bytes is not None]
    reason = flag_reason(records)
    cell = Cell(
        cell=plan.cell,
        method=plan.curve,
        budget_asked=plan.budget_asked,
        positions=plan.positions,
        scheduler=plan.scheduler,
        latency_asked=plan.latency_asked,
        layer_share=_mean(answered, lambda record: record.layer_share),
        kv_bytes=None if any(record.kv_bytes is None for record in answered) else _mean(answered, _kv_bytes),
        draws=plan.draws,
        num_samples=num_samples,
        num_failed=num_samples - int(np.isfinite(own).sum()),
        accuracy=_accuracy(own, seed),
        accuracy_by_kind=_by_kind(own, _kinds(sample_ids, kinds), seed),
        difference_to_full=None,
        empties=dict(sorted(empties.items())),
        empty_share=empties.total() / len(records),
        flagged=reason is not None,
        flag_reason=reason,
        num_vision_tokens=_mean(answered, lambda record: record.num_vision_tokens),
        tokens_kept=_mean(answered, _tokens_kept),
        tokens_kept_layer_average=_mean(answered, lambda record: record.tokens_kept_layer_average),
        prompt_length=_mean(answered, lambda record: record.prompt_length),
        answer_length=_mean(answered, lambda record: record.answer_length),
        flops=_mean_flops(answered),
        part_ms=_median_part_ms(answered),
        peak_memory_bytes=max(peaks, default=None),
        timings=list(timings),
    )
    # Only a learned scheduler reads a latency token.
    learned = any(record.latency_tokens for record in records)
    return SummedCell(cell, own, kinds, count_plans(plan.cell, records), learned, _seen_shares(records))


def _seen_shares(records: Sequence[SampleRecord]) -> dict[str, float]:
    shares = ((record.sample_id, record.seen_share) for record in records)
    return {sample_id: share for sample_id, share in shares if share is not None}


def _seen_of_any(cells: Sequence[SummedCell]) -> list[float]:
    """Return what is seen of each picture, counted once whatever the number of cells."""
    shares: dict[str, float] = {}
    for one in cells:
        shares |= one.seen
    return list(shares.values())


def _compared_to_full(cell: Cell, scores: ScoreTable, seed: int) -> Cell:
    if cell.cell == FULL_CELL:
        return cell
    difference = _difference(scores.row(cell.cell), scores.row(FULL_CELL), seed)
    return cell.model_copy(update={"difference_to_full": difference})


def _with_hard(cell: Cell, scores: ScoreTable, kinds: NDArray[np.object_], hard: HardSamples, seed: int) -> Cell:
    if cell.cell in hard.defining:
        return cell
    on_hard = np.where(hard.hard, scores.row(cell.cell), np.nan)
    by_kind = _by_kind(on_hard, kinds, seed)
    return cell.model_copy(update={"accuracy_hard": _accuracy(on_hard, seed), "accuracy_hard_by_kind": by_kind})


def flag_reason(records: Sequence[SampleRecord]) -> str | None:
    """Say why a cell's score is not to be trusted, with causes and counts; None if there is no reason to."""
    failed = {record.sample_id: record for record in reversed(records) if record.score is None}
    causes = Counter(r.empty_cause for r in records if r.empty_cause not in (None, "error"))
    reasons = []
    if failed:
        num_samples = len({record.sample_id for record in records})
        first = list(failed.values())[-1]
        reasons.append(f"{len(failed)} of {num_samples} samples failed, the first with {first.error}")
    if causes.total() > MAX_EMPTY_SHARE * len(records):
        named = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        reasons.append(f"{causes.total()} of {len(records)} responses are empty: {named}")
    return "; ".join(reasons) or None


def _answered(records: Sequence[SampleRecord]) -> list[SampleRecord]:
    """Leave out samples that failed in any draw, as the score table does."""
    failed = {record.sample_id for record in records if record.score is None}
    return [record for record in records if record.sample_id not in failed]


def _kinds(sample_ids: Sequence[str], known: Mapping[str, str | None]) -> NDArray[np.object_]:
    return np.array([known.get(sample_id) for sample_id in sample_ids], dtype=object)


def _timings_of(cell: str, timings: Sequence[TimingRecord]) -> list[Timing]:
    own = [record.timing for record in timings if record.cell == cell and record.timing is not None]
    return sorted(own, key=lambda timing: timing.batch_size)


def _with_fronts(cells: Sequence[Cell], scores: ScoreTable) -> list[Cell]:
    """Mark the cells on each axis' front, by accuracy over the samples that all cells answered."""
    shared = scores.shared()
    placed = [cell for cell in cells if cell.accuracy is not None]
    fronts: dict[str, list[Axis]] = {cell.cell: [] for cell in cells}
    if shared.any():
        means = [float(scores.row(cell.cell)[shared].mean()) for cell in placed]
        for axis in AXES:
            costs = axis_costs(placed, axis)
            front = pareto_front([costs[cell.cell] for cell in placed], means)
            for cell, is_on in zip(placed, front, strict=True):
                if is_on:
                    fronts[cell.cell].append(axis)
    return [cell.model_copy(update={"on_front": fronts[cell.cell]}) for cell in cells]


def _accuracy(scores: NDArray[np.float64], seed: int) -> Interval | None:
    known = scores[np.isfinite(scores)]
    return mean_interval(known, seed) if len(known) else None


def _by_kind(scores: NDArray[np.float64], kinds: NDArray[np.object_], seed: int) -> dict[str, Interval]:
    by_kind = {}
    for kind in sorted({kind for kind in kinds if kind is not None}):
        accuracy = _accuracy(scores[kinds == kind], seed)
        if accuracy is not None:
            by_kind[kind] = accuracy
    return by_kind


def _difference(scores: NDArray[np.float64], full: NDArray[np.float64], seed: int) -> PairedDifference | None:
    both = np.isfinite(scores) & np.isfinite(full)
    return paired_difference(scores[both], full[both], seed) if both.any() else None


def _kv_bytes(record: SampleRecord) -> float:
    return float(record.kv_bytes or 0)


def _tokens_kept(record: SampleRecord) -> float:
    return record.tokens_kept


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
