"""Mistral 3: native image size; 2 x 2 patches make one token; a break in the prompt after each row of them.

    a picture of 56 x 84 pixels     4 x 6 patches of 14    `image_sizes` (56, 84)
    in the prompt                   [IMG] [IMG] [IMG] [IMG_BREAK] [IMG] [IMG] [IMG] [IMG_END]
    what is selected from           2 x 3 tokens           each the features of its 2 x 2 patches, side by side
    what the LLM reads              the projector's, of K of them

Breaks are text and stay, whatever is dropped. The Pixtral tower runs the patches of all pictures as one sequence, in
which each picture sees itself alone, as in the stock model. The projector norms patches, joins those of a token, and
treats each token alone: it reads kept ones only.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families.costed_parts import CostedParts, costed_parts_of
from adallava.families.family_contract import VisionFeatures
from adallava.families.native_size import SHAPE_PX, NativeSizeParts, shape_at_native_size
from adallava.families.picture_inputs import PictureInputs
from adallava.families.tower_layer import layer_at, mean_received_turned
from adallava.families.transformers_internals import pixtral_processor_class
from adallava.selection.selector_contract import AskedAttention, Need

Grid = tuple[int, int]


class Mistral3Family(NativeSizeParts):
    """Drives a stock `Mistral3ForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "mistral3"
    transformers_class = "Mistral3ForConditionalGeneration"
    picture_inputs = ("pixel_values", "image_sizes")

    def __init__(self, model: Any) -> None:
        """Take hold of a loaded model.

        Raises:
            UnsupportedModeError: for another tower than Pixtral's.
            CheckpointError: if patches cannot be merged, or the projector reads several layers; and as of every family.
        """
        super().__init__(model)
        config, vision = model.config, model.config.vision_config
        if vision.model_type != "pixtral":
            raise UnsupportedModeError(
                f"vision_config has model_type={vision.model_type!r}: a {self.name} is driven with a 'pixtral' tower "
                "alone, whose images have their own size"
            )
        layers = config.vision_feature_layer
        layers = [layers] if isinstance(layers, int) else list(layers)
        merge, patch = config.spatial_merge_size, vision.patch_size
        if len(layers) != 1 or not isinstance(patch, int) or min(patch, merge) < 1:
            raise CheckpointError(
                f"patch_size is {patch!r}, spatial_merge_size {merge} and vision_feature_layer "
                f"{config.vision_feature_layer!r}: whole numbers from 1 on are needed, and one layer, of whose width "
                "the projector's norm is"
            )
        (self._layer,), self._merge, self._patch = layers, int(merge), patch
        width, heads = vision.hidden_size, vision.num_attention_heads
        self._shape = shape_at_native_size(config, patch, self._merge, width=width, heads=heads)

    @staticmethod
    def processor_class() -> Any:
        """Return its processor, whether or not torchvision is there."""
        return pixtral_processor_class()

    @property
    def _token_px(self) -> int:
        return self._merge * self._patch

    @property
    def _tower(self) -> Any:
        return self._model.model.vision_tower

    @property
    def provides(self) -> frozenset[Need]:
        """No class token, and keys that are turned by their places; but attention received, and smaller pictures."""
        return frozenset({Need.ATTENTION_RECEIVED, Need.PROJECTED, Need.RESIZED_PICTURE, Need.WORDS})

    def grids(self, pictures: PictureInputs) -> tuple[Grid, ...]:
        """Return the grid of each picture's tokens.

        Args:
            pictures: [I, 3, H, W], each filled up to the largest, with their `image_sizes`, [I, 2] of pixels.

        Raises:
            InputError: without `image_sizes`, or for sizes that do not fit the pixels or are not of whole tokens.
        """
        pixels, sizes, side = pictures.pixel_values, pictures.beside.get("image_sizes"), self._token_px
        if sizes is None or sizes.dim() != 2 or sizes.shape[1] != 2:
            raise InputError("this model needs the images' sizes: give the processor's image_sizes too, [images, 2]")
        if pixels.dim() != 4 or len(pixels) != len(sizes):
            raise InputError(
                f"image_sizes has {len(sizes)} images, and pixel_values the shape {tuple(pixels.shape)}: "
                "[images, channels, height, width] is needed, as this model's own processor makes it"
            )
        for height, width in sizes.tolist():
            if height % side or width % side or min(height, width) < side:
                raise InputError(
                    f"image_sizes has an image of {height} x {width} pixels: this model needs sides of whole tokens, "
                    f"of {side} pixels; give what its own processor makes"
                )
            if height > pixels.shape[2] or width > pixels.shape[3]:
                raise InputError(
                    f"image_sizes has an image of {height} x {width} pixels, and pixel_values only "
                    f"{pixels.shape[2]} x {pixels.shape[3]}: give both as the processor makes them"
                )
        return tuple((height // side, width // side) for height, width in sizes.tolist())

    def placeholder_orders(self, pictures: PictureInputs) -> tuple[Tensor | None, ...]:
        """Return None for each image: its placeholders are in the grid's order, with breaks between rows."""
        return (None,) * len(self.grids(pictures))

    def made_up_ids(self, pictures: PictureInputs, num_prompts: int) -> list[int]:
        """Return rows of placeholders with breaks and an end, as the processor words one picture."""
        rows, columns = self.grids(pictures)[0]
        stop, end = [number for number in range(1, 4) if number != self.image_token_id][:2]
        each = [*[self.image_token_id] * columns, stop]
        return [*each * (rows - 1), *each[:-1], end]

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return each picture without what fills it up, [3, rows * P, columns * P]."""
        side = self._token_px
        return tuple(
            pixels[:, : rows * side, : columns * side]
            for pixels, (rows, columns) in zip(pictures.pixel_values, self.grids(pictures), strict=True)
        )

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return the pictures of some images: each picture is one."""
        places = torch.tensor(images, dtype=torch.int64).to(pictures.pixel_values.device, non_blocking=True)
        sizes = {"image_sizes": pictures.beside["image_sizes"][list(images)]}
        return PictureInputs(pictures.pixel_values.index_select(0, places), sizes)

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower as stock `get_image_features` does, and lay each token's patches side by side.

        What a token receives of attention is the mean of its patches; see `ReadsAttention`.
        """
        grids = self.grids(pictures)
        states = self._tower(
            pictures.pixel_values.to(self.dtype),
            image_sizes=self._sizes(grids),
            output_hidden_states=True,
            return_dict=True,
        ).hidden_states
        read, patches = states[self._layer].squeeze(0), self._patches_of_tokens(grids, states[0].device)
        return NativeFeatures(
            read[patches].flatten(2),
            unprojected=read,
            grids=grids,
            attention_received=self._received(states, asked, grids, patches) if asked else None,
        )

    def encode_resized(self, pictures: PictureInputs, grid: Grid) -> VisionFeatures:
        """Run the tower on each picture resized to a grid of tokens, bicubic and antialiased; see `ResizesPictures`."""
        size = [side * self._token_px for side in grid]
        sizes = {"image_sizes": torch.tensor([size])}
        features = []
        for picture in self.pictures(pictures):
            # Antialiasing has no kernel for half precision on every device.
            smaller = F.interpolate(picture[None].float(), size=size, mode="bicubic", antialias=True)
            features.append(self.encode(PictureInputs(smaller, sizes)).features)
        return VisionFeatures(torch.cat(features))

    def project(self, features: Tensor) -> Tensor:
        """Map tokens' patches, [I, K, C], to the LLM's input, [I, K, D]."""
        return _projected(self._model.model.multi_modal_projector, features)

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Map every token to the LLM's input, [I, N, D]: all pictures at once, as the stock model does."""
        assert isinstance(vision, NativeFeatures)
        projected = self._model.model.multi_modal_projector(vision.unprojected, self._sizes(vision.grids))
        own = projected.split([rows * columns for rows, columns in vision.grids])
        return torch.nn.utils.rnn.pad_sequence(list(own), batch_first=True)

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model without values whose products are counted; see `costs/counted.py`."""
        inner, unit = model.model, model.config.spatial_merge_size**2
        parts = costed_parts_of(
            model,
            inner.vision_tower,
            inner.language_model,
            _OfTokens(inner.multi_modal_projector),
            model.config.vision_config.hidden_size * unit,
            called=_OnePicture,
        )
        side = SHAPE_PX // parts.patch_size
        return replace(parts, side=side, patches_per_token=unit, one_sequence=True)

    def _sizes(self, grids: Sequence[Grid]) -> list[Grid]:
        """Return (height, width) in pixels as numbers of the host: read off a tensor, a device would be waited for."""
        return [(rows * self._token_px, columns * self._token_px) for rows, columns in grids]

    def _patches_of_tokens(self, grids: Sequence[Grid], device: torch.device) -> Tensor:
        """Return which of all patches are each token's, row by row, [I, N, merge²] int64; after an image's own, 0."""
        merge, rows = self._merge, []
        starts = accumulate((down * across * merge**2 for down, across in grids), initial=0)
        for first, (down, across) in zip(starts, grids, strict=False):
            numbered = first + torch.arange(down * across * merge**2).view(down, merge, across, merge)
            rows.append(numbered.transpose(1, 2).reshape(down * across, merge**2))
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device, non_blocking=True)

    def _received(
        self, states: Sequence[Tensor], asked: Sequence[AskedAttention], grids: Sequence[Grid], patches: Tensor
    ) -> Tensor:
        """Return what tokens receive of attention in some layers, [I, N, A] float32, 0 after an image's own."""
        layers, merge = self._tower.transformer.layers, self._merge
        # Layer i reads state i and puts out state i + 1; for state 0, the embeddings, the first layer stands in.
        readable = range(max(1, range(len(layers) + 1)[self._layer]))
        turns = [self._turns(grid, states[0]) for grid in grids]
        kinds = []
        for one in asked:
            index = layer_at(one.depth, readable, len(layers))
            of_images = []
            for image, (rows, columns) in enumerate(grids):
                own = patches[image, : rows * columns].flatten()
                tables = [table[own - patches[image, 0, 0]] for table in turns[image]]
                received = _attention_received(layers[index], states[index][0, own], tables)
                of_images.append(received.view(-1, merge**2).mean(dim=1))
            kinds.append(torch.nn.utils.rnn.pad_sequence(of_images, batch_first=True))
        return torch.stack(kinds, dim=-1)

    def _turns(self, grid: Grid, states: Tensor) -> Sequence[Tensor]:
        """Return the cosines and sines of a picture's patches, row by row, [S, head width] each."""
        down, across = (torch.arange(side * self._merge, device=states.device) for side in grid)
        places = torch.cartesian_prod(down, across)
        tables: Sequence[Tensor] = self._tower.patch_positional_embedding(states, places)
        return tables


@dataclass(frozen=True, kw_only=True)
class NativeFeatures(VisionFeatures):
    """Features of pictures at their own size.

    Attributes:
        grids: of each picture's tokens.
    """

    grids: Sequence[Grid]


class _OnePicture(nn.Module):
    """The tower over one picture, [1, channels, pixels, pixels], without a mask and positions, which have no values."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower: Any = tower

    def forward(self, pixels: Tensor) -> Any:
        """Return what the last layer puts out, as `last_hidden_state`, [1, patches, C]."""
        hidden = self.tower.ln_pre(self.tower.patch_conv(pixels).flatten(2).transpose(1, 2))
        table = hidden.new_empty(hidden.shape[1], self.tower.config.head_dim)
        return self.tower.transformer(hidden, position_embeddings=(table, table))


class _OfTokens(nn.Module):
    """The projector, given tokens."""

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, features: Tensor) -> Tensor:
        """Map tokens' patches, [I, K, C], to the LLM's input, [I, K, D]."""
        return _projected(self.projector, features)


def _projected(projector: Any, features: Tensor) -> Tensor:
    """Return what the stock projector makes of tokens' patches side by side, [I, K, D]."""
    unit = projector.patch_merger.spatial_merge_size**2
    normed = projector.norm(features.reshape(*features.shape[:-1], unit, -1))
    # As `unfold` joins them: a feature of all patches, then the next.
    merged = projector.patch_merger.merging_layer(normed.transpose(-1, -2).flatten(-2))
    projected: Tensor = projector.linear_2(projector.act(projector.linear_1(merged)))
    return projected


@torch.no_grad()
def _attention_received(layer: Any, states: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Return what each patch of one picture, [S, C], receives of a layer's attention, [S] float32."""
    normed, attention = layer.attention_norm(states), layer.attention
    return mean_received_turned(attention.q_proj(normed), attention.k_proj(normed), int(attention.num_heads), tables)
