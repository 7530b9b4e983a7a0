"""InternVL: the image in tiles, each with its own tokens; 2 x 2 patches make one token.

    a tile of 448 x 448 pixels ──▶ 32 x 32 patches ──▶ 16 x 16 tokens of 4 C features ──▶ projector
                                                       methods choose here

A picture is cut by its shape into tiles, and one more shows all of it. How they lay side by side, neither processor nor
prompt says, and the stock model does not ask: so each is an image of its own, and a picture's tokens are shared over
them. The projector reads each token alone. What a method reads of a layer of the tower is that of a token's patches:
the class token's attention to them together, and the mean of their keys.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import CheckpointError, InputError
from adallava.families.costed_parts import CostedParts, costed_parts_of, one_side
from adallava.families.family_contract import VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.families.stock_parts import StockParts
from adallava.families.tower_layer import mean_of_cells, received_in_layers, tower_layer
from adallava.families.tower_parts import square_shape
from adallava.families.transformers_internals import without_videos
from adallava.selection.selector_contract import AskedAttention, Need, TowerLayer

_TILES = "tiles"
"""With the pixels: [P] int64, the tiles of each picture."""


class InternVLFamily(StockParts):
    """Drives a stock `InternVLForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "internvl"
    transformers_class = "InternVLForConditionalGeneration"
    picture_inputs = ("pixel_values",)

    def __init__(self, model: Any) -> None:
        """Take hold of a loaded model.

        Raises:
            CheckpointError: if a tile's patches make no square of tokens, or the projector reads something else than
                the patches of one layer; and as of every family.
        """
        super().__init__(model)
        config, vision = model.config, model.config.vision_config
        self._px, self._patch = one_side(vision.image_size), one_side(vision.patch_size)
        self._cell = round(1 / config.downsample_ratio)
        self._layer = config.vision_feature_layer
        if config.vision_feature_select_strategy != "default" or not isinstance(self._layer, int):
            raise CheckpointError(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r} and vision_feature_layer "
                f"{self._layer!r}: an InternVL reads the patches of one layer, without the class token ('default')"
            )
        side, rest = divmod(self._px // self._patch, self._cell)
        squares = all(isinstance(size, int) or len({*size}) == 1 for size in (vision.image_size, vision.patch_size))
        if not squares or rest or side == 0 or self._cell * config.downsample_ratio != 1:
            raise CheckpointError(
                f"a tile of {vision.image_size} pixels in patches of {vision.patch_size} makes no square of tokens at "
                f"downsample_ratio {config.downsample_ratio}"
            )
        self._shape = square_shape(
            config, side, self._cell**2, width=vision.hidden_size, heads=vision.num_attention_heads
        )

    @staticmethod
    def processor_class() -> Any:
        """Return its processor without videos: their frames are pictures."""
        return without_videos("InternVLProcessor")

    @property
    def provides(self) -> frozenset[Need]:
        """A class token, its layers, and tiles of other sizes."""
        tower = {Need.ATTENTION_RECEIVED, Need.CLS_TOKEN, Need.FEATURE_LAYER, Need.LAST_LAYER, Need.RESIZED_PICTURE}
        return frozenset({Need.PROJECTED, Need.WORDS} | tower)

    @property
    def one_grid(self) -> bool:
        """True: every tile has one size."""
        return True

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return the grid of each tile: all are alike.

        Args:
            pictures: [tiles of all, 3, H, W].

        Raises:
            InputError: for tiles of another size than the model's.
        """
        height, width = pictures.pixel_values.shape[-2:]
        if (height, width) != (self._px, self._px):
            raise InputError(
                f"the processor makes tiles of {height} x {width} pixels, and this model's have {self._px} x "
                f"{self._px}: give the model's own processor"
            )
        return (self._shape.grid,) * len(pictures.pixel_values)

    def with_prompts(self, pictures: PictureInputs, input_ids: Tensor) -> PictureInputs:
        """Return the tiles with how many are of each picture with them: its placeholders are one run. On the host."""
        placed = (input_ids == self.image_token_id).tolist()
        runs = [len([*run]) for row in placed for is_image, run in groupby(row) if is_image]
        tiles = [count // self._shape.num_vision_tokens for count in runs]
        return replace(pictures, beside={**pictures.beside, _TILES: torch.tensor(tiles, dtype=torch.int64)})

    def made_up_ids(self, pictures: PictureInputs, num_prompts: int) -> list[int]:
        """Return placeholders for the tiles of one picture; see `ReadsPrompts`."""
        tokens = len(self.grids(pictures)) // num_prompts * self._shape.num_vision_tokens
        return [self.image_token_id] * tokens

    def whole_images(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return the last tile of each picture, which shows all of it; without prompts each tile is taken for one."""
        tiles = pictures.beside.get(_TILES, torch.ones(len(pictures.pixel_values), dtype=torch.int64))
        return tuple(end - 1 for end in accumulate(tiles.tolist()))

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return the tiles, [3, H, W], without a border narrower than a patch, which the tower cuts off."""
        side = self._px // self._patch * self._patch
        return tuple(pictures.pixel_values[..., :side, :side])

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return some of the tiles."""
        places = torch.tensor(images, dtype=torch.int64).to(pictures.pixel_values.device, non_blocking=True)
        return PictureInputs(pictures.pixel_values.index_select(0, places))

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run the tower as stock `get_image_features` does, and shuffle its patches to tokens.

        Args:
            pictures: as for `grids`.
            needs: `FEATURE_LAYER` and `LAST_LAYER` are recomputed from the states between the layers.
        """
        return self._run_tower(pictures.pixel_values, needs)

    def encode_with_attention(
        self, pictures: PictureInputs, attentions: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower, and give what tokens receive of attention, the mean of their patches; see `ReadsAttention`."""
        return self._run_tower(pictures.pixel_values, needs, attentions)

    def encode_resized(self, pictures: PictureInputs, grid: tuple[int, int]) -> VisionFeatures:
        """Run the tower on tiles resized to a grid of tokens, bicubic and antialiased; see `ResizesPictures`."""
        if grid == self._shape.grid:
            return self._run_tower(pictures.pixel_values)
        size = [side * self._cell * self._patch for side in grid]
        # Antialiasing has no kernel for half precision on every device.
        pixels = F.interpolate(pictures.pixel_values.float(), size=size, mode="bicubic", antialias=True)
        return self._run_tower(pixels)

    def _run_tower(
        self, pixel_values: Tensor, needs: Collection[Need] = (), attentions: Sequence[AskedAttention] = ()
    ) -> VisionFeatures:
        asked, inner = {Need.FEATURE_LAYER, Need.LAST_LAYER} & set(needs), self._model.model
        states_too = bool(asked or attentions) or self._layer != -1
        made = inner.vision_tower(
            pixel_values=pixel_values.to(self.dtype), output_hidden_states=states_too, return_dict=True
        )
        read = made.last_hidden_state if self._layer == -1 else made.hidden_states[self._layer]
        patches = read[:, 1:]
        rows, columns = (px // self._patch for px in pixel_values.shape[-2:])
        grids = patches.reshape(len(patches), rows, columns, -1)
        shuffled = inner.pixel_shuffle(grids, scale_factor=self._model.config.downsample_ratio)
        tokens = shuffled.reshape(len(shuffled), -1, shuffled.shape[-1])
        num_layers = len(inner.vision_tower.encoder.layer)
        # Layer i reads state i and puts out state i + 1; for state 0, the embeddings, the first layer stands in.
        produces = max(0, range(num_layers + 1)[self._layer] - 1)
        return VisionFeatures(
            tokens,
            unprojected=tokens,
            attention_received=self._received(attentions, produces, made.hidden_states) if attentions else None,
            feature_layer=self._compared(produces, made.hidden_states) if Need.FEATURE_LAYER in asked else None,
            last_layer=self._compared(num_layers - 1, made.hidden_states) if Need.LAST_LAYER in asked else None,
        )

    def _received(self, attentions: Sequence[AskedAttention], produces: int, states: Sequence[Tensor]) -> Tensor:
        """Return what tokens receive of attention, [I, N, A]."""
        layers = [_Block(block) for block in self._model.model.vision_tower.encoder.layer]
        received = received_in_layers(layers, states, attentions, produces=produces, has_cls=True)
        return mean_of_cells(received, self._shape.grid[0], self._cell)

    def _compared(self, layer: int, states: Sequence[Tensor]) -> TowerLayer:
        block = self._model.model.vision_tower.encoder.layer[layer]
        of_patches = tower_layer(_Block(block), states[layer], has_cls=True)
        return CellLayer(of_patches.keys, of_patches.cls_query, of_patches.num_heads, self._shape.grid[0], self._cell)

    def project(self, features: Tensor) -> Tensor:
        """Map shuffled features, [I, K, C], to the LLM's input, [I, K, D]."""
        projected: Tensor = self._model.model.multi_modal_projector(features)
        return projected

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Map every token to the LLM's input, [I, N, D], to the stock model's bits; see `Family.project_all`."""
        assert vision.unprojected is not None
        return self.project(vision.unprojected)

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model without values whose products are counted; see `costs/counted.py`."""
        inner, projector = model.model, model.model.multi_modal_projector
        return costed_parts_of(
            model, inner.vision_tower, inner.language_model, projector, projector.linear_1.in_features
        )


@dataclass(frozen=True)
class CellLayer(TowerLayer):
    """A layer of a tower with a class token, read by tokens that are cells of patches.

    Attributes:
        side: tokens in a row.
        cell: patches of a token in a row.
    """

    side: int
    cell: int

    @property
    def patch_keys(self) -> Tensor:
        """The mean key of each token's patches, [I, N, C]."""
        return mean_of_cells(super().patch_keys, self.side, self.cell)

    def cls_attention(self, num_heads: int | None = None) -> Tensor:
        """Return how much the class token looks at each token's patches together, [I, heads, N] float32."""
        of_patches = super().cls_attention(num_heads).transpose(1, 2)
        return mean_of_cells(of_patches, self.side, self.cell).transpose(1, 2) * self.cell**2

    def of_image(self, image: int, num_tokens: int) -> "CellLayer":
        """Return the same layer for one tile, in memory of its own."""
        assert num_tokens == self.side**2
        assert self.cls_query is not None
        own = slice(image, image + 1)
        return replace(self, keys=self.keys[own].clone(), cls_query=self.cls_query[own].clone())


class _Block:
    """An InternVL tower's layer by the names of CLIP's: its norm, and projections with the norms after them."""

    def __init__(self, block: Any) -> None:
        self.layer_norm1 = block.layernorm_before
        self.self_attn = self
        self._attention = block.attention
        self.num_heads = int(block.attention.num_heads)

    def q_proj(self, states: Tensor) -> Tensor:
        """Return queries after their norm, [..., C]."""
        queries: Tensor = self._attention.q_norm(self._attention.q_proj(states))
        return queries

    def k_proj(self, states: Tensor) -> Tensor:
        """Return keys after their norm, [..., C]."""
        keys: Tensor = self._attention.k_norm(self._attention.k_proj(states))
        return keys
