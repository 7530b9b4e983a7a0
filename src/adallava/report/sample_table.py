"""All answers of a run as columns: one row a sample, one column a cell. Read in one pass over the records."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adallava.records import SampleRecord
from adallava.records.picture_frames import Frame
from adallava.report.packed import bitmap

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
    kept: bytes | None = None
    """Bitmap of the first draw's kept patches of the first picture; None where none are recorded."""

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
    num_patches: int
    """N of the first image: of a picture that is read in tiles, the whole."""
    picture_sha256: str | None = None
    """Samples about one picture share it; None where no cell read the picture, and in older files."""
    frame: Frame | None = None
    """Which part of the picture the model sees; None where it is not known."""


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
    num_patches: dict[str, int] = {}
    pictures: dict[str, str] = {}
    frames: dict[str, Frame] = {}
    tiled = False
    merging: set[str] = set()
    columns: dict[str, dict[str, Answers]] = {cell: {} for cell in cells}
    texts: dict[str, str] = {}
    for record in records:
        if record.cell not in columns:
            continue
        firsts.setdefault(record.sample_id, record)
        if record.picture_sha256 is not None:
            pictures.setdefault(record.sample_id, record.picture_sha256)
        tokens = record.ran.tokens_per_image
        tiled = tiled or len(set(tokens)) > 1
        if record.ran.kept_indices or record.sample_id not in num_patches:
            num_patches[record.sample_id] = tokens[0] if tokens else 0
        if record.frames:
            frames.setdefault(record.sample_id, record.frames[0])
        if record.ran.merged:
            merging.add(record.cell)
        answers = columns[record.cell].setdefault(record.sample_id, Answers())
        # One object for equal texts: a run has few different answers and very many records.
        text = texts.setdefault(record.response, record.response)
        answers.add(record.draw, text, record.score, record.error)
        if record.ran.kept_indices and record.draw == 0:
            answers.kept = bitmap(record.ran.kept_indices[0], tokens[0])
    rows = tuple(_row(record, num_patches[id_], pictures.get(id_), frames.get(id_)) for id_, record in firsts.items())
    return SampleTable(rows, columns, frozenset(merging), tiled)


def is_right(score: float | None) -> bool:
    """Return whether a score counts as right; a failed answer never does."""
    return score is not None and score >= RIGHT


def _row(record: SampleRecord, num_patches: int, picture_sha256: str | None, frame: Frame | None) -> SampleRow:
    expected = tuple(answer for answer, _ in Counter(record.answers).most_common(_MAX_ANSWERS))
    return SampleRow(record.sample_id, record.question, expected, record.kind, num_patches, picture_sha256, frame)
