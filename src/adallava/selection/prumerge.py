"""`prumerge`: PruMerge at its own K, which it finds for each image."""

from typing import ClassVar

from torch import Tensor

from adallava.selection.prumerge_k import PruMergeKSelector, outlier_count
from adallava.selection.selector_contract import SelectionInput


class PruMergeSelector(PruMergeKSelector):
    """PruMerge with the paper's own number of tokens: those whose attention is an outlier, and one for the rest.

    Section 3 of arXiv 2403.15388: outliers lie above the third quartile by 1.5 times the range between the
    quartiles. A sweep runs it once, whatever the budgets, and records the K of every image. Differs from the code:
    counted for each image (the code counts over a batch, of 1 in its runs), and an image without outliers keeps its
    most attended token (the code: only the one for the rest).
    """

    name: ClassVar[str] = "prumerge"
    ignores_budget: ClassVar[bool] = True

    def own_counts(self, inputs: SelectionInput) -> Tensor:
        """Return the outliers of each image and one token for the rest, [I] int64."""
        assert inputs.last_layer is not None
        attention = inputs.last_layer.cls_attention(num_heads=1).squeeze(1)
        return (outlier_count(attention) + 1).clamp_max(attention.shape[1])
