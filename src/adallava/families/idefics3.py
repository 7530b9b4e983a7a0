"""Idefics3 and SmolVLM: the image in tiles, each after a tag in the prompt, plus the whole image.

    a picture ──▶ 2 x 3 tiles   <row_1_col_1> I I I I <row_1_col_2> I I I I …   one image, a grid of all tiles' tokens
              └─▶ the whole     <global-img> I I I I                            one image

The tiles of a picture are one image: a method spends a picture's tokens where they matter, and what is spatial is so
over the whole picture, not over each tile. The tags stay, whatever is dropped. So the placeholders of an image lie in
several runs, in another order than its grid (`placeholder_orders`). How a picture was cut, the processor says in the
prompt alone: `with_prompts` reads it there, off the runs and the token that closes them. A picture that is not cut is
its whole.

Squares of `scale_factor` patches side by side are one token (pixel shuffle), and methods choose after that; a key is
the mean of its patches'. The projector after it treats each token alone, and reads kept ones only.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from adallava.errors import CheckpointError, InputError
from adallava.families.costed_parts import CostedParts, costed_parts_of
from adallava.families.family_contract import VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.families.stock_parts import StockParts
from adallava.families.tiles import Span, TiledFeatures, TiledLayer
from adallava.families.tower_layer import mean_of_cells, of_cells, received_in_layers, tower_layer
from adallava.families.tower_parts import provided, square_shape
from adallava.selection.selector_contract import AskedAttention, Need, TowerLayer

_CUTS = "tilings"
"""With the pixels: [P, 3] int64 of each picture, its sample, its tiles in a column and in a row; 0 and 0 uncut."""

_SEEN = "seen_patches"
"""With the pixels: [B, tiles, rows, columns] bool, the patches that hold a pixel; none of a tile that is padding."""


class Idefics3Family(StockParts):
    """Drives a stock `Idefics3ForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "idefics3"
    transformers_class = "Idefics3ForConditionalGeneration"
    picture_inputs = ("pixel_values", "pixel_attention_mask")
    llm_path = ("model", "text_model")

    def __init__(self, model: Any) -> None:
        """Take hold of a loaded model.

        Raises:
            CheckpointError: if a tile's patches are not squares of `scale_factor`; and as of every family.
        """
        super().__init__(model)
        vision, self._scale = model.config.vision_config, int(model.config.scale_factor)
        side, rest = divmod(vision.image_size // vision.patch_size, self._scale)
        if rest or side == 0:
            raise CheckpointError(
                f"a tile has {vision.image_size // vision.patch_size} patches a side, of which scale_factor "
                f"{self._scale} makes no whole number of tokens"
            )
        self._shape = square_shape(
            model.config, side, self._scale**2, width=vision.hidden_size, heads=vision.num_attention_heads
        )

    @property
    def provides(self) -> frozenset[Need]:
        """What this model can give to a method; of the tower, see `tower_parts`."""
        return frozenset({Need.PROJECTED, Need.WORDS}) | provided(self._model.model.vision_model)

    @property
    def one_grid(self) -> bool:
        """False: a picture's size decides its tiles."""
        return False

    def with_prompts(self, pictures: PictureInputs, input_ids: Tensor) -> PictureInputs:
        """Return the pictures and how each was cut, by what is between its placeholders. On the host.

        Args:
            pictures: [B, tiles, 3, S, S], with the `pixel_attention_mask` of their processor.
            input_ids: [B, L].

        Raises:
            InputError: for prompts that the processor did not expand, or that tell of other tiles than there are; for
                tiles that are not squares.
        """
        mask = pictures.beside.get("pixel_attention_mask")
        if mask is None or mask.shape != (*pictures.pixel_values.shape[:2], *pictures.pixel_values.shape[-2:]):
            raise InputError("this model's images need the processor's pixel_attention_mask: give that too")
        cuts = [[b, *cut] for b, ids in enumerate(input_ids.tolist()) for cut in _cuts(ids, self.image_token_id, b)]
        told = [sum(down * across + 1 for sample, down, across in cuts if sample == b) for b in range(len(mask))]
        seen = _of_patches(mask.bool(), self._model.config.vision_config.patch_size)
        there = seen.flatten(2).any(dim=-1)
        if len(input_ids) != len(mask) or not torch.equal(there, _first(told, there.shape[1])):
            raise InputError(
                f"the prompts ask for {told} tiles, and the images have {there.sum(dim=1).tolist()}: give prompts "
                "and images as one call of the processor makes them"
            )
        return PictureInputs(
            pictures.pixel_values, {_CUTS: torch.tensor(cuts, dtype=torch.int64).view(-1, 3), _SEEN: seen}
        )

    def made_up_ids(self, pictures: PictureInputs, num_prompts: int) -> list[int]:
        """Return tags and placeholders for one picture, its tiles in as many rows as make it nearest to a square."""
        tiles = int(pictures.beside["pixel_attention_mask"][0].flatten(1).any(dim=1).sum()) - 1
        run = [self.image_token_id] * self._tokens_a_side(pictures) ** 2
        closing, tag, end = [number for number in range(1, 5) if number != self.image_token_id][:3]
        down = max((rows for rows in range(1, math.isqrt(tiles) + 1) if tiles % rows == 0), default=1)
        row = [closing, tag, *run] * (tiles // down) + [end]
        return row * down * (tiles > 0) + [closing, tag, *run, closing]

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return the grids of each picture's tiles, if it was cut, and of its whole.

        Args:
            pictures: of `with_prompts`.

        Raises:
            InputError: if their tiles are not squares.
        """
        side, pieces = self._tokens_a_side(pictures), self._pieces(pictures)
        return tuple((piece.down * side, piece.across * side) for piece in pieces)

    def tower_runs(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return the number of tiles of each image."""
        return tuple(piece.num_tiles for piece in self._pieces(pictures))

    def whole_images(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return the last image of each picture: after its tiles, if it was cut."""
        ends = accumulate(2 if down else 1 for _, down, _ in pictures.beside[_CUTS].tolist())
        return tuple(end - 1 for end in ends)

    def placeholder_orders(self, pictures: PictureInputs) -> tuple[Tensor | None, ...]:
        """Return for each image which of its placeholders, tile by tile, belongs to each of its tokens, row by row."""
        side = self._tokens_a_side(pictures)
        return tuple(
            None if piece.num_tiles == 1 else replace(piece, first=0).places(side) for piece in self._pieces(pictures)
        )

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return each picture joined from its tiles, if it was cut, and whole, without what no whole token sees."""
        tiles = self._tiles(pictures)
        side = self._tokens_a_side(pictures) * self._scale * self._model.config.vision_config.patch_size
        seen = []
        for piece in self._pieces(pictures):
            own = tiles[piece.first : piece.first + piece.num_tiles, :, :side, :side]
            grid = own.reshape(piece.down, piece.across, *own.shape[1:]).permute(2, 0, 3, 1, 4)
            seen.append(grid.flatten(3, 4).flatten(1, 2))
        return tuple(seen)

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run the tower over all tiles at once as stock `get_image_features` does, and lay its output out by images.

        Args:
            pictures: as for `grids`.
            needs: `FEATURE_LAYER` and `LAST_LAYER` are one here: the features are those of the last layer.
        """
        return self.encode_with_attention(pictures, (), needs=needs)

    def encode_with_attention(
        self, pictures: PictureInputs, attentions: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower, and give what tokens receive of attention within their tile; see `ReadsAttention`."""
        side, pieces, tiles = self._tokens_a_side(pictures), self._pieces(pictures), self._tiles(pictures)
        asked = {Need.FEATURE_LAYER, Need.LAST_LAYER} & set(needs)
        seen = pictures.beside[_SEEN].flatten(0, 1)
        seen = seen[seen.flatten(1).any(dim=-1)]
        made = self._model.model.vision_model(
            pixel_values=tiles.to(self.dtype),
            patch_attention_mask=seen.to(tiles.device, non_blocking=True),
            output_hidden_states=bool(asked or attentions),
            return_dict=True,
        )
        shuffled = self._model.model.connector.pixel_shuffle(made.last_hidden_state, self._scale)
        places = _padded([piece.places(side) for piece in pieces], len(tiles) * side**2 + 1)
        places = places.to(tiles.device, non_blocking=True)
        layer = self._compared(made, side, places, [piece.span for piece in pieces]) if asked else None
        return TiledFeatures(
            torch.nn.functional.pad(shuffled.flatten(0, 1), (0, 0, 0, 2))[places],
            unprojected=made.last_hidden_state,
            places=places,
            attention_received=self._received(made, attentions, side, places) if attentions else None,
            feature_layer=layer if Need.FEATURE_LAYER in asked else None,
            last_layer=layer if Need.LAST_LAYER in asked else None,
        )

    def project(self, features: Tensor) -> Tensor:
        """Map shuffled features, [I, K, C], to the LLM's input, [I, K, D]."""
        projected: Tensor = self._model.model.connector.modality_projection(features)
        return projected

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Map every token to the LLM's input, [I, N, D]: all tiles at once, as the stock model does, then laid out."""
        assert isinstance(vision, TiledFeatures)
        projected: Tensor = self._model.model.connector(vision.unprojected)
        return torch.nn.functional.pad(projected.flatten(0, 1), (0, 0, 0, 2))[vision.places]

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model without values whose products are counted; see `costs/counted.py`."""
        width = model.config.vision_config.hidden_size * model.config.scale_factor**2
        inner, projector = model.model, model.model.connector.modality_projection
        return costed_parts_of(model, inner.vision_model, inner.text_model, projector, width, called=_WholePictures)

    def _received(self, made: Any, attentions: Sequence[AskedAttention], side: int, places: Tensor) -> Tensor:
        """Return what tokens receive of attention, the mean of their patches, [I, N, A]."""
        layers = self._model.model.vision_model.encoder.layers
        received = received_in_layers(layers, made.hidden_states, attentions, produces=len(layers) - 1, has_cls=False)
        of_tokens = mean_of_cells(received, side, self._scale)
        return torch.nn.functional.pad(of_tokens.flatten(0, 1), (0, 0, 0, 2))[places]

    def _compared(self, made: Any, side: int, places: Tensor, spans: Sequence[Span]) -> TowerLayer | None:
        layers = self._model.model.vision_model.encoder.layers
        layer = tower_layer(layers[-1], made.hidden_states[len(layers) - 1], has_cls=False)
        return TiledLayer.of(of_cells(layer, side, self._scale), places, spans)

    def _tokens_a_side(self, pictures: PictureInputs) -> int:
        height, width = pictures.pixel_values.shape[-2:]
        patch: int = self._model.config.vision_config.patch_size
        side, rest = divmod(height // patch, self._scale)
        if height != width or rest or side == 0:
            raise InputError(
                f"the processor makes tiles of {height} x {width} pixels, of which this model makes no square of "
                "tokens: give the model's own processor"
            )
        return int(side)

    def _pieces(self, pictures: PictureInputs) -> list["_Piece"]:
        """Return what each image is joined from, in the order of the prompts."""
        if _CUTS not in pictures.beside:
            raise InputError("this model's images are read with their prompts: give input_ids too")
        pieces, first = [], 0
        for _, down, across in pictures.beside[_CUTS].tolist():
            if down:
                pieces.append(_Piece(first, down, across))
            pieces.append(_Piece(first + down * across, 1, 1))
            first += down * across + 1
        return pieces

    def _tiles(self, pictures: PictureInputs) -> Tensor:
        """Return the tiles that are there, [T, 3, S, S]: padding left out."""
        there = pictures.beside[_SEEN].flatten(2).any(dim=-1).flatten().nonzero().flatten()
        return pictures.pixel_values.flatten(0, 1)[there.to(pictures.pixel_values.device, non_blocking=True)]


class _WholePictures(nn.Module):
    """The tower without a mask and positions: it reads both off values, and multiplies by neither."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower: Any = tower

    def forward(self, pixels: Tensor) -> Any:
        """Return what the tower makes of pictures without a mask, [I, N, C] in `last_hidden_state`."""
        patches = self.tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return self.tower.encoder(inputs_embeds=patches)


class SmolVLMFamily(Idefics3Family):
    """Drives a stock `SmolVLMForConditionalGeneration`: Idefics3's modules under another name."""

    name = "smolvlm"
    transformers_class = "SmolVLMForConditionalGeneration"

    @staticmethod
    def processor_class() -> Any:
        """Return Idefics3's: of pictures it makes what SmolVLM's makes, which reads videos too and asks for more."""
        from transformers import Idefics3Processor

        return Idefics3Processor


@dataclass(frozen=True)
class _Piece:
    """What one image is joined from: tiles in rows, or one.

    Attributes:
        first: its first tile, among those of the batch.
        down: tiles in a column.
        across: tiles in a row.
    """

    first: int
    down: int
    across: int

    @property
    def num_tiles(self) -> int:
        """Of the image."""
        return self.down * self.across

    @property
    def span(self) -> Span:
        """Its tiles."""
        return self.first, self.first + self.num_tiles

    def places(self, side: int) -> Tensor:
        """Return the place of each of its tokens, row by row, among those of all tiles, `side` of them a side: [N]."""
        row = torch.arange(self.down * side)[:, None]
        column = torch.arange(self.across * side)[None, :]
        tile = self.first + (row // side) * self.across + column // side
        return (tile * side**2 + (row % side) * side + column % side).flatten()


def _padded(rows: Sequence[Tensor], filler: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filler)


def _of_patches(pixels: Tensor, side: int) -> Tensor:
    """Return which patches hold a pixel, [..., rows, columns] bool, of a mask of pixels, [..., height, width]."""
    rows, columns = pixels.shape[-2] // side, pixels.shape[-1] // side
    whole = pixels[..., : rows * side, : columns * side]
    return whole.reshape(*pixels.shape[:-2], rows, side, columns, side).any(dim=-1).any(dim=-2)


def _first(counts: Sequence[int], width: int) -> Tensor:
    """Return True for the first so many of each row, [len(counts), width]."""
    return torch.arange(width) < torch.tensor(counts, dtype=torch.int64).unsqueeze(1)


def _cuts(ids: Sequence[int], image_token_id: int, sample: int) -> list[tuple[int, int]]:
    """Return (tiles in a column, in a row) of each picture of a prompt, (0, 0) of one that is not cut.

    A run of placeholders is a tile's, or a whole's. What is between two runs tells them apart; `x` is the token
    that closes pictures and comes before tags: `x tag` another tile of the row; a line's end, then `x tag`, a new row,
    or the whole; `x …` with one more `x` in it, another picture.

    Raises:
        InputError: if runs make no rows of equal length with a whole after them.
    """
    gaps = _gaps(ids, image_token_id)
    if not gaps:
        return []
    closing = gaps[-1][:1]
    pictures: list[list[int]] = [[1]]
    for gap in gaps[:-1]:
        if gap[:1] != closing:
            pictures[-1].append(1)
        elif gap.count(closing[0]) == 1:
            pictures[-1][-1] += 1
        else:
            pictures.append([1])
    cuts = []
    for *rows, whole in pictures:
        if whole != 1 or len(set(rows)) > 1 or not closing:
            raise InputError(
                f"sample {sample} has an image with rows of {', '.join(map(str, (*rows, whole)))} tiles, which end in "
                "no whole: let the processor expand the prompt, and do not truncate it"
            )
        cuts.append((len(rows), rows[0] if rows else 0))
    return cuts


def _gaps(ids: Sequence[int], image_token_id: int) -> list[list[int]]:
    """Return the ids after each run of placeholders, up to the next run or the end."""
    gaps: list[list[int]] = []
    for place, token in enumerate(ids):
        if token == image_token_id and (place == 0 or ids[place - 1] != image_token_id):
            gaps.append([])
        elif token != image_token_id and gaps:
            gaps[-1].append(token)
    return gaps
