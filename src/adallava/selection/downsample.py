"""`downsample`: a smaller image, and the tokens that gives. What resolution alone is worth."""

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from adallava.selection.base import Method
from adallava.selection.grid_cells import Cell, rows_by_keep_count
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape


class DownsampleSelector(Method):
    """Sends a smaller image through the tower, of near the same shape, which gives at most the K asked for.

    The filter of VTC-Bench (arXiv 2510.07143), as a method: samples that it answers need no clever
    selection. Position embeddings are interpolated as transformers does. A token has the position of the patch in the
    middle of what it covers; counted again ("compact"), rows and columns are those of a smaller image.
    """

    name: ClassVar[str] = "downsample"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.RESIZED_PICTURE})
    merges: ClassVar[bool] = True
    per_sample: ClassVar[bool] = False

    def keep_count(self, asked: int, grid: tuple[int, int]) -> int:
        """Return the patches of the largest grid of the image's shape that has at most `asked`."""
        rows, columns = smaller_grid(asked, grid)
        return rows * columns

    def tower_grid(self, keep_count: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of the smaller image."""
        return smaller_grid(keep_count, grid)

    def places(self, keep_count: int, grid: tuple[int, int]) -> Tensor:
        """Return the patches in the middle of what each token covers, [K] int64 on the CPU, ascending."""
        return covered_centres(grid, smaller_grid(keep_count, grid))

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose the places of the smaller image's tokens.

        `inputs.keep_counts` are numbers that `keep_count` returns.
        """
        indices = rows_by_keep_count(
            lambda count: self.places(count, inputs.grid), inputs.keep_counts, inputs.features.device
        )
        return Selection(indices, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return 0: the choice is a table; that the tower runs on fewer patches counts as vision."""
        return 0


@lru_cache(maxsize=4096)
def smaller_grid(asked: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (rows, columns) with at most `asked` patches, both sides scaled alike; (0, 0) for 0.

    A scale leaves one side whole, and rounds the other. Of a square, squares are left.
    """
    if asked <= 0:
        return (0, 0)
    rows, columns = grid
    by_rows = [(row, _scaled(columns, row, rows)) for row in range(1, rows + 1)]
    by_columns = [(_scaled(rows, column, columns), column) for column in range(1, columns + 1)]
    fitting = [shape for shape in by_rows + by_columns if shape[0] * shape[1] <= asked]
    return max(fitting, key=lambda shape: shape[0] * shape[1], default=(1, 1))


def _scaled(side: int, part: int, whole: int) -> int:
    """Return `side * part / whole`, rounded, half down, and at least 1."""
    return max(1, -(-(2 * side * part - whole) // (2 * whole)))


@lru_cache(maxsize=4096)
def covered_centres(grid: tuple[int, int], smaller: tuple[int, int]) -> Tensor:
    """Return the middle patch of each of `smaller`'s cells of `grid`, [K] int64, ascending."""
    (rows, columns), (bands, each) = grid, smaller
    cells = [
        Cell(row * rows // bands, (row + 1) * rows // bands, column * columns // each, (column + 1) * columns // each)
        for row in range(bands)
        for column in range(each)
    ]
    return torch.tensor([cell.centre(columns) for cell in cells], dtype=torch.int64)
