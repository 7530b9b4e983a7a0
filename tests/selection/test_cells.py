import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from selector_inputs import SHAPE, selection_input

from adallava.selection.grid_cells import averaging_weights, centre_indices, grid_cells
from adallava.selection.pool import PoolSelector
from adallava.selection.uniform import UniformSelector

sides = st.integers(min_value=1, max_value=12)


@given(sides, sides, st.data())
def test_k_cells_cover_the_grid_once(rows: int, columns: int, data: st.DataObject) -> None:
    keep_count = data.draw(st.integers(min_value=1, max_value=rows * columns))
    cells = grid_cells((rows, columns), keep_count)
    assert len(cells) == keep_count
    members = [index for cell in cells for index in cell.members(columns)]
    assert sorted(members) == list(range(rows * columns))
    centres = centre_indices((rows, columns), keep_count).tolist()
    assert centres == sorted(set(centres))
    assert all(centre in cell.members(columns) for centre, cell in zip(centres, cells, strict=True))


@pytest.mark.parametrize(
    ("keep_count", "centres"),
    [
        (1, [5]),
        (4, [0, 2, 8, 10]),
        (5, [0, 2, 8, 9, 10]),
        (8, [0, 2, 4, 5, 6, 8, 9, 10]),
        (16, list(range(16))),
        (0, []),
    ],
)
def test_centres_of_a_4_by_4_grid(keep_count: int, centres: list[int]) -> None:
    assert centre_indices((4, 4), keep_count).tolist() == centres


def test_cells_of_a_square_number_are_square() -> None:
    shapes = {(cell.bottom - cell.top, cell.right - cell.left) for cell in grid_cells((16, 16), 64)}
    assert shapes == {(2, 2)}


def test_averaging_weights_of_four_quarters() -> None:
    quarter = torch.tensor([[0.25, 0.25, 0, 0], [0.25, 0.25, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(averaging_weights((4, 4), 4)[0].view(4, 4), quarter)


def test_pooled_tokens_are_means_of_their_cells() -> None:
    inputs = selection_input([4, 6, 24])
    pooled = PoolSelector().select(inputs).apply(inputs.features)
    for row, keep_count in enumerate(inputs.keep_counts):
        for token, cell in enumerate(grid_cells(SHAPE.grid, keep_count)):
            mean = inputs.features[row, cell.members(6)].mean(dim=0)
            torch.testing.assert_close(pooled[row, token], mean)


def test_uniform_keeps_the_patches_that_stand_for_the_pooled_ones() -> None:
    inputs = selection_input([4, 6, 24])
    assert torch.equal(UniformSelector().select(inputs).indices, PoolSelector().select(inputs).indices)
