"""What LLaVA and its kin share: a CLIP-style tower, a projector, any LLM, at the places where transformers has them."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.families.costed_parts import CostedParts, costed_parts_of
from adallava.families.family_contract import VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.families.stock_parts import StockParts
from adallava.families.tower_layer import received_in_layers, tower_layer
from adallava.families.tower_parts import num_leading_tokens, provided
from adallava.selection.selector_contract import AskedAttention, Need, TowerLayer, TowerShape

_OF_ANY_SIZE = ("pixtral",)


class LlavaParts(StockParts):
    """Drives the tower, the projector and the LLM of a stock model. Holds it, changes nothing in it."""

    def __init__(self, model: Any) -> None:
        """Wrap a loaded model.

        Raises:
            UnsupportedModeError: for a tower whose output is not exactly its grid of patches.
            CheckpointError: if parameters lie on several devices or are not floating-point, or the token of a picture
                has no row among the embeddings.
        """
        super().__init__(model)
        tower = model.config.vision_config.model_type
        if tower in _OF_ANY_SIZE:
            raise UnsupportedModeError(
                f"its {tower!r} tower takes images at their own size, and models of type {model.config.model_type!r} "
                "need images of one size"
            )
        self._layers = _feature_layers(model.config)
        self._shape = _tower_shape(model.config, len(self._layers), self._tower)

    @property
    def provides(self) -> frozenset[Need]:
        """What this model can give to a method; of the tower, see `tower_parts`."""
        return frozenset({Need.PROJECTED, Need.WORDS}) | provided(self._tower)

    @property
    def no_grid(self) -> str | None:
        """Why the features of an image are not the grid of its patches, over which methods choose; None if they are."""
        config = self._model.config
        if _spare_tokens(config, self._tower) == 0:
            return None
        return (
            f"vision_feature_select_strategy={config.vision_feature_select_strategy!r} with a "
            f"{config.vision_config.model_type!r} tower gives features that are not the grid of patches"
        )

    @property
    def _tower(self) -> Any:
        tower = self._model.model.vision_tower
        return getattr(tower, "vision_model", tower)

    @property
    def _has_cls(self) -> bool:
        return bool(self._model.config.vision_feature_select_strategy == "default")

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        """Run the tower as stock `get_image_features` does.

        Args:
            pictures: [I, 3, H, W].
            needs: `FEATURE_LAYER` and `LAST_LAYER` are recomputed from the states between the layers, so that the
                tower itself runs with any attention kernel.
        """
        return self._run_tower(pictures.pixel_values, needs)

    def _run_tower(
        self, pixel_values: Tensor, needs: Collection[Need] = (), asked: Sequence[AskedAttention] = (), **options: Any
    ) -> VisionFeatures:
        """Run the tower, with further arguments of its own."""
        states = self._model.model.vision_tower(
            pixel_values, output_hidden_states=True, return_dict=True, **options
        ).hidden_states
        unprojected = self._patches(states)
        return VisionFeatures(
            unprojected.contiguous(),
            unprojected=unprojected,
            attention_received=self._received(states, asked) if asked else None,
            feature_layer=self._tower_layer(states, self._produces) if Need.FEATURE_LAYER in needs else None,
            last_layer=self._tower_layer(states, len(states) - 2) if Need.LAST_LAYER in needs else None,
        )

    @property
    def _produces(self) -> int:
        """The layer that puts out the features: layer i reads state i and puts out state i + 1."""
        # For state 0, the embeddings, the first layer stands in.
        return max(0, range(len(self._tower.encoder.layers) + 1)[self._layers[-1]] - 1)

    def _tower_layer(self, states: Sequence[Tensor], index: int) -> TowerLayer:
        return tower_layer(self._tower.encoder.layers[index], states[index], has_cls=self._has_cls)

    def _received(self, states: Sequence[Tensor], asked: Sequence[AskedAttention]) -> Tensor:
        """Return what patches receive of attention, [I, N, A] float32."""
        layers = self._tower.encoder.layers
        return received_in_layers(layers, states, asked, produces=self._produces, has_cls=self._has_cls)

    def project(self, features: Tensor) -> Tensor:
        """Map tower features, [I, K, C], to the LLM's input, [I, K, D]."""
        projected: Tensor = self._model.model.multi_modal_projector(features)
        return projected

    def project_all(self, vision: VisionFeatures) -> Tensor:
        """Map every token to the LLM's input, [I, N, D], to the stock model's bits; see `Family.project_all`."""
        assert vision.unprojected is not None
        projected: Tensor = self._model.model.multi_modal_projector(vision.unprojected)
        return projected

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model without values whose products are counted; see `costs/counted.py`."""
        width = model.config.vision_config.hidden_size * len(_feature_layers(model.config))
        inner = model.model
        return costed_parts_of(model, inner.vision_tower, inner.language_model, inner.multi_modal_projector, width)

    def _patches(self, states: Sequence[Tensor]) -> Tensor:
        drop = 1 if self._has_cls else 0
        selected = [states[layer][:, drop:] for layer in self._layers]
        return selected[0] if len(selected) == 1 else torch.cat(selected, dim=-1)


def _feature_layers(config: Any) -> list[int]:
    layers = config.vision_feature_layer
    return [layers] if isinstance(layers, int) else list(layers)


def _tower_shape(config: Any, num_layers: int, tower: Any) -> TowerShape:
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    spare = _spare_tokens(config, tower)
    return TowerShape(
        num_vision_tokens=side * side + spare,
        vision_width=vision.hidden_size * num_layers,
        llm_width=config.get_text_config().hidden_size,
        # What is not a grid of patches is one row: `no_grid` keeps methods away from it.
        grid=(side, side) if spare == 0 else (1, side * side + spare),
        tower_width=vision.hidden_size,
        tower_heads=vision.num_attention_heads,
    )


def _spare_tokens(config: Any, tower: Any) -> int:
    """Return how many features of an image are not patches: class token or registers that stay in; -1: one is lost."""
    dropped = 1 if config.vision_feature_select_strategy == "default" else 0
    return num_leading_tokens(tower) - dropped
