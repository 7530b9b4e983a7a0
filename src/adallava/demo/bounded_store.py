"""Things that are costly to make, kept up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Says how much memory it takes."""

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        ...


T = TypeVar("T", bound=Sized)


class BoundedStore(Generic[T]):
    """Keeps what was used last, as much as fits; what is larger than the limit by itself is made again each time.

    Not for several threads at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Begin empty.

        Args:
            limit_bytes: of everything that is kept, together.
        """
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under a key, or make it."""
        found = self._kept.pop(key, None)
        value = make() if found is None else found
        self._kept[key] = value
        while self._kept and self.num_bytes > self._limit_bytes:
            self._kept.popitem(last=False)
        return value

    @property
    def num_bytes(self) -> int:
        """Memory that everything kept takes."""
        return sum(value.num_bytes for value in self._kept.values())
