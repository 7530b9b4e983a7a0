"""`vispruner`: half of K by attention, and of the rest those that are least alike."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.selection.base import Method
from adallava.selection.selector_contract import (
    AskedAttention,
    Need,
    Selection,
    SelectionInput,
    TowerShape,
)

_DROPPED_A_STEP = 8


class VisPrunerSelector(Method):
    """Keeps important tokens, and drops duplicates among the others until K are left.

    VisPruner (Zhang et al., "Beyond Text-Visual Attention", arXiv 2412.01818; code Theia-4869/VisPruner,
    `llava_arch.py`, `encode_images`). Important tokens have the most attention of the class token in the layer that
    puts out the features; in a tower without one, they receive the most from all tokens. The others, in the order of
    their attention, are taken by turns into two halves; of the first half the 8 with the nearest token in the second
    (cosine of the tower's features) are dropped, what is left of it goes in front of the second, and so on.

    Differs: cosines are float32, not half precision; of an odd number of tokens the first half has one more, where
    the code stops with an error, and no half gives more than it has. In a tower without a class token the code reads
    its last layer, ours the one that puts out the features, which are the same in LLaVA-OneVision's.

    Cost: (N - K) / 8 steps of some ten small kernels each, and no wait for the device.

    Args:
        important_ratio: share of important tokens in K.
    """

    name: ClassVar[str] = "vispruner"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.ATTENTION_RECEIVED})
    asked_attention = (AskedAttention(1.0, of_class_token=True),)

    def __init__(self, important_ratio: float = 0.5) -> None:
        """Take the option.

        Raises:
            InputError: for one outside of its range.
        """
        if not 0 <= important_ratio <= 1:
            raise InputError(f"vispruner: important_ratio is a share of K and must be in [0, 1], not {important_ratio}")
        self._important_ratio = important_ratio

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        assert inputs.attention_received is not None
        scores, counts = inputs.attention_received[..., 0], inputs.keep_counts
        ranked = scores.argsort(dim=1, descending=True, stable=True)
        rows = [self._kept(inputs.features[row], ranked[row], count).sort().values for row, count in enumerate(counts)]
        most = max(counts, default=0)
        indices = [F.pad(kept, (0, most - count)) for kept, count in zip(rows, counts, strict=True)]
        return Selection(torch.stack(indices), counts, scores=scores)

    def _kept(self, features: Tensor, ranked: Tensor, keep_count: int) -> Tensor:
        """Return the K tokens that one image keeps, of [N, C] and the order of their attention, [N]."""
        num_diverse = self._num_diverse(keep_count)
        important, others = ranked.tensor_split([keep_count - num_diverse])
        if num_diverse == 0 or num_diverse == len(others):
            return ranked[:keep_count] if num_diverse == 0 else ranked
        normed = F.normalize(features[others].float(), dim=-1)
        left = least_alike(normed @ normed.transpose(0, 1), num_diverse)
        return torch.cat([important, others[left]])

    def _num_diverse(self, keep_count: int) -> int:
        return keep_count - int(keep_count * self._important_ratio)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the product of all pairs of the tokens that are not important; 0 where none of them is dropped."""
        num_diverse = self._num_diverse(keep_count)
        if num_diverse == 0 or keep_count == shape.num_vision_tokens:
            return 0
        return 2 * (shape.num_vision_tokens - keep_count + num_diverse) ** 2 * shape.vision_width


def least_alike(similarity: Tensor, count: int) -> Tensor:
    """Return the places of `count` tokens that are left when duplicates are dropped, [count] int64, in no order.

    Args:
        similarity: [R, R], of tokens in the order in which they are taken by turns.
        count: at least 1.
    """
    left = torch.arange(len(similarity), device=similarity.device)
    while len(left) > count:
        first, second = left[::2], left[1::2]
        dropped = min(_DROPPED_A_STEP, len(left) - count, len(first))
        nearest = similarity[first[:, None], second[None, :]].amax(dim=1)
        distinct = nearest.argsort(descending=True, stable=True)[dropped:]
        left = torch.cat([first[distinct], second])
    return left
