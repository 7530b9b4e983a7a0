"""Sets of tokens as marks, and back: what methods that keep some tokens and merge others share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adallava.selection.selector_contract import Selection, top_k_in_order


def mark(indices: Tensor, keep_counts: Sequence[int], num_tokens: int) -> Tensor:
    """Return True at each row's first K indices, [I, N] bool."""
    counts = torch.tensor(keep_counts, dtype=torch.int64).to(indices.device, non_blocking=True)[:, None]
    used = torch.arange(indices.shape[1], device=indices.device)[None, :] < counts
    marks = torch.zeros((len(indices), num_tokens + 1), dtype=torch.bool, device=indices.device)
    return marks.scatter(1, indices.masked_fill(~used, num_tokens), True)[:, :num_tokens]


def marked_in_order(marks: Tensor, keep_counts: Sequence[int]) -> Tensor:
    """Return the marked tokens of each row, which are K, in ascending order, [I, Kmax] int64."""
    return top_k_in_order(marks.float(), keep_counts)


def rows_at(table: Tensor, indices: Tensor) -> Tensor:
    """Return the rows of [I, N, M] at indices [I, K], [I, K, M]."""
    return table.gather(1, indices.unsqueeze(-1).expand(-1, -1, table.shape[-1]))


def on_device(values: Sequence[int], like: Tensor) -> Tensor:
    """Return host integers as a column on a device, [I, 1] int64, without waiting."""
    return torch.tensor(values, dtype=torch.int64).to(like.device, non_blocking=True)[:, None]


def keep_all(features: Tensor, keep_counts: tuple[int, ...]) -> Selection:
    """Return every token as it is: a gather is exact in every number format, a product need not be."""
    num_images, num_tokens = features.shape[:2]
    return Selection(torch.arange(num_tokens, device=features.device).expand(num_images, -1), keep_counts)
