"""`pool`: average pooling to exactly K tokens. With an adapted base, the training-free method to beat."""

from typing import ClassVar

from adallava.selection.base import Method
from adallava.selection.grid_cells import averaging_weights, centre_indices, rows_by_keep_count
from adallava.selection.selector_contract import Selection, SelectionInput, TowerShape


class PoolSelector(Method):
    """Cuts the grid into K cells and averages each; the center patch gives the merged token its position."""

    name: ClassVar[str] = "pool"
    reads_question: ClassVar[bool] = False
    merges: ClassVar[bool] = True
    per_sample: ClassVar[bool] = False

    def select(self, inputs: SelectionInput) -> Selection:
        """Merge the tokens of image i into exactly `inputs.keep_counts[i]`."""
        grid, device = inputs.grid, inputs.features.device
        indices = rows_by_keep_count(lambda count: centre_indices(grid, count), inputs.keep_counts, device)
        if all(count == grid[0] * grid[1] for count in inputs.keep_counts):
            # Every cell is one patch: a gather is exact in every number format, a product need not be.
            return Selection(indices, inputs.keep_counts)
        weights = rows_by_keep_count(lambda count: averaging_weights(grid, count), inputs.keep_counts, device)
        return Selection(indices, inputs.keep_counts, merge_weights=weights)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the product of the averaging matrix [K, N] and the features [N, C]; 0 at K = N."""
        if keep_count == shape.num_vision_tokens:
            return 0
        return 2 * keep_count * shape.num_vision_tokens * shape.vision_width
