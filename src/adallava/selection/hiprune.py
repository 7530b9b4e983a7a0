"""`hiprune`: what a middle layer of the tower looks at with its neighbors, and what its last layer looks at."""

from typing import ClassVar

import torch
from torch import Tensor

from adallava.errors import InputError
from adallava.selection.base import Method
from adallava.selection.marked import mark
from adallava.selection.selector_contract import (
    AskedAttention,
    Need,
    Selection,
    SelectionInput,
    TowerShape,
    top_k_in_order,
)

_CROSS = 5
"""Tokens of an anchor and its neighbors."""


class HiPruneSelector(Method):
    """Keeps anchors with their buffers, and registers.

    HiPrune (Liu et al., section 3, arXiv 2508.00553; code Danielement321/HiPrune, `llava_arch.py` and
    `qwen2_5_vl_HiPrune.py`). Anchors receive the most attention in a middle layer; buffers are the four tokens around
    them; registers, all the rest of K, receive the most in the layer that puts out the features. Attention received
    is the mean over heads and over all tokens, so that no class token is needed. Of K, round(alpha * K / 5) are
    anchors.

    As in the code, neighbors of a token at the end of a row are those in the row's order (the next row's first), and
    those above and below the image are its first and its last token. Differs: a row-end token of LLaVA-NeXT counts
    in its row, and the tiles of an image are one grid; more anchors and buffers than K, which the code cannot do, are
    cut to those that receive most.

    Args:
        alpha: share of anchors and buffers in K.
        depth: share of the tower's layers at which the middle layer is: 9 of 24 as in the code. In a tower with
            windows, as Qwen2.5-VL's of 32, it is the nearest that sees the whole image: the code's 16.
    """

    name: ClassVar[str] = "hiprune"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.ATTENTION_RECEIVED})

    def __init__(self, alpha: float = 0.1, depth: float = 0.375) -> None:
        """Take the options.

        Raises:
            InputError: for one outside of its range.
        """
        if not 0 <= alpha <= 1:
            raise InputError(f"hiprune: alpha is a share of K and must be in [0, 1], not {alpha}")
        if not 0 < depth <= 1:
            raise InputError(f"hiprune: depth is a share of the tower's layers and must be in (0, 1], not {depth}")
        self._alpha, self._depth = alpha, depth

    @property
    def asked_attention(self) -> tuple[AskedAttention, ...]:
        """A middle layer's, and that of the layer that puts out the features."""
        return AskedAttention(self._depth), AskedAttention(1.0)

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        assert inputs.attention_received is not None
        middle, last = inputs.attention_received.unbind(dim=-1)
        anchors = [round(count * self._alpha / _CROSS) for count in inputs.keep_counts]
        # Attention received is at most 1, so that marked tokens come first.
        ranked = last + 2.0 * _with_neighbours(middle, anchors, inputs.grid[1])
        return Selection(top_k_in_order(ranked, inputs.keep_counts), inputs.keep_counts, scores=last)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return 0: no matrix product; what the tower tells is counted with it."""
        return 0


def _with_neighbours(scores: Tensor, counts: list[int], width: int) -> Tensor:
    """Return 1 for each row's highest tokens and those around them, [I, N] float32.

    Args:
        scores: [I, N].
        counts: highest tokens of each row, on the host.
        width: tokens in a row of the grid.
    """
    num_tokens = scores.shape[1]
    marks = mark(top_k_in_order(scores, counts), counts, num_tokens)
    around = marks.float()
    places = torch.arange(num_tokens, device=scores.device)
    for step in (-1, 1, -width, width):
        reached = (places + step).clamp(0, num_tokens - 1).expand_as(scores)
        around = around.scatter_reduce(1, reached, marks.float(), "amax")
    return around
