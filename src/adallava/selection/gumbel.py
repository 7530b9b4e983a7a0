"""Drawing K of N tokens so that a gradient can reach the scores they were drawn by."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adallava.selection.selector_contract import top_k_in_order


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return standard Gumbel noise of the shape, type and device of `like`."""
    exponential = torch.empty_like(like).exponential_(generator=generator)
    # exponential_ may return 0 in half precision and, rarely, in single.
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log()


def gumbel_top_k(
    logits: Tensor,
    keep_counts: Sequence[int],
    *,
    tau: float = 5.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw exactly K tokens a row without replacement, with a straight-through gradient.

    The K highest of logits + Gumbel noise are a sample without replacement from softmax(logits) (Kool et al.
    2019). Forward, the gates are exactly 0 or 1; backward, they are softmax((logits + noise) / tau).

    Args:
        logits: [I, N] float.
        keep_counts: K per row, on the host.
        tau: temperature of the backward pass; 5 in AdaLLaVA.
        generator: source of the noise, on the device of `logits`.

    Returns:
        indices: [I, Kmax] int64, ascending in the first K entries of a row, 0 after.
        gates: [I, N], 1 at the kept tokens and 0 elsewhere. Multiply the kept features by their gates.
    """
    noisy = logits + gumbel_noise(logits, generator)
    indices = top_k_in_order(noisy.detach(), keep_counts)
    soft = torch.softmax(noisy / tau, dim=-1)
    counts = torch.tensor(keep_counts, dtype=torch.int64).to(logits.device, non_blocking=True)
    used = torch.arange(indices.shape[1], device=logits.device)[None, :] < counts[:, None]
    # Unused entries point at token 0: adding their 0 leaves it as it is.
    hard = torch.zeros_like(soft).scatter_add_(1, indices, used.to(soft.dtype))
    return indices, (soft - soft.detach()) + hard
