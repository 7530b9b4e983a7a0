"""Sets of patches as text: a bitmap in base64, so that an answer's line is hundreds of bytes and not thousands.

Of N patches 4 N / 24 characters, whatever the choice; a list of indices takes 4 to 5 characters for each.
"""

import base64
from collections.abc import Sequence

import numpy as np

MOST = 2**20
"""Above any number of patches: a list that names a greater one is damage, and no reason to fill memory with bits."""

PREFIX = "bits:"
"""Begins every packed set, so that a file says itself how it is to be read."""


def pack(indices: Sequence[int]) -> str | list[int]:
    """Return ascending indices as text, or as they are where they are no ascending set, or text would be longer.

    Bit i is bit i % 8, from the lowest, of byte i // 8; bytes behind the last index are left out.
    """
    listed = list(indices)
    if not listed:
        return listed
    array = np.asarray(listed, dtype=np.int64)
    if array[0] < 0 or array[-1] >= MOST or (array[1:] <= array[:-1]).any():
        return listed
    bits = np.zeros(int(array[-1]) + 1, dtype=np.uint8)
    bits[array] = 1
    text = PREFIX + base64.b64encode(np.packbits(bits, bitorder="little").tobytes()).decode("ascii")
    # Of the two, with their quotes or brackets; in a line no blanks stand behind commas.
    return text if len(text) + 2 <= len(str(listed)) - (len(listed) - 1) else listed


def unpack(packed: object) -> object:
    """Return what `pack` was given, as a tuple; anything that is no text is returned as it is: an older file's list.

    Raises:
        ValueError: for text that is no packed set.
    """
    if not isinstance(packed, str):
        return packed
    if len(packed) > len(PREFIX) + MOST // 6 + 4:
        raise ValueError(
            f"a packed set of patches is {len(packed):,} characters long: it spans more than {MOST:,} patches"
        )
    if not packed.startswith(PREFIX):
        raise ValueError(f"{packed[:20]!r} is no packed set of patches")
    data = base64.b64decode(packed.removeprefix(PREFIX), validate=True)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
    return tuple(np.flatnonzero(bits).tolist())
