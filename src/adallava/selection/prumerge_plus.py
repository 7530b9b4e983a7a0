"""`prumerge-plus`: PruMerge+ at its own K, which it finds for each image."""

from typing import ClassVar

import torch
from torch import Tensor

from adallava.selection.prumerge_k import PruMergeKSelector, outlier_count
from adallava.selection.selector_contract import SelectionInput


class PruMergePlusSelector(PruMergeKSelector):
    """PruMerge's outliers, tokens at a step that follows from their number, and one token for the rest.

    Section 3 of arXiv 2403.15388; code `token_prune_merge_advanced_plus` with `if_adaptive=True`: for k outliers of
    N tokens, every (N // k // 3)-th token as well, from the first one on. Differs from the code as `prumerge` does.
    """

    name: ClassVar[str] = "prumerge-plus"
    ignores_budget: ClassVar[bool] = True

    def priority(self, attention: Tensor, keep_counts: tuple[int, ...]) -> Tensor:
        """Return attention, and more than any attention for the tokens that the method keeps at its own K."""
        return attention + 2.0 * _own_centres(attention).float()

    def own_counts(self, inputs: SelectionInput) -> Tensor:
        """Return outliers, tokens at equal steps that are none, and one for the rest, [I] int64."""
        assert inputs.last_layer is not None
        attention = inputs.last_layer.cls_attention(num_heads=1).squeeze(1)
        return (_own_centres(attention).sum(dim=1) + 1).clamp_max(attention.shape[1])


def _own_centres(attention: Tensor) -> Tensor:
    num_tokens = attention.shape[1]
    outliers = outlier_count(attention)[:, None]
    places = torch.arange(num_tokens, device=attention.device)[None, :]
    ranks = attention.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    step = (num_tokens // outliers.clamp_min(1) // 3).clamp_min(1)
    at_step = (places % step == 0) & (places < num_tokens - 1)
    return (ranks < outliers) | at_step
