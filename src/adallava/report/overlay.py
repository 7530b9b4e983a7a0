"""Two runs on the same samples: what changed in each cell they share, and which samples flipped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adallava.errors import InputError
from adallava.records import Cell, PairedDifference, Results, Run
from adallava.report import formats
from adallava.report.sample_table import SampleTable, is_right

PairedEstimate = Callable[[Sequence[float], Sequence[float]], PairedDifference]
"""From scores and other scores of the same samples, in one order, to their mean difference with its interval."""


@dataclass(frozen=True)
class OtherRun:
    """A finished run to lay over the page's own."""

    name: str
    run: Run
    results: Results
    table: SampleTable


@dataclass(frozen=True)
class ChangeRow:
    """One cell in both runs, over the samples that both scored.

    `gained` were wrong in the other run and are right in this one, `lost` the reverse. Accuracy here and there is each
    run's own, over all of its samples.
    """

    cell: str
    here: Cell
    there: Cell
    difference: PairedDifference
    gained: int
    lost: int


@dataclass(frozen=True)
class Overlay:
    """What the page says of two runs."""

    name: str
    num_common: int
    """Samples that both runs hold."""
    num_here: int
    num_there: int
    rows: tuple[ChangeRow, ...]
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    settings: tuple[tuple[str, str, str], ...]
    """What differs in how they were made: name, here, there."""
    asked_differently: int
    """Common samples whose question or answers are not the same: the runs are not on the same task then."""


def compare_runs(run: Run, results: Results, table: SampleTable, other: OtherRun, estimate: PairedEstimate) -> Overlay:
    """Return this run minus the other, cell by cell, sample by sample.

    Raises:
        InputError: if they have no sample or no cell in common.
    """
    here, there = {c.cell: c for c in results.cells}, {c.cell: c for c in other.results.cells}
    rows_there = {row.sample_id: row for row in other.table.rows}
    common = [row for row in table.rows if row.sample_id in rows_there]
    shared = [name for name in here if name in there]
    if not common or not shared:
        what = "cell" if common else "sample"
        raise InputError(f"{other.name} has no {what} in common with this run: compare runs of one task")
    ids = [row.sample_id for row in common]
    changed = sum(
        (row.question, row.expected) != (rows_there[row.sample_id].question, rows_there[row.sample_id].expected)
        for row in common
    )
    found = [_change(here[name], there[name], table, other.table, ids, estimate) for name in shared]
    return Overlay(
        name=other.name,
        num_common=len(common),
        num_here=len(table.rows),
        num_there=len(other.table.rows),
        rows=tuple(row for row in found if row is not None),
        only_here=tuple(name for name in here if name not in there),
        only_there=tuple(name for name in there if name not in here),
        settings=tuple(_settings(run, other.run)),
        asked_differently=changed,
    )


def _change(
    here: Cell, there: Cell, table: SampleTable, other: SampleTable, ids: Sequence[str], estimate: PairedEstimate
) -> ChangeRow | None:
    pairs = [(table.score(here.cell, id_), other.score(there.cell, id_)) for id_ in ids]
    scored = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not scored:
        return None
    return ChangeRow(
        here.cell,
        here,
        there,
        estimate([a for a, _ in scored], [b for _, b in scored]),
        gained=sum(is_right(a) and not is_right(b) for a, b in scored),
        lost=sum(is_right(b) and not is_right(a) for a, b in scored),
    )


def _settings(here: Run, there: Run) -> list[tuple[str, str, str]]:
    """Return the settings and origins that differ; when it was started and by which command always do."""
    first = {**here.config.model_dump(), **here.provenance.model_dump(exclude={"started_at", "command"})}
    second = {**there.config.model_dump(), **there.provenance.model_dump(exclude={"started_at", "command"})}
    return [(name, _text(first[name]), _text(second[name])) for name in first if first[name] != second[name]]


def _text(value: object) -> str:
    if value is None or value == [] or value == {} or value == "":
        return formats.DASH
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
