"""What greedy methods share: an order in which tokens are picked, and the first K of it for each row.

Greedy choices are nested: the first K of a longer order are the order for K. So one loop, as long as the largest K
that drops anything, serves a batch of different K. A loop of K steps is a few small kernels a step and no wait for
the device; on a GPU its time is the launches, about 10 to 20 microseconds a step whatever the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from adallava.selection.selector_contract import GreedyMethod, Selection, SelectionInput


def num_steps(keep_counts: Sequence[int], num_tokens: int) -> int:
    """Return the longest K of the rows that drop a token: a row that keeps all needs no order."""
    return max((count for count in keep_counts if count < num_tokens), default=0)


def choose_greedily(method: GreedyMethod, inputs: SelectionInput) -> Selection:
    """Make a greedy method's table and take its steps; without either where nothing is dropped."""
    counts, num_tokens = inputs.keep_counts, inputs.features.shape[1]
    if num_steps(counts, num_tokens) == 0:
        none = inputs.seeds.new_zeros((len(counts), 0))
        return Selection(first_k_in_order(none, counts, num_tokens), counts)
    table, scores = method.table(inputs)
    return greedy_selection(method, table, counts, scores)


def greedy_selection(
    method: GreedyMethod, table: Tensor, keep_counts: tuple[int, ...], scores: Tensor | None
) -> Selection:
    """Take a greedy method's steps, as many as the rows need.

    Args:
        method: whose steps they are.
        table: [I, N, …], of the method.
        keep_counts: K per row, on the host, at least one of them below N.
        scores: [I, N], or None.
    """
    num_tokens = table.shape[1]
    steps = num_steps(keep_counts, num_tokens)
    return Selection(first_k_in_order(method.order(table, steps), keep_counts, num_tokens), keep_counts, scores=scores)


def first_k_in_order(order: Tensor, keep_counts: Sequence[int], num_tokens: int) -> Tensor:
    """Return each row's first K picks in ascending order, [I, Kmax] int64; every token for K = N.

    Args:
        order: [I, steps] int64, picks without repeats; steps = `num_steps(keep_counts, num_tokens)`.
        keep_counts: K per row, on the host.
        num_tokens: N.
    """
    k_max = max(keep_counts, default=0)
    counts = torch.tensor(keep_counts, dtype=torch.int64).to(order.device, non_blocking=True)[:, None]
    places = torch.arange(k_max, device=order.device)[None, :]
    used = places < counts
    padded = torch.nn.functional.pad(order, (0, k_max - order.shape[1]), value=num_tokens)
    chosen = torch.where(counts == num_tokens, places, padded)
    in_order = chosen.masked_fill(~used, num_tokens).sort(dim=1).values
    return in_order.masked_fill(~used, 0)
