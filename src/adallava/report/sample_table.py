"""All answers of a run as columns: one row a sample, one column a cell. Read in one pass over the records."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adallava.records import SampleRecord, WhatRan
from adallava.records.picture_frames import Frame
from adallava.report.packed import bitmap
from adallava.report.patches import square_grid

Grid = tuple[int, int]
"""(rows, columns)."""

RIGHT = 0.5
"""An answer counts as right from this score on; with several draws, their mean score."""

_MAX_ANSWERS = 5
_DRAW_SEPARATOR = " / "


@dataclass(slots=True)
class Answers:
    """One cell's answer to one sample, over the draws of a random method.

    A sweep of several processes leaves draws in any order in its file; here they are in order.
    """

    scores: list[float] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    error: str | None = None
    """Why a draw failed; of several reasons the first in the alphabet."""
    draws: list[int] = field(default_factory=list)
    """Number of each response's draw."""
    kept: tuple[bytes, ...] | None = None
    """Of each picture the bitmap of the first draw's kept patches; None where none are recorded."""
    grids: tuple[Grid, ...] = ()
    """Of each picture, which the bitmaps are of."""

    @property
    def score(self) -> float | None:
        """Mean over the draws; None if one of them failed."""
        return None if self.error is not None or not self.scores else sum(self.scores) / len(self.scores)

    def add(self, draw: int, response: str, score: float | None, error: str | None) -> None:
        """Put one draw's answer into its place; one without a score has failed."""
        place = bisect_right(self.draws, draw)
        self.draws.insert(place, draw)
        self.responses.insert(place, response)
        if score is None:
            reason = error or "no reason recorded"
            self.error = reason if self.error is None else min(self.error, reason)
        else:
            self.scores.insert(place, score)

    @property
    def text(self) -> str:
        """What was answered: of several draws that differ, all of them in order."""
        if self.error is not None:
            return self.error
        return self.responses[0] if len(set(self.responses)) == 1 else _DRAW_SEPARATOR.join(self.responses)


@dataclass(frozen=True)
class SampleRow:
    """What all cells were asked alike."""

    sample_id: str
    question: str
    expected: tuple[str, ...]
    kind: str | None
    grids: tuple[Grid, ...]
    """Of each picture's patches: of one that is read in tiles, of the whole. None where nothing was read."""
    picture_sha256: str | None = None
    """See `SampleRecord.picture_sha256`; None where no cell read the pictures, and in older files."""
    frames: tuple[Frame, ...] | None = None
    """Which part of each picture the model sees; None where it is not known."""

    @property
    def num_patches(self) -> int:
        """Of all pictures."""
        return sum(rows * columns for rows, columns in self.grids)


@dataclass(frozen=True)
class SampleTable:
    """The samples in order of first appearance, and each cell's answers by sample id."""

    rows: tuple[SampleRow, ...]
    columns: Mapping[str, Mapping[str, Answers]]
    merging: frozenset[str] = frozenset()
    """Cells whose method combines patches: what it does not keep is not lost."""
    tiled: bool = False
    """True if the model read pictures in tiles as well, whose patches are not in the table."""
    part: str = ""
    """What of the run is in the table; empty for all of it."""

    def score(self, cell: str, sample_id: str) -> float | None:
        """Return a score, or None where the cell failed or never met the sample."""
        answers = self.columns.get(cell, {}).get(sample_id)
        return None if answers is None else answers.score


def read_table(records: Iterable[SampleRecord], cells: Sequence[str]) -> SampleTable:
    """Return the answers of the given cells; records of other cells are passed over.

    Each (cell, sample, draw) is there once; see `read_samples`.
    """
    firsts: dict[str, SampleRecord] = {}
    grids: dict[str, tuple[Grid, ...]] = {}
    pictures: dict[str, str] = {}
    frames: dict[str, tuple[Frame, ...]] = {}
    tiled = False
    merging: set[str] = set()
    columns: dict[str, dict[str, Answers]] = {cell: {} for cell in cells}
    texts: dict[str, str] = {}
    shared: dict[tuple[Grid, ...], tuple[Grid, ...]] = {}
    for record in records:
        if record.cell not in columns:
            continue
        firsts.setdefault(record.sample_id, record)
        if record.picture_sha256 is not None:
            pictures.setdefault(record.sample_id, record.picture_sha256)
        shown = _shown_grids(record.ran)
        tiled = tiled or len(record.ran.grids) > len(record.ran.whole_images)
        if record.ran.kept_indices or record.sample_id not in grids:
            grids[record.sample_id] = shown = shared.setdefault(shown, shown)
        if record.frames:
            frames.setdefault(record.sample_id, tuple(record.frames))
        if record.ran.merged:
            merging.add(record.cell)
        answers = columns[record.cell].setdefault(record.sample_id, Answers())
        # One object for equal texts: a run has few different answers and very many records.
        text = texts.setdefault(record.response, record.response)
        answers.add(record.draw, text, record.score, record.error)
        if record.draw == 0 and _has_its_sets(record.ran):
            answers.grids = shared.setdefault(shown, shown)
            kept = (record.ran.kept_indices[image] for image in record.ran.whole_images)
            answers.kept = tuple(bitmap(one, rows * columns) for one, (rows, columns) in zip(kept, shown, strict=True))
    all_rows = tuple(_row(record, grids[id_], pictures.get(id_), frames.get(id_)) for id_, record in firsts.items())
    return SampleTable(all_rows, columns, frozenset(merging), tiled)


def is_right(score: float | None) -> bool:
    """Return whether a score counts as right; a failed answer never does."""
    return score is not None and score >= RIGHT


def _has_its_sets(ran: WhatRan) -> bool:
    """Return whether each picture has its patches: a line that somebody changed may not, as the doctor says."""
    images = len(ran.kept_indices)
    return max(ran.whole_images, default=0) < images == len(ran.grids or ran.kept_indices)


def _shown_grids(ran: WhatRan) -> tuple[Grid, ...]:
    """Return the grid of each picture's patches; in files that say none it is a square, or not known, a row."""
    if ran.grids:
        return tuple(ran.grids[image] for image in ran.whole_images if image < len(ran.grids))
    if not ran.num_vision_tokens:
        return ()
    count = ran.tokens_per_image[0]
    return (square_grid(count) or (1, count),)


def _row(
    record: SampleRecord, grids: tuple[Grid, ...], picture_sha256: str | None, frames: tuple[Frame, ...] | None
) -> SampleRow:
    expected = tuple(answer for answer, _ in Counter(record.answers).most_common(_MAX_ANSWERS))
    return SampleRow(record.sample_id, record.question, expected, record.kind, grids, picture_sha256, frames)
