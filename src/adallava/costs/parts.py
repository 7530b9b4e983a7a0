"""What one token, and one pair of a query and a key, costs in each part of a model: all that an answer's FLOPs need.

Plain numbers, without torch. `costs/counted.py` counts them by running the parts on the meta device.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TowerCosts:
    """A vision tower over S tokens of one picture.

    Attributes:
        num_vision_tokens: N, patches of the picture.
        extra_tokens: tokens beside the patches: a class token, registers, and a budget token where a method needs it.
        width: C, features per token.
        per_patch: FLOPs of making one patch a token.
        per_token: FLOPs of one of the S tokens in all layers.
        per_pair: FLOPs of one of the S * S pairs of a query and a key in all layers.
        fixed: FLOPs of a picture, whatever its size.
    """

    num_vision_tokens: int
    extra_tokens: int
    width: int
    per_patch: int
    per_token: int
    per_pair: int
    fixed: int = 0

    @property
    def sequence_length(self) -> int:
        """S, tokens that pass through the layers: N plus `extra_tokens`."""
        return self.num_vision_tokens + self.extra_tokens

    def with_patch_side(self, side: int) -> "TowerCosts":
        """Return the costs of the same tower on a square picture of `side` x `side` patches."""
        return replace(self, num_vision_tokens=side * side)


@dataclass(frozen=True)
class LayerCosts:
    """One decoder layer of the LLM.

    Attributes:
        per_token: FLOPs of one token, attention's two products left out; of a mixture, with the experts that it takes.
        per_pair: FLOPs of one pair of a query and a key, over all heads.
        cache_values: keys and values that the cache holds of one token.
        window: the most keys that a decoded token attends to; None = all.
    """

    per_token: int
    per_pair: int
    cache_values: int
    window: int | None = None


@dataclass(frozen=True)
class LLMCosts:
    """A decoder-only language model.

    Attributes:
        width: D.
        layers: its decoder layers, in order.
        per_logits: FLOPs of one token through the output layer.
    """

    width: int
    layers: tuple[LayerCosts, ...]
    per_logits: int


@dataclass(frozen=True)
class ModelCosts:
    """A LLaVA-class model.

    Attributes:
        vision: of the tower, on a picture as the model was trained.
        projector_per_token: FLOPs of one vision token in the projector.
        llm: of the LLM.
    """

    vision: TowerCosts
    projector_per_token: int
    llm: LLMCosts

    def with_budget_token(self) -> "ModelCosts":
        """Return the costs of the same model with one more token in the tower, for methods that need it."""
        return replace(self, vision=replace(self.vision, extra_tokens=self.vision.extra_tokens + 1))
