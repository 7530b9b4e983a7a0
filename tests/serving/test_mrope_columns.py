"""Positions of a prompt whose pictures lost tokens, against the full prompt's, worked out by hand."""

import pytest
import torch

from adallava.serving.mrope_columns import MOST_A_SIDE, Run, as_channels, from_channels, full_prompt, gathered, placed

I = 9  # noqa: E741
FULL = torch.tensor(
    [
        [0, 1, 1, 1, 1, 1, 1, 4, 5],
        [0, 1, 1, 1, 2, 2, 2, 4, 5],
        [0, 1, 2, 3, 1, 2, 3, 4, 5],
    ]
)
"""One token, a picture of 2 x 3, two tokens."""


def test_a_prompt_is_filled_up_and_its_columns_found() -> None:
    full, starts, columns = full_prompt([5, I, I, 6, 7], [Run(start=1, kept=2, total=6)])
    assert full == [5, I, I, I, I, I, I, 6, 7]
    assert starts == [1]
    assert columns.tolist() == [0, 1, 2, 7, 8]


def test_of_two_pictures_one_whole() -> None:
    full, starts, columns = full_prompt([I, 5, I, I, 6], [Run(0, 1, 3), Run(2, 2, 2)])
    assert full == [I, I, I, 5, I, I, 6]
    assert starts == [0, 4]
    assert columns.tolist() == [0, 3, 4, 5, 6]


def test_text_behind_a_picture_stands_where_it_stood_before_and_after_the_choice() -> None:
    before, delta = gathered(FULL, torch.tensor([0, 1, 2, 7, 8]))
    assert delta == 1  # The sixth token stands at 6.
    assert before[:, 3:].tolist() == [[4, 5]] * 3
    kept = torch.tensor([[0, 0, 1], [0, 1, 2]])
    after = placed(before, torch.tensor([False, True, True, False, False]), [kept], start=0)
    assert torch.equal(after, FULL[:, [0, 2, 6, 7, 8]])


def test_a_chunk_places_its_own_part_and_leaves_what_is_right() -> None:
    before, _ = gathered(FULL, torch.tensor([0, 1, 2, 7, 8]))
    is_picture = torch.tensor([False, True, True, False, False])
    first = placed(before, is_picture, [torch.tensor([[0, 0, 1]])], start=0)
    both = placed(first, is_picture, [torch.tensor([[0, 1, 2]])], start=2)
    assert torch.equal(both, FULL[:, [0, 2, 6, 7, 8]])
    again = placed(both, is_picture, [torch.tensor([[0, 0, 1], [0, 1, 2]])], start=0)
    assert torch.equal(again, both)
    whole = torch.full((2, 3), -1)
    assert torch.equal(placed(before, is_picture, [whole], start=0), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("columns", [1, 7, 255, MOST_A_SIDE])
def test_places_in_a_large_picture_come_through_half_precision(dtype: torch.dtype, columns: int) -> None:
    rows = torch.tensor([0, 1, 127, 128, 129, 254, MOST_A_SIDE - 1])
    column = torch.arange(7) * (columns - 1) // 6
    channels = as_channels(rows * columns + column, columns).to(dtype)
    assert from_channels(channels).tolist() == [
        [0, row, at] for row, at in zip(rows.tolist(), column.tolist(), strict=True)
    ]


def test_rows_without_a_place_have_none() -> None:
    assert from_channels(torch.full((2, 3), -1.0)).tolist() == [[-1, -1, -1]] * 2
