"""Requests between their coming and their answer's end, in one process of a server."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass
class InFlight:
    """What is under way.

    Attributes:
        clock_ms: reads the time.
    """

    clock_ms: Callable[[], float]
    _came_ms: dict[int, float] = field(default_factory=dict)
    _silent: set[int] = field(default_factory=set)
    _numbers: "count[int]" = field(default_factory=count)
    _busy_ms: float = 0.0
    _busy_since_ms: float = 0.0

    def begin(self) -> int:
        """Note that a request has come; return its number."""
        now, number = self.clock_ms(), next(self._numbers)
        if not self._came_ms:
            self._busy_since_ms = now
        self._came_ms[number] = now
        self._silent.add(number)
        return number

    def speaks(self, number: int) -> None:
        """Note that a request's answer has begun to come out."""
        self._silent.discard(number)

    def end(self, number: int) -> None:
        """Note that a request has been answered, or given up."""
        self._silent.discard(number)
        if self._came_ms.pop(number, None) is not None and not self._came_ms:
            self._busy_ms += self.clock_ms() - self._busy_since_ms

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._came_ms)

    @property
    def silent(self) -> int:
        """How many have sent nothing: one that does not stream may have its first token all the same."""
        return len(self._silent)

    @property
    def busy_ms(self) -> float:
        """For how long in all anything has been under way."""
        return self._busy_ms + (self.clock_ms() - self._busy_since_ms if self._came_ms else 0.0)

    def oldest_ms(self, waiting: int) -> float:
        """Return how long ago the first of so many came; they are the last to have come, since others were first."""
        if waiting < 1 or not self._came_ms:
            return 0.0
        came = list(self._came_ms.values())
        return self.clock_ms() - came[max(0, len(came) - waiting)]
