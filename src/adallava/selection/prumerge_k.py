"""`prumerge-k`: PruMerge at a given K: the tokens CLS looks at, each with its nearest neighbors merged in."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.selection.base import Method
from adallava.selection.marked import keep_all, mark, marked_in_order, on_device, rows_at
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape, top_k_in_order

NUM_NEIGHBOURS = 32
"""Tokens merged into each kept one: the code's figure, the paper's k."""


class PruMergeKSelector(Method):
    """Keeps the K - 1 tokens that CLS looks at most, merges neighbors into them, and adds one token for the rest.

    PruMerge (Shang et al., section 3, arXiv 2403.15388; code 42Shawn/LLaVA-PruMerge, `clip_encoder.py`,
    `token_prune_merge_advanced` with `if_adaptive=False`), at a given K as in other papers' tables. As in the code:
    attention is one head over the whole width, softmaxed over all tokens, of the tower's *last* layer (index 23 of
    24; the features are that layer's input in LLaVA-1.5); each kept token gets the 32 others with the nearest keys
    added, weighted by their attention without normalizing; all tokens not kept, weighted alike, are added up to one
    more token. So rows of `merge_weights` sum to a little over 1, and for the last token to less.

    Where features are the last layer's output, the last layer is still the one that is read.

    Differs from the code: K counts the token for the rest (the code's K comes out as K + 1), which takes the position
    of the token most looked at among those not kept; K = 1 is one kept token; ascending indices.
    """

    name: ClassVar[str] = "prumerge-k"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLS_TOKEN, Need.LAST_LAYER})
    merges: ClassVar[bool] = True

    def priority(self, attention: Tensor, keep_counts: tuple[int, ...]) -> Tensor:
        """Return what tokens are kept by, [I, N], from the attention of CLS, which is below 1."""
        return attention

    def select(self, inputs: SelectionInput) -> Selection:
        """Keep and merge into exactly `inputs.keep_counts[i]` tokens of image i."""
        assert inputs.last_layer is not None
        counts, num_tokens = inputs.keep_counts, inputs.features.shape[1]
        if all(count == num_tokens for count in counts):
            return keep_all(inputs.features, counts)
        attention = inputs.last_layer.cls_attention(num_heads=1).squeeze(1)
        centres = [count - has_rest(count, num_tokens) for count in counts]
        is_centre = mark(top_k_in_order(self.priority(attention, counts), centres), centres, num_tokens)
        rest = [has_rest(count, num_tokens) for count in counts]
        most_seen = top_k_in_order(attention.masked_fill(is_centre, -1.0), rest)
        is_rest = mark(most_seen, rest, num_tokens) if any(rest) else torch.zeros_like(is_centre)
        indices = marked_in_order(is_centre | is_rest, counts)
        merged = _with_neighbours(inputs.last_layer.patch_keys, attention, indices)
        own = torch.zeros_like(merged).scatter(2, indices.unsqueeze(-1), 1.0)
        is_full = on_device([count == num_tokens for count in counts], indices).bool().unsqueeze(-1)
        weights = torch.where(is_full, own, own + merged)
        of_rest = (attention * ~is_centre).unsqueeze(1)
        weights = torch.where(is_rest.gather(1, indices).unsqueeze(-1), of_rest, weights)
        return Selection(indices, counts, scores=attention, merge_weights=weights)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the products of CLS with the keys, of kept keys with all keys, and of merging."""
        num_tokens = shape.num_vision_tokens
        if keep_count == num_tokens:
            return 0
        attention = 2 * (num_tokens + 1) * shape.layer_width
        return attention + 2 * keep_count * num_tokens * (shape.layer_width + shape.vision_width)


def has_rest(keep_count: int, num_tokens: int) -> int:
    """Return 1 if one of K tokens represents all that are not kept, else 0."""
    return int(1 < keep_count < num_tokens)


def outlier_count(attention: Tensor) -> Tensor:
    """Return how many values of each row lie above the third quartile by 1.5 times the range between quartiles, [I]."""
    ascending = attention.sort(dim=1).values
    lower, upper = _quantile(ascending, 0.25), _quantile(ascending, 0.75)
    return (attention > upper + 1.5 * (upper - lower)).sum(dim=1)


def _quantile(ascending: Tensor, share: float) -> Tensor:
    """Return each row's quantile, interpolated linearly, [I, 1]; unlike `torch.quantile`, without a copy to the GPU."""
    place = share * (ascending.shape[1] - 1)
    below = int(place)
    above = min(below + 1, ascending.shape[1] - 1)
    return ascending[:, below, None].lerp(ascending[:, above, None], place - below)


def _with_neighbours(keys: Tensor, attention: Tensor, indices: Tensor) -> Tensor:
    """Return the attention of each kept token's nearest others, [I, K, N], zero elsewhere."""
    normed = F.normalize(keys.float(), dim=-1)
    cosines = rows_at(normed, indices) @ normed.transpose(1, 2)
    others = cosines.scatter(2, indices.unsqueeze(-1), -float("inf"))
    near = others.topk(min(NUM_NEIGHBOURS, keys.shape[1] - 1), dim=2).indices
    weights = attention.unsqueeze(1).expand_as(cosines)
    return torch.zeros_like(cosines).scatter(2, near, weights.gather(2, near))
