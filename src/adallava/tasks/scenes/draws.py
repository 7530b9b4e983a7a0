"""Reproducible random integers, the same on every platform and numpy version."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .vocabulary import TASK_SEED

Item = TypeVar("Item")

_WORD_MASK = 0xFFFFFFFF


class _Source(threading.local):
    """A generator per thread, seeded again for each block: making one costs ten times more."""

    def __init__(self) -> None:
        self.state = np.random.RandomState(0)


_source = _Source()


class Draws:
    """A stream of random integers fixed by a key of non-negative integers.

    Built on `RandomState`, whose stream numpy keeps frozen (NEP 19). Words are taken in
    blocks because a numpy call per integer would cost more than drawing the image.
    """

    __slots__ = ("_block", "_block_words", "_key", "_words")

    def __init__(self, *key: int, block_words: int = 320) -> None:
        """`key`: up to 64 bits per part; equal keys (and block sizes) give equal streams."""
        self._block_words = block_words
        self._key = [TASK_SEED]
        for part in key:
            self._key += (part & _WORD_MASK, part >> 32)
        self._block = 0
        self._words: list[int] = []

    def _refill(self) -> None:
        # The block number is part of the seed, so streams can be read side by side.
        seed = np.array([*self._key, self._block], dtype=np.uint32)
        _source.state.seed(seed)
        block = _source.state.randint(0, 2**32, size=self._block_words, dtype=np.uint32)
        self._words = block.tolist()
        self._block += 1

    def below(self, limit: int) -> int:
        """A uniform integer in 0..limit-1 (bias under limit / 2**32)."""
        if not self._words:
            self._refill()
        return (self._words.pop() * limit) >> 32

    def between(self, low: int, high: int) -> int:
        """A uniform integer in low..high, both included."""
        return low + self.below(high - low + 1)

    def three_below(self, limit: int) -> tuple[int, int, int]:
        """Three independent integers in 0..limit-1, `limit` at most 256, for one draw."""
        rest, first = divmod(self.below(limit**3), limit)
        third, second = divmod(rest, limit)
        return first, second, third

    def choice(self, items: Sequence[Item]) -> Item:
        """One of `items`, uniformly."""
        return items[self.below(len(items))]

    def weighted(self, weights: Sequence[int]) -> int:
        """A position in `weights`, with probability proportional to its weight."""
        ticket = self.below(sum(weights))
        for position, weight in enumerate(weights):
            ticket -= weight
            if ticket < 0:
                return position
        raise AssertionError("weights must be positive")

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """A uniformly shuffled copy of `items` (Fisher-Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result
