"""LLaVA-NeXT: each picture whole and in tiles. Only here transformers' LlavaNext modules are known.

    a picture ──▶ the whole, resized      4 x 4 patches        one image of 16 tokens
              └─▶ 1 x 2 tiles, unpadded   4 x 6 patches + ¶    one image of 4 x 7 tokens, ¶ ends each row

Both are images of their own to all that follows: a grid of tokens in one run of placeholders. A row's end, ¶, is a
token like any other, as in DivPrune's code: it is counted in N, may be kept or not, and K = N is the stock model. To a
method it looks like a patch of zeros; behind the projector it is the model's `image_newline`.
"""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adallava.checkpoints.schemas import MAX_TILES
from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families.family_contract import VisionFeatures
from adallava.families.llava_parts import LlavaParts
from adallava.families.picture_inputs import PictureInputs
from adallava.selection.selector_contract import AskedAttention, Need, TowerLayer, TowerShape


class LlavaNextFamily(LlavaParts):
    """Drives a stock `LlavaNextForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "llava_next"
    transformers_class = "LlavaNextForConditionalGeneration"
    picture_inputs = ("pixel_values", "image_sizes")

    def __init__(self, model: Any) -> None:
        """Take hold of a loaded model.

        Raises:
            UnsupportedModeError: for features that are no grid, from which no picture can be put together.
            CheckpointError: as of LLaVA; or for sizes of pictures that make no tile, or far too many.
        """
        super().__init__(model)
        if self.no_grid is not None:
            raise UnsupportedModeError(f"{self.no_grid}, of which LLaVA-NeXT joins tiles")
        pinpoints, tile = model.config.image_grid_pinpoints, model.config.vision_config.image_size
        for pinpoint in pinpoints:
            if not tile <= min(pinpoint) <= max(pinpoint) <= tile * MAX_TILES:
                raise CheckpointError(
                    f"image_grid_pinpoints has {pinpoint}, and a tile's side is {tile} pixels: a picture is cut into 1 "
                    f"to {MAX_TILES} of them a side"
                )

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
        for (height, width), tiling in zip(_sizes(pictures), tilings, strict=True):
            if tiling.rows * tiling.columns == 0:
                raise InputError(
                    f"a picture of {width} x {height} pixels is so narrow that none of its tiles' patches is left when "
                    "the padding is cut off: cut it first"
                )
        return tuple(grid for tiling in tilings for grid in (self._shape.grid, (tiling.rows, tiling.columns + 1)))

    def tower_runs(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return 1 for the whole of each picture, and then the number of its tiles."""
        return tuple(runs for tiling in self._tilings(pictures) for runs in (1, tiling.num_tiles - 1))

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return each picture whole, and joined from its tiles with a column of zeros for the ends of its rows."""
        patch, side = self._model.config.vision_config.patch_size, self._shape.grid[0]
        seen: list[Tensor] = []
        whole_patches = pictures.pixel_values[..., : side * patch, : side * patch]
        for tiles, tiling in zip(whole_patches, self._tilings(pictures), strict=True):
            whole, *parts = tiles[: tiling.num_tiles]
            rows = [torch.cat(parts[at : at + tiling.across], dim=2) for at in range(0, len(parts), tiling.across)]
            down = slice(tiling.top * patch, (tiling.top + tiling.rows) * patch)
            across = slice(tiling.left * patch, (tiling.left + tiling.columns) * patch)
            joined = torch.cat(rows, dim=1)[:, down, across]
            seen += [whole, torch.nn.functional.pad(joined, (0, patch))]
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
        most = max(tiling.num_tiles for tiling in tilings)
        if pictures.pixel_values.shape[1] < most:
            raise InputError(
                f"the processor cuts a picture into {pictures.pixel_values.shape[1]} tiles at most, and by the model's "
                f"config it has {most}: image_grid_pinpoints of the two must be the same"
            )
        shown = zip(pictures.pixel_values, tilings, strict=True)
        tiles = torch.cat([picture[: tiling.num_tiles] for picture, tiling in shown])
        tower = self._run_tower(tiles, needs, asked)
        places = _places(tilings, self._shape.grid[0]).to(tiles.device, non_blocking=True)
        marked = torch.nn.functional.pad(tower.features.flatten(0, 1), (0, 1, 0, 2))
        marked[-2, -1] = 1  # The row's end; behind it stands what is behind an image's own tokens.
        return _TiledFeatures(
            marked[places],
            unprojected=tower.unprojected,
            places=places,
            attention_received=None if tower.attention_received is None else _at(tower.attention_received, places),
            feature_layer=_TiledLayer.of(tower.feature_layer, places, tilings),
            last_layer=_TiledLayer.of(tower.last_layer, places, tilings),
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
        assert isinstance(vision, _TiledFeatures)
        tiles = super().project_all(vision).flatten(0, 1)
        newline = self._model.model.image_newline.to(tiles.dtype)
        ended = torch.cat([tiles, newline[None], torch.zeros_like(newline)[None]])
        return ended[vision.places]

    def _tilings(self, pictures: PictureInputs) -> "list[_Tiling]":
        config, side = self._model.config, self._shape.grid[0]
        pinpoints, image_size = config.image_grid_pinpoints, config.vision_config.image_size
        return [_tiling(size, pinpoints, image_size, side) for size in _sizes(pictures)]


def _sizes(pictures: PictureInputs) -> list[tuple[int, int]]:
    """Return rows and columns of each picture's pixels before the processor."""
    if "image_sizes" not in pictures.beside:
        raise InputError("LLaVA-NeXT needs the pictures' sizes: give the processor's image_sizes too")
    sizes = [(int(rows), int(columns)) for rows, columns in pictures.beside["image_sizes"].tolist()]
    if len(sizes) != len(pictures.pixel_values):
        raise InputError(f"image_sizes has {len(sizes)} rows, pixel_values {len(pictures.pixel_values)}: one each")
    return sizes


