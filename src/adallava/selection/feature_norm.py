"""`feature-norm`: the K tokens with the largest norm. What a tower's outliers alone are worth."""

from typing import ClassVar

from adallava.selection.base import Method
from adallava.selection.selector_contract import Selection, SelectionInput, TowerShape, keep_highest


class FeatureNormSelector(Method):
    """Keeps the K tokens whose features are longest (L2).

    A baseline of this project, after the observation that a few tokens of large norm hold global information
    (Darcet et al., "Vision Transformers Need Registers", section 2, arXiv 2309.16588); no paper proposes it.
    """

    name: ClassVar[str] = "feature-norm"
    reads_question: ClassVar[bool] = False

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        scores = inputs.features.float().norm(dim=-1)
        return keep_highest(scores, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return 0: no matrix product."""
        return 0
