"""`tome`: the most similar tokens are averaged, until K are left."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.selection.base import Method
from adallava.selection.marked import keep_all, rows_at
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape


class ToMeSelector(Method):
    """Bipartite soft matching on the tower's output: tokens are split in two, and the most similar pairs merged.

    Token Merging (Bolya et al., section 3, arXiv 2210.09461; code facebookresearch/ToMe,
    `bipartite_soft_matching`). As there, a token is compared by its keys averaged over heads, merged tokens are means
    weighted by how many patches they hold, and a round removes at most half.

    Differs from the paper, which merges a few tokens inside every layer of the tower: here the tower is the stock
    model's, and rounds follow each other after it, with the keys of the layer that puts out the features, averaged
    as the tokens are; attention does not know how large a token is. Between rounds, tokens that did not merge come
    first in the image's order, then those of the other half (as in the code with a class token). A merged token has the
    position of the patch that the others joined; ascending indices.

    Rounds are as many as halvings from N to K; rows with the same K share them.
    """

    name: ClassVar[str] = "tome"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURE_LAYER})
    merges: ClassVar[bool] = True
    # What is merged into what is the image's own; which places are left is not, wherever rounds halve.
    per_sample: ClassVar[bool] = False

    def select(self, inputs: SelectionInput) -> Selection:
        """Merge the tokens of image i into exactly `inputs.keep_counts[i]`."""
        assert inputs.feature_layer is not None
        counts, (num_images, num_tokens) = inputs.keep_counts, inputs.features.shape[:2]
        if all(count == num_tokens for count in counts):
            return keep_all(inputs.features, counts)
        metric = inputs.feature_layer.mean_patch_keys
        indices = torch.zeros((num_images, max(counts)), dtype=torch.int64, device=metric.device)
        weights = metric.new_zeros((num_images, max(counts), num_tokens))
        for count in sorted(set(counts) - {0}):
            same = [image for image, asked in enumerate(counts) if asked == count]
            rows = torch.tensor(same, dtype=torch.int64).to(metric.device, non_blocking=True)
            stands_for, made_of = merge_to(metric.index_select(0, rows), count)
            indices[:, :count] = indices[:, :count].index_copy(0, rows, stands_for)
            weights[:, :count] = weights[:, :count].index_copy(0, rows, made_of)
        return Selection(indices, counts, merge_weights=weights)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the products of the two halves' keys in every round, and of merging."""
        if keep_count in (0, shape.num_vision_tokens):
            return 0
        compared, left = 0, shape.num_vision_tokens
        for removed in merge_rounds(left, keep_count):
            compared += 2 * (left - left // 2) * (left // 2) * shape.head_width
            left -= removed
        return compared + 2 * keep_count * shape.num_vision_tokens * shape.vision_width


def merge_rounds(num_tokens: int, keep_count: int) -> list[int]:
    """Return how many tokens each round removes, at most half of those left, until K >= 1 are left."""
    rounds = []
    while num_tokens > keep_count:
        rounds.append(min(num_tokens // 2, num_tokens - keep_count))
        num_tokens -= rounds[-1]
    return rounds


def merge_to(metric: Tensor, keep_count: int) -> tuple[Tensor, Tensor]:
    """Return the patches that K merged tokens represent, [I, K] int64 ascending, and their weights, [I, K, N].

    Args:
        metric: [I, N, M], what tokens are compared by.
        keep_count: K >= 1.
    """
    num_images, num_tokens = metric.shape[:2]
    places = torch.arange(num_tokens, device=metric.device).expand(num_images, -1)
    holds = torch.eye(num_tokens, device=metric.device).expand(num_images, -1, -1)
    for removed in merge_rounds(num_tokens, keep_count):
        metric, places, holds = _merge_round(metric, places, holds, removed)
    order = places.argsort(dim=1)
    averaged = holds / holds.sum(dim=2, keepdim=True)
    return places.gather(1, order), rows_at(averaged, order)


def _merge_round(metric: Tensor, places: Tensor, holds: Tensor, removed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the `removed` tokens at even places that have the nearest neighbors at odd places into those."""
    normed = F.normalize(metric, dim=-1)
    nearest, partner = (normed[:, ::2] @ normed[:, 1::2].transpose(1, 2)).max(dim=-1)
    ranked = nearest.argsort(dim=1, descending=True, stable=True)
    source, stays = ranked[:, :removed], ranked[:, removed:].sort(dim=1).values
    target = partner.gather(1, source).unsqueeze(-1)

    def merged(values: Tensor) -> Tensor:
        """Return the sums of what is merged, and the rest as it is."""
        even, odd = values[:, ::2], values[:, 1::2]
        joined = odd.scatter_add(1, target.expand(-1, -1, odd.shape[-1]), rows_at(even, source))
        return torch.cat([rows_at(even, stays), joined], dim=1)

    size = holds.sum(dim=2, keepdim=True)
    metric = merged(metric * size) / merged(size)
    places = torch.cat([places[:, ::2].gather(1, stays), places[:, 1::2]], dim=1)
    return metric, places, merged(holds)
