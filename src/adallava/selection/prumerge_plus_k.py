"""`prumerge-plus-k`: PruMerge+ at a given K: half by the attention of CLS, half spread over the image."""

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from adallava.selection.prumerge_k import PruMergeKSelector, has_rest


class PruMergePlusKSelector(PruMergeKSelector):
    """PruMerge with half of its kept tokens taken at equal steps through the image.

    PruMerge+ (section 3 of arXiv 2403.15388; code `token_prune_merge_advanced_plus` with `if_adaptive=False`, whose
    ratio of 1/8 gives 72 + 72 tokens, the published 144, and one for the rest). Differs from the code: a token that is
    in both halves counts once, and the next most attended one fills its place; the rest as in `prumerge-k`.
    """

    name: ClassVar[str] = "prumerge-plus-k"
    reads_question: ClassVar[bool] = False

    def priority(self, attention: Tensor, keep_counts: tuple[int, ...]) -> Tensor:
        """Return attention, and more than any attention where a token is of the half that is spread evenly."""
        num_tokens = attention.shape[1]
        spread = [evenly_spread((count - has_rest(count, num_tokens)) // 2, num_tokens) for count in keep_counts]
        return attention + 2.0 * torch.stack(spread).to(attention.device, non_blocking=True)


@lru_cache(maxsize=4096)
def evenly_spread(count: int, num_tokens: int) -> Tensor:
    """Return 1 at `count` tokens, each in the middle of its equal part of the sequence, else 0, [N] float32."""
    marks = torch.zeros(num_tokens)
    marks[[(2 * part + 1) * num_tokens // (2 * count) for part in range(count)]] = 1.0
    return marks
