"""What a vision tower provides besides its features, found from its modules when it is loaded, not from its name."""

from typing import Any

from adallava.families.transformers_internals import takes_rotary_tables
from adallava.selection.selector_contract import Need, TowerShape

_CLASS_TOKENS = ("class_embedding", "cls_token")
_MORE_TOKENS = ("register_tokens", "distillation_token")
_WITH_POSITIONS = ("clip_vision_model", "siglip_vision_model")
_KEYS = ("q_proj", "k_proj", "num_heads")


def square_shape(config: Any, side: int, patches_per_token: int, *, width: int, heads: int) -> TowerShape:
    """Return the shape of an image of `side` x `side` tokens, each the features of its patches side by side.

    Args:
        config: of the model.
        side: tokens in a row.
        patches_per_token: whose features a token has.
        width: of a tower layer.
        heads: of a tower layer.
    """
    return TowerShape(
        num_vision_tokens=side**2,
        vision_width=width * patches_per_token,
        llm_width=config.get_text_config().hidden_size,
        grid=(side, side),
        tower_width=width,
        tower_heads=heads,
    )


def has_class_token(tower: Any) -> bool:
    """Return whether the tower puts a class token before the patches."""
    embeddings = getattr(tower, "embeddings", None)
    return any(getattr(embeddings, name, None) is not None for name in _CLASS_TOKENS)


def num_leading_tokens(tower: Any) -> int:
    """Return how many tokens come before the patches: a class token, and others such as registers, [1, n, C] each."""
    embeddings = getattr(tower, "embeddings", None)
    others = (getattr(embeddings, name, None) for name in _MORE_TOKENS)
    return has_class_token(tower) + sum(int(token.shape[1]) for token in others if token is not None)


def num_position_values(config: Any) -> int:
    """Return the numbers of a tower's learned positions by its config, where its kind is known to have them."""
    if getattr(config, "model_type", None) not in _WITH_POSITIONS:
        return 0
    sizes: list[Any] = [getattr(config, name, None) for name in ("image_size", "patch_size", "hidden_size")]
    if not all(type(size) is int and size > 0 for size in sizes):
        return 0
    image_size, patch_size, width = sizes
    return int((image_size // patch_size) ** 2 * width)


def provided(tower: Any) -> frozenset[Need]:
    """Return what methods may read of this tower.

    Keys are recomputed from a layer's input, by its norm and projections as CLIP and SigLIP have them; a layer that
    turns its keys by their positions compares something else, and provides none. A budget token and a smaller picture
    go through the stages of CLIP's own forward.
    """
    needs: set[Need] = set()
    layers = getattr(getattr(tower, "encoder", None), "layers", ())
    plain = len(layers) > 0 and all(map(_has_plain_keys, layers))
    if plain:
        needs |= {Need.ATTENTION_RECEIVED, Need.FEATURE_LAYER, Need.LAST_LAYER}
    if has_class_token(tower):
        needs.add(Need.CLS_TOKEN)
        if plain and hasattr(tower, "pre_layrnorm"):
            needs |= {Need.TEXT_TOWER, Need.BUDGET_TOKEN, Need.RESIZED_PICTURE}
    return frozenset(needs)


def _has_plain_keys(layer: Any) -> bool:
    attention = getattr(layer, "self_attn", None)
    return (
        not takes_rotary_tables(layer)
        and hasattr(layer, "layer_norm1")
        and all(hasattr(attention, name) for name in _KEYS)
    )
