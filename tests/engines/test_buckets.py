"""Buckets are few, hold what they are for, and cost little."""

from hypothesis import given
from hypothesis import strategies as st

from adallava.engines.buckets import bucket, capacity


def test_buckets_as_written_down() -> None:
    assert [bucket(length) for length in (1, 16, 17, 134, 256, 257, 640, 641)] == [16, 16, 32, 144, 256, 288, 640, 704]
    assert [capacity(length) for length in (1, 256, 257)] == [256, 256, 512]


@given(st.integers(1, 100_000))
def test_a_bucket_holds_its_length_and_an_eighth_more_at_most(length: int) -> None:
    padded = bucket(length)
    assert length <= padded == bucket(padded)
    assert padded - length < max(16, length / 8 + 1)


def test_few_buckets() -> None:
    assert len({bucket(length) for length in range(1, 4097)}) <= 16 + 4 * 8
