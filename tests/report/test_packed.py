import base64
import json
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adallava.report.packed import bitmap, pack_bytes, pack_numbers, pack_texts


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


@given(st.binary())
def test_bytes_come_back_and_their_text_cannot_be_markup(data: bytes) -> None:
    packed = pack_bytes(data)

    assert unpacked(packed) == data
    assert not set(packed) & set("<>&\"'")


@given(st.lists(st.text()))
def test_texts_come_back(texts: list[str]) -> None:
    assert json.loads(unpacked(pack_texts(texts))) == texts


def test_half_a_surrogate_pair_is_no_reason_to_fail() -> None:
    assert json.loads(unpacked(pack_texts(["a\ud83d"]))) == ["a?"]


def test_numbers_are_little_end_first() -> None:
    assert unpacked(pack_numbers(np.array([1, 258], dtype=np.uint32))) == bytes([1, 0, 0, 0, 2, 1, 0, 0])


@given(st.sets(st.integers(0, 99)))
def test_a_bitmap_holds_its_indices(indices: set[int]) -> None:
    bits = bitmap(sorted(indices), 100)

    assert len(bits) == 13
    assert {i for i in range(104) if bits[i >> 3] >> (i & 7) & 1} == indices


def test_an_index_outside_is_left_out() -> None:
    assert bitmap([0, 9, 400, -1], 9) == bytes([1, 0])
