"""Positions of several rows, counted anew over what is left."""

import torch

from adallava.families.mrope import recounted

ROWS = torch.tensor([[[0, 1, 1, 1, 1, 1, 1, 4, 5]], [[0, 1, 1, 1, 2, 2, 2, 4, 5]], [[0, 1, 2, 3, 1, 2, 3, 4, 5]]])
"""By hand: text, an image of 2 x 3 tokens, two of text."""

IMAGES = torch.tensor([[-1, 0, 0, 0, 0, 0, 0, -1, -1]])


def _kept(*columns: int) -> list[list[int]]:
    left = torch.tensor(columns)
    steps = torch.ones(1, len(columns), dtype=torch.int64)
    return recounted(ROWS[..., left], IMAGES[:, left], steps)[:, 0].tolist()


def test_of_everything_they_are_what_they_were() -> None:
    assert _kept(*range(9)) == ROWS[:, 0].tolist()


def test_rows_and_columns_that_are_left_become_neighbors() -> None:
    # Tokens (row 0, column 0) and (row 1, column 2): two rows and two columns are left.
    assert _kept(0, 1, 6, 7, 8) == [[0, 1, 1, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    # Column 2 alone, in both rows.
    assert _kept(0, 3, 6, 7) == [[0, 1, 1, 3], [0, 1, 2, 3], [0, 1, 1, 3]]
    assert _kept(0, 7, 8) == [[0, 1, 2]] * 3


def test_images_that_touch_padding_and_a_hidden_token() -> None:
    # Padding, two images of 1 x 2 and 2 x 1 tokens side by side, a hidden token of text, and one of text.
    rows = torch.tensor([[[0, 0, 0, 2, 2, 4, 4]], [[0, 0, 0, 2, 3, 4, 4]], [[0, 0, 1, 2, 2, 4, 4]]])
    images, steps = torch.tensor([[-1, 3, 3, 7, 7, -1, -1]]), torch.tensor([[0, 1, 1, 1, 1, 0, 1]])
    assert torch.equal(recounted(rows, images, steps), rows)
    left = torch.tensor([0, 2, 3, 5, 6])
    assert recounted(rows[..., left], images[:, left], steps[:, left])[:, 0].tolist() == [[0, 0, 1, 2, 2]] * 3
