"""Some rows of what a decoder layer is called with."""

from typing import Any

from torch import Tensor

_BY_ROW = ("attention_mask", "position_embeddings", "position_ids")


def of_rows(kwargs: dict[str, Any], rows: Tensor, batch_size: int) -> dict[str, Any]:
    """Return a layer's keyword arguments for some rows of its batch.

    Args:
        kwargs: for all rows. A table that all rows share, of one row, stays as it is.
        rows: [R] int64; a row may be named several times.
        batch_size: B.
    """

    def picked(value: Any) -> Any:
        """Return a table's rows; of a tuple, those of each part."""
        if isinstance(value, tuple):
            return tuple(picked(part) for part in value)
        if isinstance(value, Tensor) and len(value) == batch_size:
            return value.index_select(0, rows)
        return value

    return {name: picked(value) if name in _BY_ROW else value for name, value in kwargs.items()}
