"""What a LLaVA's parts cost, by the formulas of docs/concepts/costs.md: what counting must come to, without torch."""

from adallava.costs.parts import LayerCosts, LLMCosts, ModelCosts, TowerCosts


def tower_by_hand(num_patches: int, patch_size: int, width: int, layers: int, mlp_width: int) -> TowerCosts:
    """A CLIP tower: a convolution; in each layer four products of C x C, two of C x M, and attention's two."""
    return TowerCosts(
        num_vision_tokens=num_patches,
        extra_tokens=1,
        width=width,
        per_patch=2 * 3 * patch_size**2 * width,
        per_token=layers * (4 * 2 * width**2 + 2 * 2 * width * mlp_width),
        per_pair=layers * 4 * width,
    )


def llm_by_hand(
    width: int, layers: int, query_width: int, kv_width: int, mlp_width: int, vocab_size: int, window: int | None = None
) -> LLMCosts:
    """Queries and outputs of q, keys and values of k; gate, up and down; two products of attention over all heads."""
    layer = LayerCosts(
        per_token=2 * 2 * width * (query_width + kv_width) + 3 * 2 * width * mlp_width,
        per_pair=4 * query_width,
        cache_values=2 * kv_width,
        window=window,
    )
    return LLMCosts(width, (layer,) * layers, 2 * width * vocab_size)


def llava_by_hand(tower: TowerCosts, llm: LLMCosts, feature_layers: int = 1) -> ModelCosts:
    """Two linear layers between them."""
    in_width = feature_layers * tower.width
    return ModelCosts(tower, 2 * in_width * llm.width + 2 * llm.width**2, llm)


CLIP_L_336 = tower_by_hand(num_patches=24 * 24, patch_size=14, width=1024, layers=24, mlp_width=4096)

LLAVA_1_5_7B = llava_by_hand(CLIP_L_336, llm_by_hand(4096, 32, 4096, 4096, 11008, 32064))
"""`llava-hf/llava-1.5-7b-hf`: CLIP ViT-L/14 at 336 px and Vicuna-7B, whose vocabulary is padded to 32064."""

LLAVA_1_5_13B = llava_by_hand(CLIP_L_336, llm_by_hand(5120, 40, 5120, 5120, 13824, 32064))
