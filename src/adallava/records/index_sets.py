"""Sets of patches as text: a bitmap in base64, so that an answer's line is hundreds of bytes and not thousands.

Of N patches 4 N / 24 characters, whatever the choice; a list of indices takes 4 to 5 characters for each.
Text and not parquet, since a line of a file is whole or torn by itself.
"""

import base64
from collections.abc import Sequence

import numpy as np

MOST = 2**20
"""Above any number of patches: a list that names a greater one is damage, and no reason to fill memory with bits."""

PREFIX = "bits:"
"""Begins every packed set, so that a file says itself how it is to be read."""

IndexSet = bytes | tuple[int, ...]
"""A set as a bitmap, as `pack` has it; or a list that is not an ascending set, as it is."""


def pack(indices: Sequence[int]) -> str | list[int]:
    """Return ascending indices as text, or as they are where they are not an ascending set, or text would be longer.

    Bit i is bit i % 8, from the lowest, of byte i // 8; bytes after the last index are left out.
    """
    listed = list(indices)
    if not listed:
        return listed
    bitmap = _bitmap(listed)
    if bitmap is None:
        return listed
    text = PREFIX + base64.b64encode(bitmap).decode("ascii")
    # Of the two, with their quotes or brackets; a line has no blanks after commas.
    return text if len(text) + 2 <= len(str(listed)) - (len(listed) - 1) else listed


def unpack(packed: object) -> object:
    """Return what `pack` was given, as a tuple; anything that is not text is returned as it is: an older file's list.

    Raises:
        ValueError: for text that is not a packed set.
    """
    if not isinstance(packed, str):
        return packed
    bits = np.unpackbits(np.frombuffer(_decoded(packed), dtype=np.uint8), bitorder="little")
    return tuple(np.flatnonzero(bits).tolist())


def index_set(packed: str | Sequence[int]) -> IndexSet:
    """Return what `pack` gave, or the list of an older file, in the least memory. Equal sets are equal.

    Raises:
        ValueError: for text that is not a packed set.
    """
    if isinstance(packed, str):
        return _decoded(packed).rstrip(b"\0")
    bitmap = _bitmap(packed) if packed else b""
    return tuple(packed) if bitmap is None else bitmap


def size(one: IndexSet) -> int:
    """Return how many indices a set, or a list, has."""
    return int.from_bytes(one, "little").bit_count() if isinstance(one, bytes) else len(one)


def is_within(one: IndexSet, limit: int) -> bool:
    """Return whether it is an ascending set of indices from 0 up to below the limit."""
    return isinstance(one, bytes) and int.from_bytes(one, "little").bit_length() <= limit


def num_common(one: IndexSet, other: IndexSet) -> int:
    """Return how many indices are in both."""
    if isinstance(one, bytes) and isinstance(other, bytes):
        return (int.from_bytes(one, "little") & int.from_bytes(other, "little")).bit_count()
    return len(set(_indices(one)) & set(_indices(other)))


def _indices(one: IndexSet) -> Sequence[int]:
    if isinstance(one, tuple):
        return one
    return tuple(np.flatnonzero(np.unpackbits(np.frombuffer(one, dtype=np.uint8), bitorder="little")).tolist())


def _bitmap(listed: Sequence[int]) -> bytes | None:
    """Return the bitmap of indices, at least one; None if they are not an ascending set."""
    try:
        array = np.asarray(listed, dtype=np.int64)
    except OverflowError:  # As only a line that somebody changed has them.
        return None
    if array[0] < 0 or array[-1] >= MOST or (array[1:] <= array[:-1]).any():
        return None
    bits = np.zeros(int(array[-1]) + 1, dtype=np.uint8)
    bits[array] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def _decoded(packed: str) -> bytes:
    if len(packed) > len(PREFIX) + MOST // 6 + 4:
        raise ValueError(
            f"a packed set of patches is {len(packed):,} characters long: it spans more than {MOST:,} patches"
        )
    if not packed.startswith(PREFIX):
        raise ValueError(f"{packed[:20]!r} is not a packed set of patches")
    return base64.b64decode(packed.removeprefix(PREFIX), validate=True)
