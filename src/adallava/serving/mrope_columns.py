"""Positions of several rows (M-RoPE) where images have lost tokens: those of the full prompt, of the columns left.

    a prompt, image of 2 x 3 tokens        t   I   I   I   I   I   I   t
    frame, row, column of it                 0   1   1   1   1   1   1   4     text goes on after the longest side
    kept 2 of 6, before the choice           0   1   1                   4     which two is not known yet
    and after it: tokens 0 and 5             0   1   1                   4
                                             0   1   2                   4
                                             0   1   3                   4

Text after an image has its position in the full prompt, whichever tokens stay: so a prompt whose image was
cached needs nothing of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_A_SIDE = 256
"""Most tokens a side of an image whose tokens bring their places along: half precision holds whole numbers to 256."""


@dataclass(frozen=True)
class Run:
    """An image's placeholders in a prompt.

    Attributes:
        start: of the first, in the shortened prompt.
        kept: K.
        total: N.
    """

    start: int
    kept: int
    total: int


def full_prompt(ids: Sequence[int], runs: Sequence[Run]) -> tuple[list[int], list[int], Tensor]:
    """Return the prompt with N placeholders for each image.

    Args:
        ids: of the shortened prompt.
        runs: of its images, in their order.

    Returns:
        Its ids; where each run begins there; and the columns that are left, as many as `ids`: of an image its first K.
    """
    full: list[int] = []
    starts: list[int] = []
    columns: list[int] = []
    done = 0
    for run in runs:
        columns += range(len(full), len(full) + run.start - done)
        full += ids[done : run.start]
        starts.append(len(full))
        columns += range(len(full), len(full) + run.kept)
        full += [ids[run.start]] * run.total
        done = run.start + run.kept
    columns += range(len(full), len(full) + len(ids) - done)
    full += ids[done:]
    return full, starts, torch.tensor(columns, dtype=torch.int64)


def gathered(positions: Tensor, columns: Tensor) -> tuple[Tensor, int]:
    """Return the positions of the columns left, [R, L], and what to add to a later token's place for its position."""
    left = positions[:, columns]
    # Of the full prompt: an image's tokens that are left may all lie before its longest side's end.
    return left, int(positions.max()) + 1 - len(columns)


def placed(positions: Tensor, is_picture: Tensor, places: Sequence[Tensor], start: int) -> Tensor:
    """Return positions with those of a chunk's images, now that their tokens are chosen.

    Args:
        positions: [R, L] of the prompt, as `gathered`, or as an earlier chunk left them.
        is_picture: [L] bool, True for a placeholder.
        places: [K, R] of each image of the chunk, or of the part of it that is there: the token's place in its
            image; below 0 where positions are right already.
        start: of the chunk.
    """
    columns = is_picture.nonzero().flatten()
    columns = columns[columns >= start]
    done = 0
    result = positions.clone()
    for part in places:
        own = columns[done : done + len(part)]
        done += len(part)
        moved = part[:, 0] >= 0
        if len(own) == 0 or not bool(moved.all()):
            continue
        result[:, own] = part.T.to(result.dtype) + _base(positions, is_picture, int(own[0]))
    return result


def as_channels(places: Tensor, num_columns: int) -> Tensor:
    """Return the places of tokens, [K, 3], in whole numbers that bfloat16 keeps: up to 256.

    Args:
        places: [K], which of an image's tokens they are.
        num_columns: of the image, whose sides are at most `MOST_A_SIDE`.
    """
    return torch.stack([torch.zeros_like(places), places // num_columns, places % num_columns], dim=1)


def from_channels(channels: Tensor) -> Tensor:
    """Return frame, row and column of tokens, [K, 3] int64, from `as_channels`; all -1 where they are."""
    return channels.round().long()


def _base(positions: Tensor, is_picture: Tensor, column: int) -> int:
    """Return the position that an image begins at: after the text before it."""
    before = (~is_picture[:column]).nonzero().flatten()
    return 0 if len(before) == 0 else int(positions[:, int(before[-1])].max()) + 1
