"""The lines of a file of records, in bytes: where each is, and whether it is whole. The rest is up to the reader."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        place: of its first byte in the file.
        number: in the file, from 1.
        data: its bytes, the end of the line among them.
    """

    place: int
    number: int
    data: bytes

    @property
    def blank(self) -> bool:
        """True if it holds nothing but white space."""
        return not self.data.strip()

    @property
    def torn(self) -> bool:
        """True if it has no end: the process was killed while writing it, or is writing it now."""
        return not self.data.endswith(b"\n")


def read_lines(file: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of a file from its beginning."""
    place = 0
    for number, data in enumerate(file, start=1):
        yield Line(place, number, data)
        place += len(data)