@dataclass(frozen=True)
class _Tiling:
    """One picture's tiles, and what is left of their patches when the padding is cut off.

    Attributes:
        down: tiles in a column.
        across: tiles in a row.
        top: patches cut off above, and below.
        left: patches cut off on the left, and on the right.
        rows: of patches that are left.
        columns: of patches that are left.
    """

    down: int
    across: int
    top: int
    left: int
    rows: int
    columns: int

    @property
    def num_tiles(self) -> int:
        """With the whole picture, which comes first."""
        return self.down * self.across + 1


def _tiling(size: Sequence[int], pinpoints: Sequence[Sequence[int]], tile_pixels: int, side: int) -> _Tiling:
    """Return the tiling that LLaVA-NeXT gives a picture (its `anyres` and `spatial_unpad`).

    Args:
        size: (rows, columns) of pixels.
        pinpoints: sizes that a picture may be fitted into.
        tile_pixels: side of a tile.
        side: patches in a row of a tile.
    """
    height, width = size

    def fits(pinpoint: Sequence[int]) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - pinpoint[0] * pinpoint[1]

    best = max(pinpoints, key=fits)
    down, across = best[0] // tile_pixels, best[1] // tile_pixels
    rows, columns, top, left = down * side, across * side, 0, 0
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (rows / height), 7))) // 2
    return _Tiling(down, across, top, left, rows - 2 * top, columns - 2 * left)


def _places(tilings: Sequence[_Tiling], side: int) -> Tensor:
    """Return, for each image's tokens, the row of the tower's flattened output, [I, N of the largest] int64.

    Behind the rows of all tiles come two more: a row's end, and nothing.
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


@dataclass(frozen=True, kw_only=True)
class _TiledFeatures(VisionFeatures):
    """Features laid out by images, whose tokens are at `places`, [I, N], of the tower's; see `_places`."""

    places: Tensor


@dataclass(frozen=True)
class _TiledLayer(TowerLayer):
    """A tower layer over tiles, read by images: a patch is compared within its own tile, a row's end with nothing.

    Attributes:
        places: [I, N] of each image's tokens, see `_places`.
        tiles: (first, behind the last) of each image's tiles.
    """

    places: Tensor
    tiles: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, layer: TowerLayer | None, places: Tensor, tilings: "Sequence[_Tiling]") -> "_TiledLayer | None":
        """Return a layer over tiles as one over images, whose tokens are at `places`, [I, N]."""
        if layer is None:
            return None
        ends = itertools.accumulate((tiling.num_tiles for tiling in tilings), initial=0)
        pairs = [((first, first + 1), (first + 1, last)) for first, last in itertools.pairwise(ends)]
        return cls(layer.keys, layer.cls_query, layer.num_heads, places, tuple(itertools.chain(*pairs)))

    @property
    def patch_keys(self) -> Tensor:
        """Keys of the tokens, [I, N, C]; zeros at a row's end."""
        return _at(super().patch_keys, self.places)

    def cls_attention(self, num_heads: int | None = None) -> Tensor:
        """Return how much its tile's class token looks at each token, [I, heads, N] float32; 0 at a row's end."""
        return _at(super().cls_attention(num_heads).transpose(1, 2), self.places).transpose(1, 2)

    def of_image(self, image: int, num_tokens: int) -> "_TiledLayer":
        """Return the same layer for one image: its own tiles alone."""
        first, last = self.tiles[image]
        per_tile = super().patch_keys.shape[1]
        total, own = len(self.keys) * per_tile, (last - first) * per_tile
        places = self.places[image : image + 1, :num_tokens]
        # Behind the rows of all tiles stand a row's end and nothing: behind those of its own, then.
        places = torch.where(places < total, places - first * per_tile, places - total + own)
        query = None if self.cls_query is None else self.cls_query[first:last].clone()
        return replace(
            self, keys=self.keys[first:last].clone(), cls_query=query, places=places, tiles=((0, last - first),)
        )


def _at(table: Tensor, places: Tensor) -> Tensor:
    """Return the rows at `places`, [I, N, …], of a table over tiles, [tiles, n, …], with two rows of zeros behind."""
    return torch.nn.functional.pad(table.flatten(0, 1), (0, 0, 0, 2))[places]
