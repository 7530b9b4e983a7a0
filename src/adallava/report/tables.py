"""The page's tables as rows of text, ready for the template."""

from dataclasses import dataclass

from adallava.analysis.measured_ms import cell_ms
from adallava.records import FULL_METHOD, PART_NAMES, Cell, Interval, Results
from adallava.report import formats
from adallava.report.axes import has_flops
from adallava.report.marks import Mark, method_marks
from adallava.report.roofline_ms import Roofline, cell_roofline_ms


@dataclass(frozen=True)
class CellRow:
    """One cell in words. `gflops` and `part_ms` follow `part_columns`, the total first; without FLOPs it is empty."""

    cell: Cell
    mark: Mark
    first_of_method: bool
    budget: str
    tokens_kept: str
    layer_average: str
    accuracy: str
    accuracy_interval: str
    num_scored: int
    difference: str
    difference_interval: str
    hard: str
    hard_interval: str
    num_hard: int
    empties: str
    gflops: tuple[str, ...]
    part_ms: tuple[str, ...]
    roofline_ms: str
    peak_memory_mib: str


@dataclass(frozen=True)
class KindValue:
    """Accuracy of one cell on one question type.

    `shade` in [0, 1] is how dark the cell is, None without a value; `num_scored` is empty where the column's
    head says it for all.
    """

    accuracy: str
    interval: str
    num_scored: str
    shade: float | None


@dataclass(frozen=True)
class KindRow:
    """One cell over the question types, `values` in the order of `KindTable.kinds`."""

    cell: Cell
    mark: Mark
    first_of_method: bool
    budget: str
    values: tuple[KindValue, ...]


@dataclass(frozen=True)
class KindTable:
    """Accuracy by question type and cell.

    `counts` says n per type, as `28` or `27 to 28`; `lowest` and `highest` are the ends of the shading, in %.
    """

    kinds: tuple[str, ...]
    counts: tuple[str, ...]
    rows: tuple[KindRow, ...]
    lowest: str
    highest: str


def part_columns(results: Results) -> tuple[str, ...]:
    """Return the parts that any cell has a figure for, in the order they run."""
    return tuple(p for p in PART_NAMES if any(p in c.flops or p in c.part_ms for c in results.cells))


def cell_rows(results: Results, roofline: Roofline | None = None) -> list[CellRow]:
    """Return the cells as rows, in the order of `results`."""
    marks = method_marks(cell.method for cell in results.cells)
    parts = part_columns(results)
    firsts = _first_of_method(results)
    counted = parts if has_flops(results) else None
    return [
        _cell_row(cell, marks[cell.method], cell.cell in firsts, parts, counted, roofline) for cell in results.cells
    ]


def kind_table(results: Results) -> KindTable | None:
    """Return accuracy by question type, or None if the task has no types."""
    kinds = tuple(dict.fromkeys(kind for cell in results.cells for kind in cell.accuracy_by_kind))
    if not kinds:
        return None
    means = [accuracy.mean for cell in results.cells for accuracy in cell.accuracy_by_kind.values()]
    ends = (min(means), max(means))
    counts = [_count_range(results, kind) for kind in kinds]
    marks = method_marks(cell.method for cell in results.cells)
    firsts = _first_of_method(results)
    rows = tuple(
        KindRow(
            cell,
            marks[cell.method],
            cell.cell in firsts,
            budget_text(cell),
            tuple(
                _kind_value(cell.accuracy_by_kind.get(kind), ends, at_head)
                for kind, at_head in zip(kinds, counts, strict=True)
            ),
        )
        for cell in results.cells
    )
    return KindTable(kinds, tuple(counts), rows, *(formats.percent(end) for end in ends))


def budget_text(cell: Cell) -> str:
    """Return the budget as asked; a dash for the methods that have none to ask for."""
    return formats.DASH if cell.budget_asked == "none" else cell.budget_asked


def empties_text(cell: Cell) -> str:
    """Return the number of empty responses with their causes: `3 (first-token-eos 2, error 1)`, or `0`."""
    causes = {cause: number for cause, number in cell.empties.items() if number}
    if not causes:
        return "0"
    if len(causes) == 1:
        cause, number = causes.popitem()
        return f"{number} ({cause})"
    named = ", ".join(f"{cause} {number}" for cause, number in causes.items())
    return f"{sum(causes.values())} ({named})"


def full_cell(results: Results) -> Cell | None:
    """Return the full-token model's cell, if the run has one."""
    return next((cell for cell in results.cells if cell.method == FULL_METHOD), None)


def _first_of_method(results: Results) -> set[str]:
    firsts: dict[str, str] = {}
    for cell in results.cells:
        firsts.setdefault(cell.method, cell.cell)
    return set(firsts.values())


def _cell_row(
    cell: Cell,
    mark: Mark,
    first_of_method: bool,
    parts: tuple[str, ...],
    counted: tuple[str, ...] | None,
    roofline: Roofline | None,
) -> CellRow:
    accuracy = cell.accuracy
    difference, difference_interval = formats.difference(cell.difference_to_full)
    return CellRow(
        cell=cell,
        mark=mark,
        first_of_method=first_of_method,
        budget=budget_text(cell),
        tokens_kept=formats.count(cell.tokens_kept if accuracy else None),
        layer_average=formats.count(cell.tokens_kept_layer_average if accuracy else None),
        accuracy=formats.percent(accuracy.mean if accuracy else None),
        accuracy_interval="" if accuracy is None else formats.interval(accuracy),
        num_scored=accuracy.n if accuracy else 0,
        difference=difference,
        difference_interval=difference_interval,
        hard=formats.percent(cell.accuracy_hard.mean if cell.accuracy_hard else None),
        hard_interval="" if cell.accuracy_hard is None else formats.interval(cell.accuracy_hard),
        num_hard=cell.accuracy_hard.n if cell.accuracy_hard else 0,
        empties=empties_text(cell),
        gflops=() if counted is None else tuple(formats.gflops(cell.flops.get(part)) for part in ("total", *counted)),
        part_ms=tuple(formats.figures3(cell_ms(cell, part, None)) for part in ("total", "time_to_first_token", *parts)),
        roofline_ms="" if roofline is None else formats.figures3(cell_roofline_ms(cell, roofline)),
        peak_memory_mib=formats.mebibytes(cell.peak_memory_bytes),
    )


def _kind_value(accuracy: Interval | None, ends: tuple[float, float], count_at_head: str) -> KindValue:
    if accuracy is None:
        return KindValue(formats.DASH, "", "", None)
    low, high = ends
    shade = (accuracy.mean - low) / (high - low) if high > low else 1.0
    own_count = "" if count_at_head == str(accuracy.n) else str(accuracy.n)
    return KindValue(formats.percent(accuracy.mean), formats.interval(accuracy), own_count, shade)


def _count_range(results: Results, kind: str) -> str:
    counts = [cell.accuracy_by_kind[kind].n for cell in results.cells if kind in cell.accuracy_by_kind]
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
