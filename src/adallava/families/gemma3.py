"""Gemma 3: 64 x 64 patches an image, averaged to 16 x 16 tokens with two-way attention.

    SigLIP ──▶ 4096 patches ──▶ means of 4 x 4 ──▶ 256 features ──▶ norm and product ──▶ 256 tokens
                                                   methods choose here

A token is a mean of 16 patches, and so is what a method reads of a layer of the tower. The projector after it treats
each token alone and reads kept ones only. A picture cut further by pan-and-scan is several images, which the prompt
says in words between them. Which tokens are a picture's is a companion (`token_type_ids`): a run of them is one block
whose tokens all see each other, so that two pictures without text between would be one, here as in the stock model.
Its sliding windows count the tokens that are there: see `StockParts.window_tokens`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adallava.errors import CheckpointError, InputError
from adallava.families.costed_parts import CostedParts, costed_parts_of
from adallava.families.family_contract import VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.families.stock_parts import StockParts
from adallava.families.takes_embeds import taking_embeds
from adallava.families.tower_layer import mean_of_cells, of_cells, received_in_layers, tower_layer
from adallava.families.tower_parts import provided
from adallava.selection.selector_contract import AskedAttention, Need, TowerShape


class Gemma3Family(StockParts):
    """Drives a stock `Gemma3ForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "gemma3"
    transformers_class = "Gemma3ForConditionalGeneration"
    picture_inputs = ("pixel_values",)
    token_inputs = ("token_type_ids",)
    reads_ahead = True

    def __init__(self, model: Any) -> None:
        """Take hold of a loaded model.

        Raises:
            CheckpointError: if its tokens are not a square of equal squares of patches; and as of every family.
        """
        super().__init__(model)
        vision, projector = model.config.vision_config, model.model.multi_modal_projector
        self._side, self._cell = int(projector.tokens_per_side), int(projector.kernel_size)
        patches = vision.image_size // vision.patch_size
        if self._side**2 != model.config.mm_tokens_per_image or self._side * self._cell != patches:
            raise CheckpointError(
                f"mm_tokens_per_image is {model.config.mm_tokens_per_image}, and an image has {patches} x {patches} "
                "patches: they must be a square of tokens, each of as many patches as the next"
            )
        self._shape = TowerShape(
            num_vision_tokens=self._side**2,
            vision_width=vision.hidden_size,
            llm_width=model.config.get_text_config().hidden_size,
            grid=(self._side, self._side),
            tower_heads=vision.num_attention_heads,
        )

    @property
    def provides(self) -> frozenset[Need]:
        """What this model can give to a method; of the tower, see `tower_parts`."""
        return frozenset({Need.PROJECTED, Need.WORDS}) | provided(self._tower)

    @property
    def one_grid(self) -> bool:
        """True: every picture is cut to one size."""
        return True

    @property
    def _tower(self) -> Any:
        tower = self._model.model.vision_tower
        return getattr(tower, "vision_model", tower)

    def grids(self, pictures: PictureInputs) -> tuple[tuple[int, int], ...]:
        """Return the grid of each image: all are alike.

        Raises:
            InputError: for pictures of another size than the model's.
        """
        height, width = pictures.pixel_values.shape[-2:]
        side = self._model.config.vision_config.image_size
        if (height, width) != (side, side):
            raise InputError(
                f"the processor makes images of {height} x {width} pixels, and this model's have {side} x {side}: "
                "give the model's own processor"
            )
        return (self._shape.grid,) * len(pictures.pixel_values)

    def companions(
        self, input_ids: Tensor, attention_mask: Tensor | None, pictures: PictureInputs | None
    ) -> Mapping[str, Tensor]:
        """Return 1 for the tokens of pictures, [B, L] int64: what its processor gives, too."""
        return {"token_type_ids": (input_ids == self.image_token_id).long()}

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return the pictures, [3, H, W], without a border narrower than a patch, which the tower cuts off."""
        side = self._side * self._cell * self._model.config.vision_config.patch_size
        return tuple(pictures.pixel_values[..., :side, :side])

    def generating(self, model: Any) -> Any:
        """Return the model, or a view of it, with a `generate` that takes embeddings; see `takes_embeds`."""
        return taking_embeds(model)

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run the tower as stock `get_image_features` does, and average patches to tokens.

        Args:
            pictures: [I, 3, H, W].
            needs: `FEATURE_LAYER` and `LAST_LAYER` are one here: the features are those of the last layer.
        """
        return self.encode_with_attention(pictures, (), needs=needs)

    def encode_with_attention(
        self, pictures: PictureInputs, attentions: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower, and give what tokens receive of attention, the mean of their patches; see `ReadsAttention`."""
        asked = {Need.FEATURE_LAYER, Need.LAST_LAYER} & set(needs)
        made = self._model.model.vision_tower(
            pixel_values=pictures.pixel_values, output_hidden_states=bool(asked or attentions), return_dict=True
        )
        averaged = mean_of_cells(made.last_hidden_state, self._side, self._cell)
        vision = VisionFeatures(averaged, unprojected=made.last_hidden_state)
        layers = self._tower.encoder.layers
        if attentions:
            received = received_in_layers(
                layers, made.hidden_states, attentions, produces=len(layers) - 1, has_cls=False
            )
            vision = replace(vision, attention_received=mean_of_cells(received, self._side, self._cell))
        if not asked:
            return vision
        layer = tower_layer(layers[-1], made.hidden_states[len(layers) - 1], has_cls=False)
        of_tokens = of_cells(layer, self._side, self._cell)
        return replace(
            vision,
            feature_layer=of_tokens if Need.FEATURE_LAYER in asked else None,
            last_layer=of_tokens if Need.LAST_LAYER in asked else None,
        )

    def project(self, features: Tensor) -> Tensor:
        """Map averaged features, [I, K, C], to the LLM's input, [I, K, D]."""
        return _behind_averaging(self._model.model.multi_modal_projector, features)

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Map every token to the LLM's input, [I, N, D], to the stock model's bits; see `Family.project_all`."""
        assert vision.unprojected is not None
        projected: Tensor = self._model.model.multi_modal_projector(vision.unprojected)
        return projected

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model without values whose products are counted; see `costs/counted.py`."""
        projector = _BehindAveraging(model.model.multi_modal_projector)
        inner, width = model.model, model.config.vision_config.hidden_size
        return costed_parts_of(model, inner.vision_tower, inner.language_model, projector, width)


def _behind_averaging(projector: Any, features: Tensor) -> Tensor:
    """Return what the stock projector makes of features that are averaged already, [I, K, D]."""
    normed = projector.mm_soft_emb_norm(features)
    return torch.matmul(normed, projector.mm_input_projection_weight).type_as(features)


class _BehindAveraging(nn.Module):
    """The projector's part that treats each token alone."""

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, features: Tensor) -> Tensor:
        """Map averaged features, [I, K, C], to the LLM's input, [I, K, D]."""
        return _behind_averaging(self.projector, features)
