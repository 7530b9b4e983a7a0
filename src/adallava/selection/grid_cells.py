"""Cuts an image's grid of patches into exactly K cells: the geometry that `uniform` and `pool` share.

4 x 4 patches, K = 5: two bands, of two cells and of three; * is the patch nearest a cell's center

    a* a  b* b
    a  a  b  b
    c* d* e* e
    c  d  e  e
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cell:
    """A rectangle of patches: rows [top, bottom), columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def centre(self, num_columns: int) -> int:
        """Return the index of the patch nearest the cell's center; of two, the upper or left one."""
        return (self.top + self.bottom - 1) // 2 * num_columns + (self.left + self.right - 1) // 2

    def members(self, num_columns: int) -> list[int]:
        """Return the indices of the cell's patches, ascending."""
        return [
            row * num_columns + column
            for row in range(self.top, self.bottom)
            for column in range(self.left, self.right)
        ]


@lru_cache(maxsize=4096)
def grid_cells(grid: tuple[int, int], keep_count: int) -> tuple[Cell, ...]:
    """Return K cells that cover the grid without overlap, in order of their centers' indices.

    The rows are cut into about sqrt(K * rows / columns) bands, so that cells are near square, and the K cells
    are shared over the bands as evenly as possible. At K = N each patch is its own cell.

    Args:
        grid: (rows, columns) of the patches.
        keep_count: K, 0 <= K <= rows * columns.
    """
    rows, columns = grid
    if keep_count == 0:
        return ()
    wanted = round(math.sqrt(keep_count * rows / columns))
    bands = min(max(wanted, -(-keep_count // columns)), rows, keep_count)
    bands = max(bands, 1)
    cells = []
    for band in range(bands):
        in_band = (band + 1) * keep_count // bands - band * keep_count // bands
        top, bottom = band * rows // bands, (band + 1) * rows // bands
        cells += [
            Cell(top, bottom, cell * columns // in_band, (cell + 1) * columns // in_band) for cell in range(in_band)
        ]
    return tuple(cells)


@lru_cache(maxsize=4096)
def centre_indices(grid: tuple[int, int], keep_count: int) -> Tensor:
    """Return the K cells' center patches, [K] int64 on the CPU, ascending."""
    return torch.tensor([cell.centre(grid[1]) for cell in grid_cells(grid, keep_count)], dtype=torch.int64)


@lru_cache(maxsize=512)
def averaging_weights(grid: tuple[int, int], keep_count: int) -> Tensor:
    """Return the matrix that averages each cell, [K, N] float32 on the CPU, rows summing to 1."""
    weights = torch.zeros(keep_count, grid[0] * grid[1])
    for row, cell in enumerate(grid_cells(grid, keep_count)):
        members = cell.members(grid[1])
        weights[row, members] = 1.0 / len(members)
    return weights


def rows_by_keep_count(table_of: Callable[[int], Tensor], keep_counts: Sequence[int], device: torch.device) -> Tensor:
    """Stack `table_of(K)` ([K, ...]) for each row's K, padded with zeros to [I, Kmax, ...], on `device`.

    Each distinct K crosses to the device once, whatever the number of rows.
    """
    distinct = sorted(set(keep_counts))
    k_max = distinct[-1] if distinct else 0
    tables = [table_of(keep_count) for keep_count in distinct]
    stacked = torch.stack(
        [torch.cat([table, table.new_zeros((k_max - len(table), *table.shape[1:]))]) for table in tables]
    ).to(device, non_blocking=True)
    if len(distinct) == 1:
        return stacked.expand(len(keep_counts), *stacked.shape[1:])
    which = torch.tensor([distinct.index(keep_count) for keep_count in keep_counts], dtype=torch.int64)
    return stacked.index_select(0, which.to(device, non_blocking=True))
