"""What the tower put out for tiles, read by images: one image may be several tiles joined, and a tile is seen alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adallava.families.family_contract import VisionFeatures
from adallava.selection.selector_contract import TowerLayer

Span = tuple[int, int]
"""(first, after the last) of the tiles that an image is joined from."""


@dataclass(frozen=True, kw_only=True)
class TiledFeatures(VisionFeatures):
    """Features laid out by images.

    Attributes:
        places: [I, N of the largest] int64, the row of the tower's flattened output that each token is. After the rows
            of all tiles come two more: a row's end, and nothing.
    """

    places: Tensor


@dataclass(frozen=True)
class TiledLayer(TowerLayer):
    """A tower layer over tiles, read by images: a patch is compared within its own tile, a row's end with nothing.

    Attributes:
        places: as in `TiledFeatures`.
        tiles: of each image.
    """

    places: Tensor
    tiles: tuple[Span, ...]

    @classmethod
    def of(cls, layer: TowerLayer | None, places: Tensor, tiles: Sequence[Span]) -> "TiledLayer | None":
        """Return a layer over tiles as one over images."""
        if layer is None:
            return None
        return cls(layer.keys, layer.cls_query, layer.num_heads, places, tuple(tiles))

    @property
    def patch_keys(self) -> Tensor:
        """Keys of the tokens, [I, N, C]; zeros at a row's end."""
        return at_places(super().patch_keys, self.places)

    def cls_attention(self, num_heads: int | None = None) -> Tensor:
        """Return how much its tile's class token looks at each token, [I, heads, N] float32; 0 at a row's end."""
        return at_places(super().cls_attention(num_heads).transpose(1, 2), self.places).transpose(1, 2)

    def of_image(self, image: int, num_tokens: int) -> "TiledLayer":
        """Return the same layer for one image: its own tiles alone."""
        first, last = self.tiles[image]
        per_tile = super().patch_keys.shape[1]
        total, own = len(self.keys) * per_tile, (last - first) * per_tile
        places = self.places[image : image + 1, :num_tokens]
        # A row's end and nothing follow the rows of all tiles: here, they follow those of its own.
        places = torch.where(places < total, places - first * per_tile, places - total + own)
        query = None if self.cls_query is None else self.cls_query[first:last].clone()
        return replace(
            self, keys=self.keys[first:last].clone(), cls_query=query, places=places, tiles=((0, last - first),)
        )


def at_places(table: Tensor, places: Tensor) -> Tensor:
    """Return the rows at `places`, [I, N, …], of a table over tiles, [tiles, n, …], with two rows of zeros after."""
    return torch.nn.functional.pad(table.flatten(0, 1), (0, 0, 0, 2))[places]
