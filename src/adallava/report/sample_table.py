"""All answers of a run as columns: one row a sample, one column a cell. Read in one pass over the records.

A run may have more answers than fit into memory as objects: here each takes a score and the number of its text.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

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
    """Of each image the bitmap of the first draw's kept patches; None where none are recorded."""
    grids: tuple[Grid, ...] = ()
    """Of each image, which the bitmaps are of."""

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


class Texts:
    """Responses and errors by number: a run has few different ones and very many records."""

    def __init__(self) -> None:
        """Begin without any."""
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a text, from 1."""
        number = self._numbers.setdefault(text, len(self._texts) + 1)
        if number > len(self._texts):
            self._texts.append(text)
        return number

    def __getitem__(self, number: int) -> str:
        """Return a text by its number."""
        return self._texts[number - 1]


class Column(Mapping[str, Answers]):
    """One cell's answers by sample id, made when they are asked for."""

    def __init__(self, numbers: Mapping[str, int], texts: Texts) -> None:
        """Begin without any.

        Args:
            numbers: of the samples, which grow with the table.
            texts: of all columns.
        """
        self._numbers, self._texts = numbers, texts
        # By draw, of each sample: the score, and the number of the response; of an error below 0, of nothing 0.
        self._draws: dict[int, tuple[array[float], array[int]]] = {}
        self._kept: dict[str, tuple[tuple[bytes, ...], tuple[Grid, ...]]] = {}

    def add(self, record: SampleRecord) -> None:
        """Take the answer of one draw."""
        number = self._numbers[record.sample_id]
        scores, texts = self._draws.setdefault(record.draw, (array("d"), array("l")))
        missing = number + 1 - len(scores)
        if missing > 0:
            scores.extend(repeat(0.0, missing))
            texts.extend(repeat(0, missing))
        if record.score is None:
            texts[number] = -self._texts.number(record.error or "no reason recorded")
        else:
            scores[number], texts[number] = record.score, self._texts.number(record.response)

    def add_kept(self, sample_id: str, kept: tuple[bytes, ...], grids: tuple[Grid, ...]) -> None:
        """Take the patches of the first draw, and the grids that they are of."""
        self._kept[sample_id] = kept, grids

    def __getitem__(self, sample_id: str) -> Answers:
        """Return the answer over all draws."""
        number, answers = self._numbers[sample_id], Answers()
        for draw, (scores, texts) in self._draws.items():
            text = texts[number] if number < len(texts) else 0
            if text > 0:
                answers.add(draw, self._texts[text], scores[number], None)
            elif text < 0:
                answers.add(draw, "", None, self._texts[-text])
        if not answers.draws:
            raise KeyError(sample_id)
        if sample_id in self._kept:
            answers.kept, answers.grids = self._kept[sample_id]
        return answers

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the samples that are there, in the table's order."""
        return (sample_id for sample_id, number in self._numbers.items() if self._has(number))

    def __len__(self) -> int:
        """Return how many samples are there."""
        return sum(map(self._has, range(len(self._numbers))))

    def __contains__(self, sample_id: object) -> bool:
        """Return whether a sample is there."""
        number = self._numbers.get(sample_id) if isinstance(sample_id, str) else None
        return number is not None and self._has(number)

    def _has(self, number: int) -> bool:
        return any(number < len(texts) and texts[number] for _, texts in self._draws.values())


@dataclass(frozen=True, slots=True)
class SampleRow:
    """What all cells were asked alike."""

    sample_id: str
    question: str
    expected: tuple[str, ...]
    kind: str | None
    grids: tuple[Grid, ...]
    """Of each image's patches: of one that is read in tiles, of the whole. None where nothing was read."""
    picture_sha256: str | None = None
    """See `SampleRecord.picture_sha256`; None where no cell read the images, and in older files."""
    frames: tuple[Frame, ...] | None = None
    """Which part of each image the model sees; None where it is not known."""

    @property
    def num_patches(self) -> int:
        """Of all images."""
        return sum(rows * columns for rows, columns in self.grids)


