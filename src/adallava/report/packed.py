"""Columns of numbers and texts, small enough for a page: deflated, as base64.

Columns and not records, since a run of 10,000 samples and 50 cells has half a million answers.
Whatever the texts are, what is packed cannot end the element that holds it. The page unpacks it with the
browser's `DecompressionStream`.
"""

import base64
import json
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pack_bytes(data: bytes) -> str:
    """Return bytes as base64 of a zlib stream; the same bytes give the same text."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def pack_texts(texts: Sequence[str]) -> str:
    """Return texts as a packed JSON list."""
    text = json.dumps(list(texts), ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate, which JSON may hold and UTF-8 may not, becomes a question mark.
    return pack_bytes(text.encode("utf-8", errors="replace"))


def pack_numbers(numbers: NDArray[np.uint32]) -> str:
    """Return whole numbers, 32 bits each, little end first, row by row."""
    return pack_bytes(np.ascontiguousarray(numbers, dtype="<u4").tobytes())


def bitmap(indices: Sequence[int], num_bits: int) -> bytes:
    """Return a bitmap with these bits set, bit i in byte i // 8 from the lowest; indices outside are left out."""
    bits = np.zeros(num_bits, dtype=np.uint8)
    asked = np.array(indices, dtype=np.int64)
    bits[asked[(asked >= 0) & (asked < num_bits)]] = 1
    return np.packbits(bits, bitorder="little").tobytes()
