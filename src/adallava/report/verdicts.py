"""What a run lets one say: who leads at a budget, who is ahead of whom, areas under the curves, times by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adallava.records import FULL_METHOD, Area, Axis, Cell, Comparison, Results, Timing
from adallava.records.estimates import Verdict
from adallava.report import formats
from adallava.report.axes import is_blind
from adallava.report.clock_notes import table_clock_note
from adallava.report.marks import Mark, mark_of, method_marks
from adallava.report.pair_words import Outcome, least_points, least_range, margin_points, outcome_of

AXIS_TITLES: dict[Axis, str] = {
    "tokens": "tokens, layer average",
    "flops": "FLOPs",
    "ms": "ms to first token",
}


_OUTCOMES: tuple[Outcome, ...] = ("ahead", "differs", "same", "open")


@dataclass(frozen=True)
class BudgetRow:
    """The cells at one budget: the one with the highest accuracy, and what the tests say of it and the others.

    "Ahead" is the word of a corrected paired test that was planned; `above` are significantly lower in a test that was
    not, `same_as` within the margin, `untested` never compared with the leader. `leader` is None if every cell at the
    budget is flagged, or no cell that is not has an accuracy above 0.
    """

    budget: str
    positions: str
    num_cells: int
    leader: Cell | None
    mark: Mark | None
    ahead_of: tuple[str, ...]
    above: tuple[str, ...]
    same_as: tuple[str, ...]
    not_told_from: tuple[str, ...]
    untested: tuple[str, ...]
    flagged: tuple[str, ...]
    equal: tuple[str, ...] = ()
    """Methods with the leader's very mean."""
    least: str = ""
    """What the tests of `not_told_from` could have shown."""
    nothing_right: bool = False
    """Of the cells that are not flagged."""


@dataclass(frozen=True)
class PairRow:
    """One tested pair in words, the higher mean first, and what may be said of it."""

    first: str
    second: str
    outcome: Outcome
    difference: str
    interval: str
    num_samples: int
    p_adjusted: str
    least: str
    """The least true difference that would have been found, in points."""
    margin: str
    """Within which two sides are called the same."""
    where: str = ""
    """For two methods at equal cost: the axis and the range of costs."""


@dataclass(frozen=True)
class AreaRow:
    """One method's areas, in the order of `AreaTable.axes`; a dash where it has none."""

    method: str
    positions: str
    mark: Mark
    values: tuple[tuple[str, str, str], ...]
    """Area in per cent, its interval, n."""


@dataclass(frozen=True)
class AreaTable:
    """Areas under the accuracy-cost curves; `heads` name the axis and the range of costs."""

    heads: tuple[tuple[str, str], ...]
    rows: tuple[AreaRow, ...]


@dataclass(frozen=True)
class TimingRow:
    """One cell's times, in the order of the batch sizes: (first token, spread, decode per token, peak MiB)."""

    cell: Cell
    mark: Mark
    values: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class TimingTable:
    """Times by batch size; `repeats` as `20` or `10 to 20`."""

    batch_sizes: tuple[int, ...]
    repeats: str
    rows: tuple[TimingRow, ...]


