"""What one token, and one pair of a query and a key, costs in each part of a model: all that an answer's FLOPs need.

Plain numbers, without torch. `costs/counted.py` counts them by running the parts on the meta device.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TowerCosts:
    """A vision tower over S tokens of one image.

    Attributes:
        num_vision_tokens: N, patches of the image.
        extra_tokens: tokens besides the patches: a class token, registers, and a budget token where a method needs it.
        width: C, features per token.
        per_patch: FLOPs of making one patch a token.
        per_token: FLOPs of one of the S tokens in all layers.
        per_pair: FLOPs of one of the S * S pairs of a query and a key in all layers.
        fixed: FLOPs of an image, whatever its size.
        patches_per_token: of a tower that sees each image at its own size, the patches of one token; None of others.
        one_sequence: whether the images of a prompt run through it as one sequence: each patch is compared with all
            patches, those of other images under a mask.
        other_patches: of those other images.
        padding_patches: that fill an image up to the largest of its prompt: made tokens, and then left out.
        window: side, in tokens, of the windows that some layers look within; None without any.
        per_window_pair: FLOPs of one pair within a window, in those layers; `per_pair` is then of the others alone.
        window_pairs: pairs within windows.
    """

    num_vision_tokens: int
    extra_tokens: int
    width: int
    per_patch: int
    per_token: int
    per_pair: int
    fixed: int = 0
    patches_per_token: int | None = None
    one_sequence: bool = False
    other_patches: int = 0
    padding_patches: int = 0
    window: int | None = None
    per_window_pair: int = 0
    window_pairs: int = 0

    @property
    def sequence_length(self) -> int:
        """S, tokens that pass through the layers: N plus `extra_tokens`."""
        return self.num_vision_tokens + self.extra_tokens

    def with_patch_side(self, side: int) -> "TowerCosts":
        """Return the costs of the same tower on a square image of `side` x `side` patches."""
        return replace(self, num_vision_tokens=side * side)

    def of_grid(self, grid: tuple[int, int]) -> "TowerCosts":
        """Return the costs of the same tower on an image of (rows, columns) tokens, where it has its own size."""
        if self.patches_per_token is None:
            return self
        rows, columns = grid
        pairs = 0
        if self.window is not None:
            down, across = (_squares(side, self.window) for side in grid)
            pairs = self.patches_per_token**2 * down * across
        return replace(self, num_vision_tokens=rows * columns * self.patches_per_token, window_pairs=pairs)


def _squares(side: int, window: int) -> int:
    """Return the sum of the squares of the parts that windows cut a side into."""
    whole, rest = divmod(side, window)
    return whole * window**2 + rest**2


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
        vision: of the tower, on an image as the model was trained.
        projector_per_token: FLOPs of one vision token in the projector.
        llm: of the LLM.
        added_per_token: FLOPs of one kept vision token in making what is added after layers of the LLM.
        added_layers: after how many.
    """

    vision: TowerCosts
    projector_per_token: int
    llm: LLMCosts
    added_per_token: int = 0
    added_layers: int = 0

    def with_budget_token(self) -> "ModelCosts":
        """Return the costs of the same model with one more token in the tower, for methods that need it."""
        return replace(self, vision=replace(self.vision, extra_tokens=self.vision.extra_tokens + 1))
