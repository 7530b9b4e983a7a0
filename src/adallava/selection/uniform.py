"""`uniform`: K tokens spread over the image as evenly as whole patches allow."""

from typing import ClassVar

from adallava.selection.base import Method
from adallava.selection.grid_cells import centre_indices, rows_by_keep_count
from adallava.selection.selector_contract import Selection, SelectionInput, TowerShape


class UniformSelector(Method):
    """Cuts the grid into K cells and keeps the patch nearest each cell's center. All tokens at K = N."""

    name: ClassVar[str] = "uniform"
    reads_question: ClassVar[bool] = False
    per_sample: ClassVar[bool] = False

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        indices = rows_by_keep_count(
            lambda keep_count: centre_indices(inputs.grid, keep_count),
            inputs.keep_counts,
            inputs.features.device,
        )
        return Selection(indices, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return 0: the choice is a table."""
        return 0
