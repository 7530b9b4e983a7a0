"""What a decoder layer reads besides its hidden states, by names of our own."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class LayerInputs:
    """A decoder layer's inputs; S tokens of B rows enter it.

    Attributes:
        attention_mask: as the attention kernel wants it; None for plain causal attention without padding.
        position_embeddings: rotary cosines and sines, [B or 1, S, head width] each.
        position_ids: [B or 1, S].
        cache: transformers' own, of all layers; None without one.
        others: what else the stock model hands to its layers, by transformers' names.
    """

    attention_mask: Tensor | None
    position_embeddings: tuple[Tensor, Tensor]
    position_ids: Tensor
    cache: Any
    others: Mapping[str, Any] = field(default_factory=dict)

    def of_rows(self, rows: Tensor, batch_size: int) -> "LayerInputs":
        """Return the inputs of some rows of the batch; a table of one row, which all rows share, stays as it is.

        Args:
            rows: [R] int64; a row may be named several times.
            batch_size: B.
        """

        def picked(table: Tensor) -> Tensor:
            """Return the rows of a table that has one for each sample; another as it is."""
            return table.index_select(0, rows) if len(table) == batch_size else table

        cosines, sines = self.position_embeddings
        return replace(
            self,
            attention_mask=None if self.attention_mask is None else picked(self.attention_mask),
            position_embeddings=(picked(cosines), picked(sines)),
            position_ids=picked(self.position_ids),
        )
