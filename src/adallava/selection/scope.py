"""`scope`: greedy coverage of all tokens, weighted by attention."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.selection.base import Method
from adallava.selection.greedy import choose_greedily
from adallava.selection.selector_contract import (
    AskedAttention,
    Need,
    Selection,
    SelectionInput,
    TowerShape,
)


class ScopeSelector(Method):
    """Each pick is the token that adds most to how well all tokens are covered, times its attention.

    SCOPE (Deng et al., arXiv 2510.24214; code kinredon/SCOPE, `scope/clip_encoder.py`, `SCOPE`). A token is covered
    by its largest cosine with a kept one, at least 0; cosines are of the tower's features. Attention is the class
    token's in the layer that puts out the features.

    Differs: where the tower has no class token, which the code cannot do, attention is what a token receives from all
    (as others port it to Qwen2.5-VL); attention is averaged over heads, not summed, which multiplies all scores alike;
    cosines are float32, not half precision; ascending indices.

    Cost: the K picks depend on each other, so K steps of a few kernels over [I, N, N].

    Args:
        alpha: attention's exponent.
    """

    name: ClassVar[str] = "scope"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.ATTENTION_RECEIVED})
    asked_attention = (AskedAttention(1.0, of_class_token=True),)

    def __init__(self, alpha: float = 1.0) -> None:
        """Take the option.

        Raises:
            InputError: for a negative one.
        """
        if not alpha >= 0:
            raise InputError(f"scope: alpha is the exponent of attention and must be at least 0, not {alpha}")
        self._alpha = alpha

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        return choose_greedily(self, inputs)

    def table(self, inputs: SelectionInput) -> tuple[Tensor, Tensor]:
        """Return cosines of tokens with all tokens and, last, each token's weight, [I, N, N + 1]; and attention."""
        assert inputs.attention_received is not None
        scores = inputs.attention_received[..., 0]
        normed = F.normalize(inputs.features.float(), dim=-1)
        return torch.cat([normed @ normed.transpose(1, 2), (scores**self._alpha).unsqueeze(-1)], dim=-1), scores

    def order(self, table: Tensor, steps: int) -> Tensor:
        """Return the first picks, [I, steps] int64."""
        similarity, weights = table[..., :-1], table[..., -1]
        covered, picks = torch.zeros_like(weights), []
        taken = torch.zeros_like(weights)
        for _ in range(steps):
            gains = (similarity - covered.unsqueeze(1)).clamp_min(0).sum(dim=-1) * weights + taken
            picks.append(gains.argmax(dim=1, keepdim=True))
            row = picks[-1].unsqueeze(-1).expand(-1, 1, similarity.shape[-1])
            covered = torch.maximum(covered, similarity.gather(1, row).squeeze(1))
            taken = taken.scatter(1, picks[-1], -float("inf"))
        return torch.cat(picks, dim=1)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the product of all pairs of tokens; 0 at K = N."""
        if keep_count in (0, shape.num_vision_tokens):
            return 0
        return 2 * shape.num_vision_tokens**2 * shape.vision_width
