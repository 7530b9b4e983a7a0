"""What a model's parts cost, counted from its config: as the formulas say, as a whole model computes, or not at all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from costs_by_hand import CLIP_L_336, LLAVA_1_5_7B, LLAVA_1_5_13B, llava_by_hand, llm_by_hand, tower_by_hand
from models import tiny_base
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    MistralConfig,
    OPTConfig,
    SiglipVisionConfig,
    VipLlavaConfig,
)

from adallava.costs.counted import count_costs
from adallava.costs.flops import decode_flops, kv_bytes, prefill_flops, projector_flops, vision_flops
from adallava.errors import InputError, UnknownNameError

CLIP = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
)
SMALL_CLIP = CLIPVisionConfig(
    hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4, image_size=30, patch_size=7
)
SMALL_TOWER = tower_by_hand(num_patches=16, patch_size=7, width=32, layers=3, mlp_width=56)
"""A border narrower than a patch is no patch: 4 x 4 of 7 pixels in 30."""

VICUNA_13B = LlamaConfig(
    hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40, vocab_size=32064
)


def llava(text: Any, tower: Any = SMALL_CLIP, **options: Any) -> LlavaConfig:
    return LlavaConfig(vision_config=tower, text_config=text, **options)


def small(model_type: str, **options: Any) -> Any:
    """Return the config of an LLM of two layers or as many as asked."""
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 6}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 64, "pad_token_id": 0, "max_position_embeddings": 64}
    return AutoConfig.for_model(model_type, **(sizes | options))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (llava(LlamaConfig(vocab_size=32064), CLIP), LLAVA_1_5_7B),
        pytest.param(llava(VICUNA_13B, CLIP), LLAVA_1_5_13B, marks=pytest.mark.long),
        pytest.param(
            LlavaNextConfig(vision_config=CLIP, text_config=MistralConfig(sliding_window=None)),
            llava_by_hand(CLIP_L_336, llm_by_hand(4096, 32, 4096, 1024, 14336, 32000)),
            marks=pytest.mark.long,
        ),
    ],
    ids=["1.5-7b", "1.5-13b", "next-mistral-7b"],
)
def test_published_shapes_cost_what_the_formulas_say(config: Any, expected: Any) -> None:
    assert count_costs(config) == expected


@pytest.mark.parametrize(
    ("text", "feature_layer", "expected"),
    [
        # Heads of 10 where 48 / 6 would be 8: queries are wider than the model, and two of six share keys.
        (small("llama", head_dim=10), -2, llm_by_hand(48, 2, 60, 20, 80, 64)),
        (small("mistral", sliding_window=9), [-2, -3], llm_by_hand(48, 2, 48, 16, 80, 64, window=9)),
    ],
    ids=["llama", "mistral"],
)
def test_small_models_cost_what_the_formulas_say(text: Any, feature_layer: Any, expected: Any) -> None:
    config = llava(text, vision_feature_layer=feature_layer)
    before = config.to_dict()
    layers = len(feature_layer) if isinstance(feature_layer, list) else 1
    assert count_costs(config) == llava_by_hand(SMALL_TOWER, expected, layers)
    assert config.to_dict() == before


def test_a_mixture_costs_the_experts_that_a_token_takes() -> None:
    costs = count_costs(llava(small("mixtral", num_local_experts=5, num_experts_per_tok=2)))
    dense = llm_by_hand(48, 2, 48, 16, 80, 64).layers[0]
    # Two experts in place of one MLP, and a router of five.
    assert costs.llm.layers == (replace(dense, per_token=dense.per_token + 3 * 2 * 48 * 80 + 2 * 48 * 5),) * 2


def test_layers_of_several_kinds_are_counted_each() -> None:
    config = small("qwen2_moe", mlp_only_layers=[1], moe_intermediate_size=30, num_experts=4, num_experts_per_tok=3,
                   shared_expert_intermediate_size=20)  # fmt: skip
    mixture, dense = count_costs(llava(config)).llm.layers
    plain = llm_by_hand(48, 2, 48, 16, 80, 64).layers[0]
    assert dense == plain
    experts = 3 * 3 * 2 * 48 * 30 + 3 * 2 * 48 * 20 + 2 * 48 * 4 + 2 * 48
    assert mixture.per_token == plain.per_token - 3 * 2 * 48 * 80 + experts


def test_windows_differ_by_layer_and_cut_what_is_decoded_and_kept() -> None:
    text = small("gemma2", head_dim=8, sliding_window=9, layer_types=["sliding_attention", "full_attention"])
    llm = count_costs(llava(text)).llm
    assert [layer.window for layer in llm.layers] == [9, None]
    narrow, wide = (decode_flops(llm, [7, 7], 5), decode_flops(replace(llm, layers=llm.layers[1:] * 2), [7, 7], 5))
    # Four steps see 8, 9, 10 and 11 keys; through the window 8, 9, 9 and 9.
    assert wide - narrow == 3 * llm.layers[0].per_pair
    # A cache of 9 keeps 8 of the 11 tokens.
    assert kv_bytes(llm, [7, 7], 5, bytes_per_value=4) == 4 * llm.layers[0].cache_values * (8 + 11)


def _flops(run: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    rotary = sum(sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name.endswith("rotary_emb"))
    return int(counter.get_total_flops() - rotary)


@torch.no_grad()
@pytest.mark.parametrize(
    ("llm", "options"),
    [
        *[("qwen2", {}), ("phi3", {}), ("gemma", {"head_dim": 12}), ("mistral", {"sliding_window": 6})],
        ("qwen3", {"head_dim": 16}),
        ("qwen3_moe", {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 30}),
        ("gemma3_text", {"head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
    ids=["qwen2", "phi3", "gemma", "mistral-window", "qwen3", "qwen3-moe", "gemma3-windows"],
)
def test_a_model_with_weights_computes_that(llm: str, options: dict[str, Any]) -> None:
    base = tiny_base(llm=llm, attn_implementation="eager", num_hidden_layers=2, **options)
    if "num_experts" in options:
        base.set_experts_implementation("eager")  # The counter knows no grouped product.
    costs = count_costs(base.config)
    pixels, embeds = torch.randn(1, 3, 28, 28), torch.randn(1, 9, 48)
    images = _flops(lambda: base.get_image_features(pixel_values=pixels))
    assert images == vision_flops(costs.vision) + projector_flops(costs, 16)
    mask = torch.ones(1, 9, dtype=torch.int64)
    made: dict[str, Any] = {"min_new_tokens": 4, "max_new_tokens": 4, "do_sample": False}
    answer = _flops(lambda: base.generate(inputs_embeds=embeds, attention_mask=mask, **made))
    assert answer == prefill_flops(costs.llm, 9) + decode_flops(costs.llm, 9, 4)


def test_towers_of_other_kinds_are_counted() -> None:
    tower = SiglipVisionConfig(
        hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4, image_size=28, patch_size=7
    )
    vision = count_costs(llava(small("llama"), tower, vision_feature_select_strategy="full")).vision
    # SigLIP has no class token, and a head with one query that attends to all: keys and values, and its own products.
    head = 2 * 2 * 32**2 + 4 * 32
    expected = replace(SMALL_TOWER, extra_tokens=0, per_token=SMALL_TOWER.per_token + head)
    assert vision == replace(expected, fixed=2 * 2 * 32**2 + 2 * 2 * 32 * 56)


def test_a_longer_tower_or_another_picture_is_counted_from_the_same_numbers() -> None:
    longer = LLAVA_1_5_7B.with_budget_token().vision
    assert (longer.sequence_length, longer.num_vision_tokens) == (578, 576)
    smaller = CLIPVisionConfig(**{**SMALL_CLIP.to_dict(), "image_size": 14})
    fewer = count_costs(llava(small("llama"), smaller))
    assert SMALL_TOWER.with_patch_side(2) == fewer.vision


def test_a_config_is_counted_once_wherever_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    first = count_costs(llava(small("llama")))
    monkeypatch.setattr("adallava.costs.counted.costed_parts", None)
    elsewhere = llava(small("llama"))
    elsewhere.name_or_path = "elsewhere"
    assert count_costs(elsewhere) is first
    with pytest.raises(InputError, match="cannot count"):
        count_costs(llava(small("llama", vocab_size=65)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            LlavaConfig(
                vision_config=SMALL_CLIP,
                text_config=OPTConfig(num_hidden_layers=1, hidden_size=32, ffn_dim=32, num_attention_heads=4),
            ),
            r"a model of type 'llava' with 'clip_vision_model' with 'opt': AttributeError: .*embed_tokens",
        ),
        (
            LlavaConfig(
                vision_config=SMALL_CLIP,
                text_config=small("deepseek_v3", num_key_value_heads=6, first_k_dense_replace=2),
            ),
            r"with 'deepseek_v3': layer 0 of the LLM decodes a token by other products than it reads a prompt by",
        ),
    ],
    ids=["opt", "deepseek"],
)
def test_what_cannot_be_counted_is_refused_by_name(config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        count_costs(config)


def test_a_model_without_a_family_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="vipllava"):
        count_costs(VipLlavaConfig())
