"""Which answers a file holds, and where: a run may have more of them than fit into memory."""

from array import array
from collections.abc import Sequence

from adallava.records import SampleRecord

_NOT_THERE = -1

AnswerKey = tuple[str, str, int]
"""What no two answers of a run share: cell, sample and draw."""


def answer_key(record: SampleRecord) -> AnswerKey:
    """Return the key of an answer."""
    return record.cell, record.sample_id, record.draw


class AnswerPlaces:
    """The keys of answers, and the byte at which each begins; 8 bytes an answer, besides the names of the samples."""

    def __init__(self) -> None:
        """Begin without any."""
        self._by_cell: dict[str, array[int]] = {}
        # Every cell has the same samples and draws: one number for each, in all of them.
        self._numbers: dict[tuple[str, int], int] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many answers there are."""
        return self._count

    def __contains__(self, key: AnswerKey) -> bool:
        """Return whether an answer is there."""
        return self._find(key) is not None

    def add(self, key: AnswerKey, place: int) -> bool:
        """Add an answer; of one that is there already the first place stays, and False is returned."""
        cell, sample_id, draw = key
        number = self._numbers.setdefault((sample_id, draw), len(self._numbers))
        places = self._by_cell.setdefault(cell, array("q"))
        if number >= len(places):
            places.extend([_NOT_THERE] * (number + 1 - len(places)))
        elif places[number] != _NOT_THERE:
            return False
        places[number] = place
        self._count += 1
        return True

    def place(self, key: AnswerKey) -> int:
        """Return where an answer that is there begins."""
        place = self._find(key)
        if place is None:
            raise KeyError(key)
        return place

    def of_cell(self, cell: str) -> Sequence[int]:
        """Return where the answers of a cell begin, in ascending order."""
        return sorted(place for place in self._by_cell.get(cell, ()) if place != _NOT_THERE)

    def _find(self, key: AnswerKey) -> int | None:
        cell, sample_id, draw = key
        number, places = self._numbers.get((sample_id, draw)), self._by_cell.get(cell)
        if number is None or places is None or number >= len(places) or places[number] == _NOT_THERE:
            return None
        return places[number]
