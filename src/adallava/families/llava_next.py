"""LLaVA-NeXT: the whole image plus tiles of it.

Only here transformers' LlavaNext modules are known.

    a picture ──▶ the whole, resized      4 x 4 patches        one image of 16 tokens
              └─▶ 1 x 2 tiles, unpadded   4 x 6 patches + ¶    one image of 4 x 7 tokens, ¶ ends each row

Both are images of their own to all that follows: a grid of tokens in one run of placeholders. A row's end, ¶, is a
token like any other, as in DivPrune's code: it is counted in N, may be kept or not, and K = N is the stock model. To a
method it looks like a patch of zeros; after the projector it is the model's `image_newline`.
"""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.families.anyres import Tiling, check_pinpoints, sizes_of, tiles_of, tiling_of
from adallava.families.family_contract import VisionFeatures
from adallava.families.llava_parts import LlavaParts
from adallava.families.picture_inputs import PictureInputs
from adallava.families.tiles import Span, TiledFeatures, TiledLayer, at_places
from adallava.selection.selector_contract import AskedAttention, Need, TowerShape


class LlavaNextFamily(LlavaParts):
    """Drives a stock `LlavaNextForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "llava_next"
    transformers_class = "LlavaNextForConditionalGeneration"
    picture_inputs = ("pixel_values", "image_sizes")

    def __init__(self, model: Any) -> None:
        """Take hold of a loaded model.

        Raises:
            UnsupportedModeError: for features that are not a grid, from which no picture can be put together.
            CheckpointError: as of LLaVA; or for sizes of pictures that make no tile, or far too many.
        """
        super().__init__(model)
        if self.no_grid is not None:
            raise UnsupportedModeError(f"{self.no_grid}, of which LLaVA-NeXT joins tiles")
        check_pinpoints(model.config)

    @property
    def shape(self) -> TowerShape:
        """Of the whole picture. C is the tower's width and one more channel, which marks a row's end."""
        return replace(self._shape, vision_width=self._shape.vision_width + 1, tower_width=self._shape.layer_width)

    @property
    def one_grid(self) -> bool:
        """False: a picture's size decides its tiles."""
        return False

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return the grids of the whole picture and of its tiles, for each picture in turn.

        Args:
            pictures: [P, tiles, 3, H, W], with their `image_sizes`.

        Raises:
            InputError: if there are no sizes, or not one for each picture, or one too narrow for its tiles.
        """
        tilings = self._tilings(pictures)
        return tuple(grid for tiling in tilings for grid in (self._shape.grid, (tiling.rows, tiling.columns + 1)))

    def tower_runs(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return 1 for the whole of each picture, and then the number of its tiles."""
        return tuple(runs for tiling in self._tilings(pictures) for runs in (1, tiling.num_tiles - 1))

    def whole_images(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return the first image of each picture."""
        return tuple(range(0, 2 * len(sizes_of(pictures)), 2))

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return each picture whole, and joined from its tiles with a column of zeros for the ends of its rows."""
        patch, side = self._model.config.vision_config.patch_size, self._shape.grid[0]
        seen: list[Tensor] = []
        for tiles, tiling in zip(pictures.pixel_values, self._tilings(pictures), strict=True):
            joined = tiling.joined(tiles, patch, side)
            seen += [tiles[0, :, : side * patch, : side * patch], torch.nn.functional.pad(joined, (0, patch))]
        return tuple(seen)

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run the tower over all tiles at once, and lay its output out by images.

        Args:
            pictures: [P, tiles, 3, H, W], padded to the most tiles a picture has.
            needs: what a method reads of the tower's layers.
        """
        return self.encode_with_attention(pictures, (), needs=needs)

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower, and give what patches receive of attention within their tile; see `ReadsAttention`.

        The end of a row receives none.
        """
        tilings = self._tilings(pictures)
        tiles = tiles_of(pictures, [tiling.num_tiles for tiling in tilings])
        tower = self._run_tower(tiles, needs, asked)
        places = _places(tilings, self._shape.grid[0]).to(tiles.device, non_blocking=True)
        spans = _spans(tilings)
        marked = torch.nn.functional.pad(tower.features.flatten(0, 1), (0, 1, 0, 2))
        marked[-2, -1] = 1  # The row's end; after it comes what is after an image's own tokens.
        return TiledFeatures(
            marked[places],
            unprojected=tower.unprojected,
            places=places,
            attention_received=None
            if tower.attention_received is None
            else at_places(tower.attention_received, places),
            feature_layer=TiledLayer.of(tower.feature_layer, places, spans),
            last_layer=TiledLayer.of(tower.last_layer, places, spans),
        )

    def project(self, features: Tensor) -> Tensor:
        """Map tower features, [I, K, C], to the LLM's input, [I, K, D]; a row's end to `image_newline`.

        A merged token that holds a share of row ends is that mixture of `image_newline` and its patches' own mean.
        """
        share = features[..., -1:].clamp(0, 1)
        projected = super().project(features[..., :-1] / torch.where(share < 1, 1 - share, 1))
        newline = self._model.model.image_newline.to(projected.dtype)
        return torch.where(share == 0, projected, (1 - share) * projected + share * newline)

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Map every token to the LLM's input, [I, N, D]: all tiles at once, as the stock model does, then laid out."""
        assert isinstance(vision, TiledFeatures)
        tiles = super().project_all(vision).flatten(0, 1)
        newline = self._model.model.image_newline.to(tiles.dtype)
        ended = torch.cat([tiles, newline[None], torch.zeros_like(newline)[None]])
        return ended[vision.places]

    def _tilings(self, pictures: PictureInputs) -> list[Tiling]:
        return [tiling_of(size, self._model.config, self._shape.grid[0]) for size in sizes_of(pictures)]


def _places(tilings: Sequence[Tiling], side: int) -> Tensor:
    """Return, for each image's tokens, the row of the tower's flattened output, [I, N of the largest] int64.

    After the rows of all tiles come two more: a row's end, and nothing.
    """
    per_tile = side * side
    total = per_tile * sum(tiling.num_tiles for tiling in tilings)
    longest = max(per_tile, *(tiling.rows * (tiling.columns + 1) for tiling in tilings))
    places = torch.full((2 * len(tilings), longest), total + 1, dtype=torch.int64)
    first = 0
    for picture, tiling in enumerate(tilings):
        places[2 * picture, :per_tile] = first + torch.arange(per_tile)
        row = torch.arange(tiling.top, tiling.top + tiling.rows)[:, None]
        column = torch.arange(tiling.left, tiling.left + tiling.columns)[None, :]
        tile = 1 + (row // side) * tiling.across + column // side
        patches = first + tile * per_tile + (row % side) * side + column % side
        ended = torch.nn.functional.pad(patches, (0, 1), value=total)
        places[2 * picture + 1, : ended.numel()] = ended.flatten()
        first += tiling.num_tiles * per_tile
    return places


def _spans(tilings: Sequence[Tiling]) -> list[Span]:
    """Return the tiles of each image: of each picture its whole, then its parts."""
    ends = itertools.accumulate((tiling.num_tiles for tiling in tilings), initial=0)
    pairs = [((first, first + 1), (first + 1, last)) for first, last in itertools.pairwise(ends)]
    return list(itertools.chain(*pairs))
