"""Sample records to cells: everything in `results.json` is computed from `samples.jsonl` and `timings.jsonl` alone.

One cell's records are read, summed up and dropped before the next one's: those of all do not fit into memory.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.areas import find_curves, share_scores, sum_up_areas
from adallava.analysis.both_dials import sum_up_dials
from adallava.analysis.clusters import Clusters
from adallava.analysis.comparisons import compare
from adallava.analysis.find_alarms import NO_RESPONSES, ResponseTally, find_alarms, tally_records
from adallava.analysis.front import AXES, axis_costs, pareto_front
from adallava.analysis.hard_split import HardSamples
from adallava.analysis.layer_plans import count_plans
from adallava.analysis.majority import ResponseScorer, describe_majority
from adallava.analysis.margins import MARGIN
from adallava.analysis.questions import Questions
from adallava.analysis.scores import ScoreTable, tabulate_scores
from adallava.analysis.statistics import mean_interval, paired_difference
from adallava.records import (
    NONE_METHOD,
    PART_NAMES,
    Axis,
    Cell,
    Interval,
    Results,
    SampleRecord,
    SeenPictures,
    Spread,
    Timing,
    TimingRecord,
)
from adallava.records.answer_places import answer_key
from adallava.records.cells import FULL_CELL, CellPlan
from adallava.records.dials import CellPlans

MAX_EMPTY_SHARE = 0.01
"""A cell with a larger share of empty responses is flagged."""


@dataclass(frozen=True)
class SummedCell:
    """What is kept of a cell's answers.

    Attributes:
        cell: summed up, but for what needs images or other cells: accuracies, differences, hard split, fronts.
        scores: of the samples, [samples]; NaN where there is none.
        kinds: question types by sample id.
        pictures: hashes by sample id, of those that were read.
        plans: of the layers that ran; None for a cell that ran all.
        learned: whether its scheduler reads a latency token.
        answers: the right ones by sample id.
        told: its responses.
        responses: the same by sample id, of `none` alone.
        seen: by sample id, the share of its image that the model sees, where it is known.
    """

    cell: Cell
    scores: NDArray[np.float64]
    kinds: Mapping[str, str | None]
    pictures: Mapping[str, str | None]
    plans: CellPlans | None
    learned: bool
    answers: Mapping[str, Sequence[str]]
    told: ResponseTally
    responses: Mapping[str, str]
    seen: Mapping[str, float]


def summarise(
    plans: Sequence[CellPlan],
    sample_ids: Sequence[str],
    read_cell: Callable[[str], Sequence[SampleRecord]],
    seed: int,
    timings: Sequence[TimingRecord] = (),
    prefixes: Mapping[str, int] = MappingProxyType({}),
    margin: float = MARGIN,
    score: ResponseScorer | None = None,
) -> Results:
    """Sum up every planned cell, and compare them. The order of a cell's records does not matter.

    Args:
        plans: the cells, in order.
        sample_ids: the task's, in order.
        read_cell: returns a cell's records, one per sample and draw; called once for each.
        seed: of bootstrap, halvings and joint flips.
        timings: of the cells, if the run has them.
        prefixes: P of each scheduler, how many first layers always run.
        margin: within which accuracies are the same.
        score: of any response to a sample, by the run's metric; None for an exact match with its right answers.
    """
    place = {sample_id: number for number, sample_id in enumerate(sample_ids)}
    summed = []
    for plan in plans:
        records = sorted(read_cell(plan.cell), key=lambda record: (record.draw, place[record.sample_id]))
        summed.append(summarise_cell(plan, records, sample_ids, _timings_of(plan.cell, timings)))
    kinds: dict[str, str | None] = {}
    pictures: dict[str, str | None] = {}
    for one in summed:
        kinds |= one.kinds
        pictures |= one.pictures
    clusters = Clusters.by_picture(sample_ids, pictures)
    scores = ScoreTable(tuple(plan.cell for plan in plans), np.stack([one.scores for one in summed]), clusters)
    kind_of = _kinds(sample_ids, kinds)
    cells = [_with_accuracy(one.cell, scores, kind_of, seed) for one in summed]
    questions = Questions.of(sample_ids, kinds, [one.answers for one in summed], score)
    hard = questions.hard_samples(scores, {cell.cell: cell.tokens_kept for cell in cells}, _blind(summed), seed)
    if hard is not None:
        cells = [_with_hard(cell, scores, kind_of, hard) for cell in cells]
    curves, shared = find_curves(cells), share_scores(scores, seed)
    comparisons, area_comparisons = compare(cells, scores, curves, shared, seed, margin)
    majority, told = questions.majority(), sum((one.told for one in summed), NO_RESPONSES)
    learned = {one.cell.cell for one in summed if one.learned}
    cell_plans = [one.plans for one in summed if one.plans is not None]
    on_hard = None if hard is None else hard.hard
    return Results(
        cells=_with_fronts(cells, scores),
        num_pictures=clusters.num if len(pictures) == len(sample_ids) else None,
        comparisons=comparisons,
        areas=sum_up_areas(curves, shared) if shared.values.shape[1] else [],
        area_comparisons=area_comparisons,
        hard_split=None if hard is None else hard.split,
        dials=sum_up_dials(cells, cell_plans, learned, scores, shared, prefixes, seed),
        alarms=find_alarms(scores, told, questions.answers.values(), majority, seed),
        majority=None if majority is None else describe_majority(majority, kind_of, on_hard, clusters),
        seen=SeenPictures.of(_seen_of_any(summed)),
    )


def summarise_cell(
    plan: CellPlan,
    records: Sequence[SampleRecord],
    sample_ids: Sequence[str],
    timings: Sequence[Timing],
) -> SummedCell:
    """Sum up one cell, but for its accuracy. Means and medians are over answered samples; the failed ones are counted.

    Args:
        plan: which cell.
        records: its answers; at least one.
        sample_ids: the task's, in order.
        timings: of the cell.
    """
    scores = {answer_key(record): record.score for record in records}
    own = tabulate_scores([plan.cell], sample_ids, scores).row(plan.cell)
    # Only a learned scheduler reads a latency token.
    learned = any(record.ran.latency_tokens for record in records)
    blind = _answered(records) if plan.method == NONE_METHOD else []
    return SummedCell(
        cell=_cell(plan, records, timings, num_answered=int(np.isfinite(own).sum())),
        scores=own,
        kinds={record.sample_id: record.kind for record in records},
        pictures={record.sample_id: record.picture_sha256 for record in records if record.picture_sha256 is not None},
        plans=count_plans(plan.cell, records),
        learned=learned,
        answers={record.sample_id: record.answers for record in records},
        told=tally_records(records),
        responses={record.sample_id: record.response for record in blind},
        seen=_seen_shares(records),
    )


def _cell(plan: CellPlan, records: Sequence[SampleRecord], timings: Sequence[Timing], *, num_answered: int) -> Cell:
    """Return the cell of its answers, without any accuracy, where so many samples were answered in every draw."""
    answered = _answered(records)
    num_samples = len({record.sample_id for record in records})
    empties = Counter(record.empty_cause for record in records if record.empty_cause is not None)
    peaks = [record.peak_memory_bytes for record in answered if record.peak_memory_bytes is not None]
    reason = flag_reason(records)
    return Cell(
        cell=plan.cell,
        method=plan.curve,
        budget_asked=plan.budget_asked,
        positions=plan.positions,
        scheduler=plan.scheduler,
        latency_asked=plan.latency_asked,
        layer_share=_mean(answered, lambda record: record.ran.layer_share),
        kv_bytes=None if any(record.kv_bytes is None for record in answered) else _mean(answered, _kv_bytes),
        draws=plan.draws,
        num_samples=num_samples,
        num_failed=num_samples - num_answered,
        accuracy=None,
        accuracy_by_kind={},
        accuracy_hard=None,
        accuracy_hard_by_kind={},
        difference_to_full=None,
        empties=dict(sorted(empties.items())),
        empty_share=empties.total() / len(records),
        flagged=reason is not None,
        flag_reason=reason,
        num_vision_tokens=_mean(answered, lambda record: record.ran.num_vision_tokens),
        tokens_kept=_mean(answered, _tokens_kept),
        tokens_kept_layer_average=_mean(answered, lambda record: record.ran.tokens_kept_layer_average),
        prompt_length=_mean(answered, lambda record: record.ran.prompt_length),
        answer_length=_mean(answered, lambda record: record.ran.answer_length),
        flops=_mean_flops(answered),
        part_ms=_median_part_ms(answered),
        first_token_spread=_first_token_spread(answered),
        cpu_by_others=_cpu_by_others(answered),
        peak_memory_bytes=max(peaks, default=None),
        on_front=[],
        timings=list(timings),
    )


def _seen_shares(records: Sequence[SampleRecord]) -> dict[str, float]:
    shares = ((record.sample_id, record.seen_share) for record in records)
    return {sample_id: share for sample_id, share in shares if share is not None}


def _seen_of_any(cells: Sequence[SummedCell]) -> list[float]:
    """Return what is seen of each image, counted once whatever the number of cells."""
    shares: dict[str, float] = {}
    for one in cells:
        shares |= one.seen
    return list(shares.values())


def _with_accuracy(cell: Cell, scores: ScoreTable, kinds: NDArray[np.object_], seed: int) -> Cell:
    own, full = scores.row(cell.cell), scores.row(FULL_CELL)
    found: dict[str, object] = {"accuracy": _accuracy(scores, own), "accuracy_by_kind": _by_kind(scores, own, kinds)}
    both = np.isfinite(own) & np.isfinite(full)
    if cell.cell != FULL_CELL and both.any():
        clusters = scores.clusters_among(both)
        found["difference_to_full"] = paired_difference(own[both], full[both], seed, clusters=clusters)
    return cell.model_copy(update=found)


def _with_hard(cell: Cell, scores: ScoreTable, kinds: NDArray[np.object_], hard: HardSamples) -> Cell:
    if cell.cell in hard.defining:
        return cell
    on_hard = np.where(hard.hard, scores.row(cell.cell), np.nan)
    by_kind = _by_kind(scores, on_hard, kinds)
    return cell.model_copy(update={"accuracy_hard": _accuracy(scores, on_hard), "accuracy_hard_by_kind": by_kind})


def _blind(summed: Sequence[SummedCell]) -> dict[str, str]:
    """Return the responses of `none` by sample id."""
    return {sample_id: response for one in summed for sample_id, response in one.responses.items()}


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
            if len(costs) < len(placed):
                continue  # A front over some of the cells would name cells that others beat.
            front = pareto_front([costs[cell.cell] for cell in placed], means)
            for cell, is_on in zip(placed, front, strict=True):
                if is_on:
                    fronts[cell.cell].append(axis)
    return [cell.model_copy(update={"on_front": fronts[cell.cell]}) for cell in cells]


def _accuracy(table: ScoreTable, scores: NDArray[np.float64]) -> Interval | None:
    known = np.isfinite(scores)
    return mean_interval(scores[known], table.clusters_among(known)) if known.any() else None


def _by_kind(table: ScoreTable, scores: NDArray[np.float64], kinds: NDArray[np.object_]) -> dict[str, Interval]:
    by_kind = {}
    for kind in sorted({kind for kind in kinds if kind is not None}):
        accuracy = _accuracy(table, np.where(kinds == kind, scores, np.nan))
        if accuracy is not None:
            by_kind[kind] = accuracy
    return by_kind


def _kv_bytes(record: SampleRecord) -> float:
    return float(record.kv_bytes or 0)


def _tokens_kept(record: SampleRecord) -> float:
    return record.ran.tokens_kept


def _first_token_spread(answered: Sequence[SampleRecord]) -> Spread | None:
    ms = [sum(record.part_ms.values()) - record.part_ms.get("decode", 0.0) for record in answered if record.part_ms]
    if not ms:
        return None
    low, median, high = np.percentile(ms, (10, 50, 90))
    return Spread(median=float(median), low=float(low), high=float(high))


def _cpu_by_others(answered: Sequence[SampleRecord]) -> float | None:
    shares = [record.cpu_by_others for record in answered if record.cpu_by_others is not None]
    return float(np.mean(shares)) if shares else None


def _mean(records: Sequence[SampleRecord], value: Callable[[SampleRecord], float]) -> float:
    return float(np.mean([value(record) for record in records])) if records else 0.0


def _mean_flops(answered: Sequence[SampleRecord]) -> dict[str, float]:
    def mean_of(part: str) -> float:
        """Return the mean FLOPs of a part."""
        return _mean(answered, lambda record: record.flops.get(part, 0))

    means = {part: mean_of(part) for part in PART_NAMES if any(part in record.flops for record in answered)}
    return {**means, "total": sum(means.values())} if means else {}


def _median_part_ms(answered: Sequence[SampleRecord]) -> dict[str, float]:
    """Return the median ms of each part, in all and to the first token; nothing where no sample was answered."""
    if not answered:
        return {}

    def median(value: Callable[[Mapping[str, float]], float]) -> float:
        """Return the median of a sum of parts over samples, in ms."""
        return float(np.median([value(record.part_ms) for record in answered]))

    def median_of(part: str) -> float:
        """Return the median of one part, in ms."""
        return median(lambda part_ms: part_ms.get(part, 0.0))

    measured = [part for part in PART_NAMES if any(part in record.part_ms for record in answered)]
    return {
        **{part: median_of(part) for part in measured},
        "total": median(lambda part_ms: sum(part_ms.values())),
        "time_to_first_token": median(lambda part_ms: sum(part_ms.values()) - part_ms.get("decode", 0.0)),
    }