def budget_rows(results: Results) -> list[BudgetRow]:
    """Return one row a budget and position numbering, in the order of the cells in which every layer ran."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.cells:
        whole_llm = cell.scheduler is None and cell.method != FULL_METHOD
        if whole_llm and not is_blind(cell) and cell.accuracy is not None:
            groups.setdefault((cell.budget_asked, cell.positions), []).append(cell)
    marks = method_marks(cell.method for cell in results.cells)
    tested = {frozenset((pair.cell_a, pair.cell_b)): pair for pair in results.comparisons}
    return [_budget_row(*key, cells, tested, marks) for key, cells in groups.items()]


def pair_rows(results: Results) -> list[PairRow]:
    """Return every tested pair, what the page says of it first, in the order of the records otherwise."""
    return sorted(map(_pair_row, results.comparisons), key=_by_outcome)


def area_table(results: Results) -> AreaTable | None:
    """Return the areas, the largest over the first axis on top, or None if the run has none."""
    axes = [axis for axis in AXIS_TITLES if any(area.axis == axis for area in results.areas)]
    if not axes:
        return None
    by_method: dict[tuple[str, str], dict[Axis, Area]] = {}
    for area in results.areas:
        by_method.setdefault((area.method, area.positions), {})[area.axis] = area
    rows = [
        AreaRow(
            method,
            positions,
            mark_of(method),
            tuple(_area(areas.get(axis)) for axis in axes),
        )
        for (method, positions), areas in sorted(by_method.items(), key=lambda item: _rank(item[1].get(axes[0])))
    ]
    return AreaTable(tuple((AXIS_TITLES[axis], _cost_range(results.areas, axis)) for axis in axes), tuple(rows))


def area_pair_rows(results: Results) -> list[PairRow]:
    """Return every tested pair of methods at equal cost, what the page says of it first.

    Where milliseconds are not to be compared, no pair is ahead at equal milliseconds.
    """
    clock_fails = bool(table_clock_note(results.cells))
    rows = [
        _statement(
            f"{pair.method_a}{_suffix(pair.positions)}",
            f"{pair.method_b}{_suffix(pair.positions)}",
            pair,
            f"{AXIS_TITLES[pair.axis]}, {_span(pair.axis, pair.from_cost, pair.to_cost)}",
        )
        for pair in results.area_comparisons
        if not (clock_fails and pair.axis == "ms")
    ]
    return sorted(rows, key=_by_outcome)


def _by_outcome(row: PairRow) -> int:
    return _OUTCOMES.index(row.outcome)


def timing_table(results: Results) -> TimingTable | None:
    """Return the times by batch size, or None if the run was not timed."""
    timings = [timing for cell in results.cells for timing in cell.timings]
    if not timings:
        return None
    sizes = tuple(sorted({timing.batch_size for timing in timings}))
    repeats = sorted({timing.repeats for timing in timings})
    marks = method_marks(cell.method for cell in results.cells)
    rows = []
    for cell in results.cells:
        of_size = {timing.batch_size: timing for timing in cell.timings}
        if of_size:
            rows.append(TimingRow(cell, marks[cell.method], tuple(_timing(of_size.get(size)) for size in sizes)))
    ends = str(repeats[0]) if len(repeats) == 1 else f"{repeats[0]} to {repeats[-1]}"
    return TimingTable(sizes, ends, tuple(rows))


def _budget_row(
    budget: str,
    positions: str,
    cells: Sequence[Cell],
    tested: Mapping[frozenset[str], Comparison],
    marks: Mapping[str, Mark],
) -> BudgetRow:
    sound = [cell for cell in cells if not cell.flagged]
    flagged = tuple(cell.method for cell in cells if cell.flagged)
    if not sound:
        return BudgetRow(budget, positions, len(cells), None, None, (), (), (), (), (), flagged)
    leader = max(sound, key=_mean)
    if _mean(leader) <= 0.0:
        return BudgetRow(budget, positions, len(cells), None, None, (), (), (), (), (), flagged, nothing_right=True)
    others = [cell for cell in sound if cell is not leader]
    pairs = {cell.method: tested.get(frozenset((leader.cell, cell.cell))) for cell in others}

    def named(*wanted: Outcome) -> tuple[str, ...]:
        """Return the methods against whom the leader's test came out so."""
        return tuple(name for name, pair in pairs.items() if pair is not None and _led(pair, leader) in wanted)

    return BudgetRow(
        budget,
        positions,
        len(cells),
        leader,
        marks[leader.method],
        ahead_of=named("ahead"),
        above=named("differs"),
        same_as=named("same"),
        not_told_from=named("open"),
        untested=tuple(name for name, pair in pairs.items() if pair is None),
        flagged=flagged,
        equal=tuple(cell.method for cell in others if _mean(cell) == _mean(leader)),
        least=least_range(pair for pair in pairs.values() if pair is not None),
    )


def _mean(cell: Cell) -> float:
    return cell.accuracy.mean if cell.accuracy else -1.0


def _led(pair: Comparison, leader: Cell) -> Outcome:
    """Return what may be said of a pair from the leader's side: its test may be over fewer samples, and turn it."""
    lead = pair.difference.mean if pair.cell_a == leader.cell else -pair.difference.mean
    outcome = outcome_of(pair)
    return "open" if outcome in ("ahead", "differs") and lead <= 0 else outcome


def _suffix(positions: str) -> str:
    return "+compact" if positions == "compact" else ""


def _pair_row(pair: Comparison) -> PairRow:
    return _statement(pair.cell_a, pair.cell_b, pair)


def _statement(name_a: str, name_b: str, pair: Verdict, where: str = "") -> PairRow:
    turned = pair.difference.mean < 0
    difference = pair.difference
    if turned:
        difference = difference.model_copy(
            update={"mean": -difference.mean, "low": -difference.high, "high": -difference.low}
        )
    mean, interval = formats.difference(difference)
    first, second = (name_b, name_a) if turned else (name_a, name_b)
    return PairRow(
        first,
        second,
        outcome_of(pair),
        mean,
        interval,
        difference.n,
        formats.probability(pair.p_adjusted),
        least_points(pair),
        margin_points(pair),
        where,
    )


def _area(area: Area | None) -> tuple[str, str, str]:
    if area is None:
        return formats.DASH, "", ""
    return formats.percent(area.area.mean), formats.interval(area.area), formats.count(area.area.n)


def _rank(area: Area | None) -> float:
    return 1.0 if area is None else -area.area.mean


def _cost_range(areas: Sequence[Area], axis: Axis) -> str:
    ends = {(area.from_cost, area.to_cost) for area in areas if area.axis == axis}
    return _span(axis, min(end[0] for end in ends), max(end[1] for end in ends))


def _span(axis: Axis, low: float, high: float) -> str:
    scale = 1e9 if axis == "flops" else 1.0
    unit = {"tokens": "tokens", "flops": "GFLOPs", "ms": "ms"}[axis]
    return f"{formats.figures3(low / scale)} to {formats.figures3(high / scale)} {unit}"


def _timing(timing: Timing | None) -> tuple[str, str, str, str]:
    if timing is None:
        return formats.DASH, "", formats.DASH, formats.DASH
    first, decode = timing.part_ms.get("time_to_first_token"), timing.part_ms.get("decode_per_token")
    return (
        formats.figures3(first.median if first else None),
        f"{formats.figures3(first.low)} to {formats.figures3(first.high)}" if first else "",
        formats.figures3(decode.median if decode else None),
        formats.mebibytes(timing.peak_memory_bytes),
    )
