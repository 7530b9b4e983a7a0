"""`none`: no vision token at all. What the question alone gives away."""

from typing import ClassVar

import torch

from adallava.selection.base import Method
from adallava.selection.selector_contract import Selection, SelectionInput, TowerShape


class NoneSelector(Method):
    """Keeps nothing, whatever the budget: the floor that any score must be read against."""

    name: ClassVar[str] = "none"
    per_sample: ClassVar[bool] = False
    ignores_budget: ClassVar[bool] = True

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose no token of any image."""
        num_images = inputs.features.shape[0]
        indices = torch.zeros((num_images, 0), dtype=torch.int64, device=inputs.features.device)
        return Selection(indices, (0,) * num_images)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return 0."""
        return 0
