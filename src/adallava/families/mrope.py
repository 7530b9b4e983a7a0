"""Positions of several rows (M-RoPE): text counts in all of them alike, an image's tokens by frame, row and column.

prompt              t   I   I   I   I   I   I   t        an image of 2 x 3 tokens
frame               0   1   1   1   1   1   1   4        text goes on after the longest side
row                 0   1   1   1   2   2   2   4
column              0   1   2   3   1   2   3   4
kept 0, 5, counted again: two rows and two columns are left
frame               0   1                   1   3
row                 0   1                   2   3
column              0   1                   2   3
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def recounted(rows: Tensor, images: Tensor, steps: Tensor) -> Tensor:
    """Return positions counted again over what is left, by the rule by which they were counted; [R, B, S].

    An image's rows and columns that are left become neighbors, and text goes on after the longest side. Of all tokens,
    they are what they were. Waits for nothing.

    Args:
        rows: [R, B, S] int64, as they were, with gaps.
        images: [B, S] int64, the number of each token's image, whose tokens are all together; -1 for others.
        steps: [B, S] int64, 1 for a token that others read; 0 for a hidden one, and padding.
    """
    is_vision = images >= 0
    begins = is_vision & (images != F.pad(images[:, :-1], (1, 0), value=-1))
    number = begins.cumsum(dim=1).masked_fill(~is_vision, 0)
    ranks, sides = _ranks(rows, number)
    advance = torch.where(is_vision, sides * begins, steps)
    before = advance.cumsum(dim=1) - advance
    # After an image's first token, what is before is the image itself.
    starts = torch.where(begins, before, before - sides)
    return torch.where(is_vision, starts + ranks, before)


def _ranks(rows: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many lower values of its image are left in each row, [R, B, S], and the image's longest side, [B, S].

    Args:
        rows: [R, B, S].
        number: [B, S], of each token's image within its sample, from 1 on.
    """
    length = rows.shape[-1]
    # Values of one image lie far from those of the next.
    ordered, order = (rows + number * 2**32).sort(dim=-1)
    is_new = F.pad(ordered[..., 1:] != ordered[..., :-1], (1, 0))
    dense = torch.empty_like(rows).scatter(-1, order, is_new.cumsum(dim=-1))
    of_rows = number.expand_as(rows)
    table = (*rows.shape[:-1], length + 1)
    lowest = dense.new_full(table, length).scatter_reduce(-1, of_rows, dense, "amin")
    highest = dense.new_zeros(table).scatter_reduce(-1, of_rows, dense, "amax")
    sides = (highest - lowest + 1).amax(dim=0).gather(-1, number)
    return dense - lowest.gather(-1, of_rows), sides