@dataclass(frozen=True)
class SampleTable:
    """The samples in order of first appearance, and each cell's answers by sample id."""

    rows: tuple[SampleRow, ...]
    columns: Mapping[str, Mapping[str, Answers]]
    merging: frozenset[str] = frozenset()
    """Cells whose method combines patches: what it does not keep is not lost."""
    tiled: bool = False
    """True if the model read images in tiles as well, whose patches are not in the table."""

    def score(self, cell: str, sample_id: str) -> float | None:
        """Return a score, or None where the cell failed or never met the sample."""
        answers = self.columns.get(cell, {}).get(sample_id)
        return None if answers is None else answers.score


def read_table(records: Iterable[SampleRecord], cells: Sequence[str]) -> SampleTable:
    """Return the answers of the given cells; records of other cells are passed over.

    Each (cell, sample, draw) is there once; see `read_samples`. Answers have patches where their records do.
    """
    asked: dict[str, tuple[str, tuple[str, ...], str | None]] = {}
    numbers: dict[str, int] = {}
    grids: dict[str, tuple[Grid, ...]] = {}
    pictures: dict[str, str] = {}
    frames: dict[str, tuple[Frame, ...]] = {}
    tiled = False
    merging: set[str] = set()
    texts = Texts()
    columns = {cell: Column(numbers, texts) for cell in cells}
    shared: dict[Any, Any] = {}
    for record in records:
        if record.cell not in columns:
            continue
        if numbers.setdefault(record.sample_id, len(numbers)) == len(asked):
            expected = tuple(answer for answer, _ in Counter(record.answers).most_common(_MAX_ANSWERS))
            question = shared.setdefault(record.question, record.question)
            asked[record.sample_id] = question, shared.setdefault(expected, expected), record.kind
        if record.picture_sha256 is not None:
            pictures.setdefault(record.sample_id, record.picture_sha256)
        shown = _shown_grids(record.ran)
        shown = shared.setdefault(shown, shown)
        tiled = tiled or len(record.ran.grids) > len(record.ran.whole_images)
        if record.ran.grids or record.ran.kept_indices or record.sample_id not in grids:
            grids[record.sample_id] = shown
        if record.frames:
            frames.setdefault(record.sample_id, tuple(record.frames))
        if record.ran.merged:
            merging.add(record.cell)
        columns[record.cell].add(record)
        if record.draw == 0 and _has_its_sets(record.ran):
            kept = (record.ran.kept_indices[image] for image in record.ran.whole_images)
            bitmaps = tuple(bitmap(one, down * across) for one, (down, across) in zip(kept, shown, strict=True))
            columns[record.cell].add_kept(record.sample_id, bitmaps, shown)
    rows = tuple(
        SampleRow(id_, *asked[id_], grids=grids[id_], picture_sha256=pictures.get(id_), frames=frames.get(id_))
        for id_ in asked
    )
    return SampleTable(rows, columns, frozenset(merging), tiled)


def is_right(score: float | None) -> bool:
    """Return whether a score counts as right; a failed answer never does."""
    return score is not None and score >= RIGHT


def _has_its_sets(ran: WhatRan) -> bool:
    """Return whether each image has its patches: a line that somebody changed may not, as the doctor says."""
    images = len(ran.kept_indices)
    return max(ran.whole_images, default=0) < images == len(ran.grids or ran.kept_indices)


def _shown_grids(ran: WhatRan) -> tuple[Grid, ...]:
    """Return the grid of each image's patches; in files that say none it is a square, or not known, a row."""
    if ran.grids:
        return tuple(ran.grids[image] for image in ran.whole_images if image < len(ran.grids))
    if not ran.num_vision_tokens:
        return ()
    count = ran.tokens_per_image[0]
    return (square_grid(count) or (1, count),)
