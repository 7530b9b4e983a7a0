"""Which answers a file holds, and where: a run has more of them than fit into memory, at 5 to 15 KB each."""

from collections.abc import Sequence

from adallava.records import SampleRecord

AnswerKey = tuple[str, str, int]
"""What no two answers of a run share: cell, sample and draw."""


def answer_key(record: SampleRecord) -> AnswerKey:
    """Return the key of an answer."""
    return record.cell, record.sample_id, record.draw


class AnswerPlaces:
    """The keys of answers, and the byte at which each begins; 70 to 100 bytes an answer."""

    def __init__(self) -> None:
        """Begin without any."""
        self._by_cell: dict[str, dict[tuple[str, int], int]] = {}
        # Every cell has the same samples and draws: one object for all of them.
        self._shared: dict[tuple[str, int], tuple[str, int]] = {}

    def __len__(self) -> int:
        """Return how many answers there are."""
        return sum(map(len, self._by_cell.values()))

    def __contains__(self, key: AnswerKey) -> bool:
        """Return whether an answer is there."""
        cell, sample_id, draw = key
        return (sample_id, draw) in self._by_cell.get(cell, ())

    def add(self, key: AnswerKey, place: int) -> bool:
        """Add an answer; of one that is there already the first place stays, and False is returned."""
        if key in self:
            return False
        cell, sample_id, draw = key
        answer = self._shared.setdefault((sample_id, draw), (sample_id, draw))
        self._by_cell.setdefault(cell, {})[answer] = place
        return True

    def place(self, key: AnswerKey) -> int:
        """Return where an answer that is there begins."""
        cell, sample_id, draw = key
        return self._by_cell[cell][sample_id, draw]

    def of_cell(self, cell: str) -> Sequence[int]:
        """Return where the answers of a cell begin, in ascending order."""
        return sorted(self._by_cell.get(cell, {}).values())
