"""`visionzip`: the tokens that CLS looks at, and a few that the rest are merged into."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.selection.base import Method
from adallava.selection.marked import keep_all, mark, marked_in_order, on_device, rows_at
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape, top_k_in_order


class VisionZipSelector(Method):
    """Keeps dominant tokens by the attention of CLS, and merges the others into contextual ones.

    VisionZip (Yang et al., section 3, arXiv 2412.04467; code dvlab-research/VisionZip, `visionzip/clip_encoder.py`).
    Attention is summed over heads. Of the tokens that are left, every so many in the image's order is a contextual
    one; each other joins the contextual token whose key (averaged over heads) is nearest, and the mean of those that
    joined is *added* to it: rows of `merge_weights` sum to 2. Attention, keys and features are of one layer, the one
    that puts out the features (`attentions[-2]` and `hidden_states[-2]` in the code).

    Of K, 10 in 64 are contextual: the paper's 54 + 10, 108 + 20 and 162 + 30. Differs from the code: the paper's
    dominant tokens include CLS itself, ours are patches alone (CLS never reaches the LLM here), one more of them; a
    merged token has the position of the contextual patch; ascending indices (the code puts contextual ones last).
    """

    name: ClassVar[str] = "visionzip"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLS_TOKEN, Need.FEATURE_LAYER})
    merges: ClassVar[bool] = True

    def select(self, inputs: SelectionInput) -> Selection:
        """Keep and merge into exactly `inputs.keep_counts[i]` tokens of image i."""
        assert inputs.feature_layer is not None
        counts, num_tokens = inputs.keep_counts, inputs.features.shape[1]
        if all(count == num_tokens for count in counts):
            return keep_all(inputs.features, counts)
        scores = inputs.feature_layer.cls_attention().sum(dim=1)
        contextual = [contextual_count(count) for count in counts]
        dominant = [count - merged for count, merged in zip(counts, contextual, strict=True)]
        is_dominant = mark(top_k_in_order(scores, dominant), dominant, num_tokens)
        if max(contextual) == 0:
            return Selection(marked_in_order(is_dominant, counts), counts, scores=scores)
        steps = [
            max(1, (num_tokens - kept) // max(1, merged)) for kept, merged in zip(dominant, contextual, strict=True)
        ]
        rank, step = (~is_dominant).cumsum(dim=1) - 1, on_device(steps, scores)
        is_target = ~is_dominant & (rank % step == 0) & (rank // step < on_device(contextual, scores))
        indices = marked_in_order(is_dominant | is_target, counts)
        weights = _merge_weights(inputs.feature_layer.mean_patch_keys, is_dominant, is_target, contextual)
        return Selection(indices, counts, scores=scores, merge_weights=rows_at(weights, indices))

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the products of CLS with the keys, of keys with contextual keys, and of merging."""
        num_tokens, contextual = shape.num_vision_tokens, contextual_count(keep_count)
        if keep_count == num_tokens:
            return 0
        attention = 2 * (num_tokens + 1) * shape.layer_width
        if contextual == 0:
            return attention
        return attention + 2 * num_tokens * (contextual * shape.head_width + keep_count * shape.vision_width)


def contextual_count(keep_count: int) -> int:
    """Return how many of K tokens are contextual: 10 in 64, rounded."""
    return (10 * keep_count + 32) // 64


def _merge_weights(keys: Tensor, is_dominant: Tensor, is_target: Tensor, contextual: list[int]) -> Tensor:
    """Return, for every token, what it would be made of, [I, N, N]: itself, and the mean of those that join it."""
    num_tokens = keys.shape[1]
    normed = F.normalize(keys, dim=-1)
    targets = marked_in_order(is_target, contextual)
    counts = on_device(contextual, keys)
    similarity = normed @ rows_at(normed, targets).transpose(1, 2)
    unused = torch.arange(targets.shape[1], device=keys.device)[None, :] >= counts
    nearest = similarity.masked_fill(unused.unsqueeze(1), -float("inf")).argmax(dim=2)
    joins = (~(is_dominant | is_target) & (counts > 0)).float()
    joined = torch.zeros_like(similarity[:, :1, :1]).expand(-1, num_tokens, num_tokens)
    joined = joined.scatter(1, targets.gather(1, nearest).unsqueeze(1), joins.unsqueeze(1))
    return joined / joined.sum(dim=2, keepdim=True).clamp_min(1) + torch.eye(num_tokens, device=keys.device)
