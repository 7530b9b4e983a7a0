"""Two runs on the same samples: what changed in each cell they share, and which samples flipped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.overlay_verdicts import judge_changes
from adallava.analysis.run_differences import run_differences
from adallava.errors import InputError
from adallava.records import Cell, Results, Run
from adallava.records.estimates import Verdict
from adallava.records.setting_words import shortened
from adallava.report import formats
from adallava.report.pair_words import Outcome, least_points, least_range, margin_points, outcome_of
from adallava.report.sample_table import RIGHT, SampleTable


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
    verdict: Verdict
    gained: int
    lost: int

    @property
    def outcome(self) -> Outcome:
        """What may be said of it."""
        return outcome_of(self.verdict)

    @property
    def words(self) -> str:
        """The same in words."""
        if self.outcome in ("ahead", "differs"):
            return "higher here" if self.verdict.difference.mean > 0 else "lower here"
        if self.outcome == "same":
            return f"the same within {margin_points(self.verdict)}"
        least = least_points(self.verdict)
        return "not told apart" + (f", {least} would have been found" if least != formats.DASH else "")


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
    """What differs in how they were made: name, here, there; see `run_differences`."""
    asked_differently: int
    """Common samples whose question or answers are not the same: the runs are not on the same task then."""

    @property
    def num_told(self) -> int:
        """Cells that changed, by the corrected tests."""
        return sum(row.outcome in ("ahead", "differs") for row in self.rows)

    @property
    def least(self) -> str:
        """What the tests of the others could have shown."""
        return least_range(row.verdict for row in self.rows)


def compare_runs(run: Run, results: Results, table: SampleTable, other: OtherRun) -> Overlay:
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
    pictures = {row.sample_id: row.picture_sha256 for row in common}
    rows = _changes([(here[name], there[name]) for name in shared], table, other.table, ids, pictures)
    return Overlay(
        name=other.name,
        num_common=len(common),
        num_here=len(table.rows),
        num_there=len(other.table.rows),
        rows=rows,
        only_here=tuple(name for name in here if name not in there),
        only_there=tuple(name for name in there if name not in here),
        settings=tuple((one.name, shortened(one.a), shortened(one.b)) for one in run_differences(run, other.run)),
        asked_differently=changed,
    )


def _changes(
    cells: Sequence[tuple[Cell, Cell]],
    table: SampleTable,
    other: SampleTable,
    ids: Sequence[str],
    pictures: Mapping[str, str | None],
) -> tuple[ChangeRow, ...]:
    """Return one row for each cell in which both runs scored a sample."""
    kept, ours, theirs = [], [], []
    for here, there in cells:
        a, b = _scores(table, here.cell, ids), _scores(other, there.cell, ids)
        if (np.isfinite(a) & np.isfinite(b)).any():
            kept.append((here, there))
            ours.append(a)
            theirs.append(b)
    verdicts = judge_changes(ours, theirs, ids, pictures)
    return tuple(
        ChangeRow(here.cell, here, there, verdict, gained=_flips(a, b), lost=_flips(b, a))
        for (here, there), verdict, a, b in zip(kept, verdicts, ours, theirs, strict=True)
    )


def _scores(table: SampleTable, cell: str, ids: Sequence[str]) -> NDArray[np.float64]:
    """Return a cell's scores of samples, NaN where there is none."""
    scores = (table.score(cell, id_) for id_ in ids)
    return np.fromiter((np.nan if score is None else score for score in scores), dtype=np.float64, count=len(ids))


def _flips(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> int:
    """Return how many samples are right in one run and wrong in the other; a NaN is neither."""
    return int(((right >= RIGHT) & (wrong < RIGHT)).sum())
