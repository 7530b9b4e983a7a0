"""Pictures in tiles as LLaVA-NeXT cuts them (`anyres`): fitted into one of some sizes, padded, and cut into squares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adallava.checkpoints.schemas import MAX_TILES
from adallava.errors import CheckpointError, InputError
from adallava.families.picture_inputs import PictureInputs


@dataclass(frozen=True)
class Tiling:
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

    def joined(self, tiles: Tensor, patch: int, side: int) -> Tensor:
        """Return the pixels of the patches that are left, [3, rows * patch, columns * patch].

        Args:
            tiles: [at least `num_tiles`, 3, H, W] of the picture, the whole first.
            patch: side of a patch in pixels.
            side: patches in a row of a tile; what is narrower than a patch is seen by none.
        """
        _, *parts = tiles[: self.num_tiles, :, : side * patch, : side * patch]
        rows = [torch.cat(parts[at : at + self.across], dim=2) for at in range(0, len(parts), self.across)]
        down = slice(self.top * patch, (self.top + self.rows) * patch)
        across = slice(self.left * patch, (self.left + self.columns) * patch)
        return torch.cat(rows, dim=1)[:, down, across]


def tiling_of(size: Sequence[int], config: Any, side: int) -> Tiling:
    """Return the tiling that a model gives a picture.

    Args:
        size: (rows, columns) of pixels.
        config: of the model.
        side: patches in a row of a tile.

    Raises:
        InputError: for one too narrow for its tiles.
    """
    tiling = fitted(size, config.image_grid_pinpoints, config.vision_config.image_size, side)
    if tiling.rows * tiling.columns == 0:
        raise InputError(
            f"an image of {size[1]} x {size[0]} pixels is so narrow that none of its tiles' patches is left when the "
            "padding is cut off: cut it first"
        )
    return tiling


def fitted(size: Sequence[int], pinpoints: Sequence[Sequence[int]], tile_px: int, side: int) -> Tiling:
    """Return the tiling of a picture by `anyres` and `spatial_unpad`, which may leave nothing of it.

    Args:
        size: (rows, columns) of pixels.
        pinpoints: sizes that a picture may be fitted into.
        tile_px: side of a tile in pixels.
        side: patches in a row of a tile.
    """
    height, width = size

    def fits(pinpoint: Sequence[int]) -> tuple[int, int]:
        """Return the pixels that a size shows of the picture, and minus those that it wastes."""
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - pinpoint[0] * pinpoint[1]

    best = max(pinpoints, key=fits)
    down, across = best[0] // tile_px, best[1] // tile_px
    rows, columns, top, left = down * side, across * side, 0, 0
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (rows / height), 7))) // 2
    return Tiling(down, across, top, left, rows - 2 * top, columns - 2 * left)


def sizes_of(pictures: PictureInputs) -> list[tuple[int, int]]:
    """Return rows and columns of each picture's pixels before the processor.

    Raises:
        InputError: without them, or if there is not one for each picture.
    """
    if "image_sizes" not in pictures.beside:
        raise InputError("this model needs the images' sizes: give the processor's image_sizes too")
    sizes = [(int(rows), int(columns)) for rows, columns in pictures.beside["image_sizes"].tolist()]
    if len(sizes) != len(pictures.pixel_values):
        raise InputError(f"image_sizes has {len(sizes)} rows, pixel_values {len(pictures.pixel_values)}: one each")
    return sizes


def tiles_of(pictures: PictureInputs, counts: Sequence[int]) -> Tensor:
    """Return the tiles of all pictures, [T, 3, H, W], without the padding after each one's own.

    Args:
        pictures: [P, tiles, 3, H, W].
        counts: tiles of each picture.

    Raises:
        InputError: if the processor cut one into fewer.
    """
    if pictures.pixel_values.shape[1] < max(counts):
        raise InputError(
            f"the processor cuts an image into {pictures.pixel_values.shape[1]} tiles at most, and by the model's "
            f"config it has {max(counts)}: image_grid_pinpoints of the two must be the same"
        )
    shown = zip(pictures.pixel_values, counts, strict=True)
    return torch.cat([picture[:count] for picture, count in shown])


def check_pinpoints(config: Any) -> None:
    """Refuse sizes of pictures that make no tile, or far too many.

    Raises:
        CheckpointError: naming one.
    """
    pinpoints, tile = config.image_grid_pinpoints, config.vision_config.image_size
    for pinpoint in pinpoints:
        if not tile <= min(pinpoint) <= max(pinpoint) <= tile * MAX_TILES:
            raise CheckpointError(
                f"image_grid_pinpoints has {pinpoint}, and a tile's side is {tile} pixels: an image is cut into 1 "
                f"to {MAX_TILES} of them a side"
            )
