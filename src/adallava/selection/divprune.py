"""`divprune`: the K tokens that lie farthest apart."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.selection.base import Method
from adallava.selection.greedy import choose_greedily
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape


class DivPruneSelector(Method):
    """Greedy max-min diversity: each pick is the token whose nearest kept neighbor is farthest away.

    DivPrune (Alvar et al., section 3, arXiv 2503.02175; code vbdi/divprune, `LlavaMetaForCausalLM.DivPrune`). As
    there, distance is 1 minus the cosine of tokens after the projector, and the first pick is the token whose
    nearest other token is farthest away.

    Differs from the code: distances are float32 (the code keeps the model's half precision), a token is never picked
    twice (the code may, for tokens that are equal), and indices are ascending (so are they in the code since its
    issue 8).

    Cost: the K picks depend on each other, so K steps of four kernels over [I, N].
    """

    name: ClassVar[str] = "divprune"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PROJECTED})

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        return choose_greedily(self, inputs)

    def table(self, inputs: SelectionInput) -> tuple[Tensor, None]:
        """Return the distances between tokens, [I, N, N]."""
        assert inputs.projected is not None
        normed = F.normalize(inputs.projected.float(), dim=-1)
        return 1.0 - normed @ normed.transpose(1, 2), None

    def order(self, table: Tensor, steps: int) -> Tensor:
        """Return the first picks, [I, steps] int64."""
        return max_min_order(table, steps)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the product of all pairs of tokens; 0 at K = N. The projector over N tokens counts as projector."""
        if keep_count in (0, shape.num_vision_tokens):
            return 0
        return 2 * shape.num_vision_tokens**2 * shape.llm_width


def max_min_order(distances: Tensor, steps: int) -> Tensor:
    """Return the first picks of greedy max-min diversity, [I, steps] int64.

    Args:
        distances: [I, N, N].
        steps: how many picks, at least 1.
    """
    num_tokens = distances.shape[1]
    # Of the two nearest of each token, the first is itself.
    nearest = distances.topk(min(2, num_tokens), dim=2, largest=False).values[..., -1]
    picks = [nearest.argmax(dim=1, keepdim=True)]
    to_kept = torch.full_like(nearest, float("inf"))
    for _ in range(steps - 1):
        row = picks[-1].unsqueeze(-1).expand(-1, 1, num_tokens)
        to_kept = torch.minimum(to_kept, distances.gather(1, row).squeeze(1)).scatter(1, picks[-1], -float("inf"))
        picks.append(to_kept.argmax(dim=1, keepdim=True))
    return torch.cat(picks, dim=1)
