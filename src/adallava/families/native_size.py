"""What families share whose pictures keep their own size, and whose tokens are squares of patches side by side."""

from collections.abc import Collection, Sequence
from typing import Any

from adallava.families.family_contract import VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.families.stock_parts import StockParts
from adallava.families.tower_parts import square_shape
from adallava.selection.selector_contract import AskedAttention, Need, TowerShape

SHAPE_PX = 448
"""Side of the picture that `shape` is of: such a model has none of its own."""


class NativeSizeParts(StockParts):
    """Drives a stock model whose tower gives no keys of its layers. Holds it, changes nothing in it."""

    @property
    def one_grid(self) -> bool:
        """False: a picture's size decides its grid."""
        return False

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run the tower as the stock model does; tokens' patches come side by side, before any merger or projector.

        Args:
            pictures: as for `grids`.
            needs: no keys of the tower's layers are given.
        """
        return self.encode_with_attention(pictures, ())

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Do the same, and give what tokens receive of attention; see `ReadsAttention`."""
        raise NotImplementedError


def shape_at_native_size(config: Any, patch_px: int, merge: int, *, width: int, heads: int) -> TowerShape:
    """Return the shape of a picture of `SHAPE_PX` a side, where `merge` x `merge` patches are a token.

    Args:
        config: of the model.
        patch_px: side of a patch.
        merge: patches of a token in a row.
        width: of a tower layer.
        heads: of a tower layer.
    """
    return square_shape(config, max(1, SHAPE_PX // (patch_px * merge)), merge**2, width=width, heads=heads)
