"""The answers of a run's cells in a file of the machine's own, so that any number of them takes the memory of a few.

`samples.jsonl` is read once; checks go through the answers many times, and what they need is here, column by column,
ready to be taken. Up to `IN_MEMORY_BYTES` nothing reaches a disk.
"""

import pickle
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import repeat
from operator import attrgetter
from typing import Any, overload

from adallava.doctor.answers import Answer
from adallava.errors import RunFolderError

IN_MEMORY_BYTES = 64 * 2**20

ROWS = 1024
"""Answers that are written, and read, together."""

_NAMES = tuple(field.name for field in fields(Answer))
_VALUES = attrgetter(*_NAMES)
_SAMPLE = _NAMES.index("sample_id")
_ABSENT = -1


class Store:
    """A file for the answers of all cells, and the names of the samples, which every cell shares."""

    def __init__(self) -> None:
        """Begin empty."""
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115  # as long as any cell is there
        weakref.finalize(self, self._file.close)

    def number(self, sample_id: str) -> int:
        """Return the number of a sample, in order of first appearance."""
        number = self._numbers.setdefault(sample_id, len(self.names))
        if number == len(self.names):
            self.names.append(sample_id)
        return number

    def find(self, sample_id: str) -> int | None:
        """Return the number of a sample; None if no cell has it."""
        return self._numbers.get(sample_id)

    def write(self, data: bytes) -> tuple[int, int]:
        """Write data, and return where it is: its first byte, and its length.

        Raises:
            RunFolderError: if there is no room.
        """
        try:
            place = self._file.seek(0, 2)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise RunFolderError(
                f"answers cannot be written to {tempfile.gettempdir()} ({error.strerror}): a check of many answers "
                "needs about a fifth of samples.jsonl there; set TMPDIR to a folder with room"
            ) from error
        return place, len(data)

    def read(self, place: int, length: int) -> bytes:
        """Return data that was written."""
        self._file.seek(place)
        return self._file.read(length)


class StoredAnswers(Sequence[Answer]):
    """The answers of one cell, in the order in which they were added."""

    def __init__(self, store: Store) -> None:
        """Begin without any."""
        self._store = store
        self._waiting: list[Answer] = []
        self._blocks: list[tuple[int, int]] = []
        self._count = 0
        # By the sample's number: the first answer that did not fail, and its draw if not 0. By draw, which samples.
        self._first = array("q")
        self._later_draws: dict[int, int] = {}
        self._there: dict[int, bytearray] = {}
        self._twice: set[tuple[str, int]] = set()
        self._last_read: tuple[int, list[Answer]] = (-1, [])

    def add(self, answer: Answer) -> None:
        """Add an answer.

        Raises:
            RunFolderError: if there is no room for it.
        """
        number = self._store.number(answer.sample_id)
        self._note(number, answer)
        self._waiting.append(answer)
        self._count += 1
        if len(self._waiting) == ROWS:
            self._blocks.append(self._store.write(_packed([self._row(each) for each in self._waiting])))
            self._waiting = []

    @property
    def by_sample(self) -> Mapping[str, Answer]:
        """The first answer to each sample that did not fail: the one of the lowest draw."""
        return _Firsts(self, self._store, self._first)

    @property
    def repeated(self) -> frozenset[tuple[str, int]]:
        """Samples, each with its draw, that have more than one answer."""
        return frozenset(self._twice)

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def __iter__(self) -> Iterator[Answer]:
        """Yield them, reading block after block; the last ones are not written yet."""
        for block in range(len(self._blocks)):
            yield from self._read(block)
        yield from self._waiting

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Answer]: ...

    def __getitem__(self, index: int | slice) -> Answer | Sequence[Answer]:
        """Return one, or some; the block that was read last is kept."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index if index >= 0 else len(self) + index
        if not 0 <= number < len(self):
            raise IndexError(index)
        block, row = divmod(number, ROWS)
        if block == len(self._blocks):
            return self._waiting[row]
        if self._last_read[0] != block:
            self._last_read = (block, list(self._read(block)))
        return self._last_read[1][row]

    def _row(self, answer: Answer) -> tuple[Any, ...]:
        row = list(_VALUES(answer))
        row[_SAMPLE] = self._store.number(answer.sample_id)
        return tuple(row)

    def _note(self, number: int, answer: Answer) -> None:
        there = self._there.setdefault(answer.draw, bytearray())
        there.extend(bytes(max(0, number + 1 - len(there))))
        if there[number]:
            self._twice.add((answer.sample_id, answer.draw))
        there[number] = 1
        if answer.failed:
            return
        self._first.extend(repeat(_ABSENT, max(0, number + 1 - len(self._first))))
        if self._first[number] == _ABSENT or answer.draw < self._later_draws.get(number, 0):
            self._first[number] = self._count
            self._later_draws.pop(number, None)
            if answer.draw:
                self._later_draws[number] = answer.draw

    def _read(self, block: int) -> Iterator[Answer]:
        return self._answers(_columns(self._store.read(*self._blocks[block])))

    def _answers(self, columns: Any) -> Iterator[Answer]:
        listed = list(columns)
        if not listed:
            return
        listed[_SAMPLE] = map(self._store.names.__getitem__, listed[_SAMPLE])
        make = object.__new__
        for row in zip(*listed, strict=False):
            answer = make(Answer)
            # As the dataclass does field by field, which takes four times as long.
            answer.__dict__.update(zip(_NAMES, row, strict=False))
            yield answer


class _Firsts(Mapping[str, Answer]):
    """The first answer to each sample of a cell, read from its place in the store."""

    def __init__(self, answers: StoredAnswers, store: Store, places: Sequence[int]) -> None:
        self._answers, self._store, self._places = answers, store, places

    def __getitem__(self, sample_id: str) -> Answer:
        number = self._store.find(sample_id)
        if number is None or number >= len(self._places) or self._places[number] == _ABSENT:
            raise KeyError(sample_id)
        return self._answers[self._places[number]]

    def __iter__(self) -> Iterator[str]:
        return (self._store.names[number] for number, place in enumerate(self._places) if place != _ABSENT)

    def __len__(self) -> int:
        return sum(place != _ABSENT for place in self._places)


def _packed(rows: Sequence[tuple[Any, ...]]) -> bytes:
    """Return answers column by column; a value that all of them share is held once."""
    columns: list[Any] = []
    known: dict[Any, Any] = {}
    for number, column in enumerate(zip(*rows, strict=True)):
        first = column[0]
        if number != _SAMPLE and all(value == first and type(value) is type(first) for value in column):
            columns.append((first,))
        else:
            # Equal texts are one object, which is written once. A number equals others of another type.
            columns.append([known.setdefault((type(value), value), value) for value in column])
    return pickle.dumps(columns, protocol=pickle.HIGHEST_PROTOCOL)


def _columns(data: bytes) -> Iterator[Any]:
    # Written by this process, into a file that has no name.
    for column in pickle.loads(data):
        yield column if isinstance(column, list) else repeat(column[0])
