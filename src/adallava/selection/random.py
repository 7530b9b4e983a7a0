"""`random`: K tokens drawn by a seed. The baseline that any method must beat on its own base."""

from typing import ClassVar

import torch
from torch import Tensor

from adallava.selection.base import Method
from adallava.selection.selector_contract import Selection, SelectionInput, TowerShape, keep_highest


class RandomSelector(Method):
    """Keeps the K tokens with the highest hash of (seed, token index).

    A counter-based hash in integer arithmetic needs no generator: a sample gets the same tokens on every
    device and in every batch, and the choice at a smaller K is part of the choice at a larger one.
    """

    name: ClassVar[str] = "random"
    reads_question: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        scores = hash_scores(inputs.seeds, inputs.features.shape[1])
        return keep_highest(scores, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return 0: integer arithmetic only."""
        return 0


def hash_scores(seeds: Tensor, num_tokens: int) -> Tensor:
    """Return a uniform score in [0, 1) for each (seed, token index), [I, N] float32.

    SplitMix64 (Steele, Lea & Flood 2014) as a hash: the token index is the counter of a stream that the seed,
    itself hashed, starts. int64 arithmetic wraps around alike on every device; the highest 24 bits are exact
    in float32.

    Args:
        seeds: [I] int64.
        num_tokens: N.
    """
    counter = torch.arange(1, num_tokens + 1, device=seeds.device, dtype=torch.int64)
    hashed = _mix(_mix(seeds[:, None]) + counter[None, :] * _GOLDEN_GAMMA)
    return _shift_right(hashed, 40).to(torch.float32) / 2.0**24


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST_FACTOR = _signed(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # `>>` keeps the sign; the mask makes it a shift of unsigned numbers.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FIRST_FACTOR
    x = (x ^ _shift_right(x, 27)) * _SECOND_FACTOR
    return x ^ _shift_right(x, 31)
