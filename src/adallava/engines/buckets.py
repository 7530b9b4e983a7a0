"""The lengths that graphs are captured for: few, since each is captured once, and close, since padding is computed."""

SMALLEST = 16
"""Tokens. A matrix product on a GPU works on rows by tiles of at least as many."""

CAPACITY_STEP = 256
"""Columns. What lies after a sample's tokens is read and masked in each decoded token: 256 columns of a 7B model are
134 MB, 0.03 ms of an H200."""


def bucket(length: int) -> int:
    """Return the length that a prompt of `length` tokens is padded to: at most an eighth more, or 15 tokens.

    1-16 -> 16      129-144 -> 144      257-288 -> 288      577-640 -> 640
    """
    step = SMALLEST
    while length > 16 * step:
        step *= 2
    return -(-length // step) * step


def capacity(length: int) -> int:
    """Return the columns of a cache that `length` tokens are to fit into."""
    return -(-length // CAPACITY_STEP) * CAPACITY_STEP
