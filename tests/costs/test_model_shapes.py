"""Shapes read from a config: equal to what transformers builds from it, and refused where unknown."""

import dataclasses
from typing import Any

import pytest
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from adallava.costs.shapes import (
    LLAVA_1_5_7B,
    LLMShape,
    ModelShape,
    ProjectorShape,
    VisionTowerShape,
    model_shape_from_config,
)
from adallava.errors import InputError


def test_a_full_config_gives_every_field() -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=28,
            patch_size=7,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
            num_channels=1,
        ),
        text_config=LlamaConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=10,
            intermediate_size=80,
            vocab_size=64,
        ),
    )
    assert model_shape_from_config(config.to_dict()) == ModelShape(
        vision=VisionTowerShape(
            image_size=28, patch_size=7, width=32, layers=3, heads=4, mlp_width=48, channels=1, extra_tokens=1
        ),
        projector=ProjectorShape(in_width=32, width=48),
        llm=LLMShape(
            width=48,
            layers=2,
            query_heads=6,
            kv_heads=2,
            head_dim=10,
            mlp_width=80,
            vocab_size=64,
            gated_mlp=True,
        ),
    )


def test_the_hub_config_of_llava_1_5_7b_gives_the_constant() -> None:
    hub = {
        "model_type": "llava",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {"model_type": "llama", "vocab_size": 32064},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    }
    assert model_shape_from_config(hub) == LLAVA_1_5_7B
    assert LLAVA_1_5_7B.vision.num_vision_tokens == 576
    assert LLAVA_1_5_7B.vision.sequence_length == 577


@pytest.mark.parametrize(
    ("partial", "complete"),
    [
        ({}, LlavaConfig()),
        ({"vision_config": {}}, LlavaConfig(vision_config=CLIPVisionConfig())),
        (
            {"text_config": {"num_attention_heads": 16}},
            LlavaConfig(text_config=LlamaConfig(num_attention_heads=16)),
        ),
        ({"text_config": {"model_type": "mistral"}}, LlavaConfig(text_config=MistralConfig())),
    ],
    ids=["nothing", "empty tower", "llama heads", "mistral"],
)
def test_missing_values_default_as_in_transformers(partial: dict[str, Any], complete: LlavaConfig) -> None:
    assert model_shape_from_config({"model_type": "llava", **partial}) == model_shape_from_config(complete.to_dict())


def test_llava_next_has_the_parts_and_defaults_of_llava() -> None:
    assert model_shape_from_config(LlavaNextConfig().to_dict()) == model_shape_from_config(LlavaConfig().to_dict())
    assert model_shape_from_config({"model_type": "llava_next"}) == model_shape_from_config({"model_type": "llava"})


def test_several_feature_layers_widen_the_projector_alone() -> None:
    one = model_shape_from_config(LlavaConfig().to_dict())
    two = model_shape_from_config(LlavaConfig(vision_feature_layer=[-2, -5]).to_dict())
    assert two.projector.in_width == 2 * one.projector.in_width
    assert dataclasses.replace(two, projector=one.projector) == one


def test_a_budget_token_lengthens_the_tower_alone() -> None:
    shape = LLAVA_1_5_7B.with_budget_token()
    assert shape.vision.sequence_length == 578
    assert shape.vision.num_vision_tokens == 576
    assert (shape.projector, shape.llm) == (LLAVA_1_5_7B.projector, LLAVA_1_5_7B.llm)


def test_a_border_narrower_than_a_patch_is_no_patch() -> None:
    shape = VisionTowerShape(image_size=30, patch_size=7, width=8, layers=1, heads=2, mlp_width=8)
    assert shape.num_vision_tokens == 16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"model_type is None.*'llava'"),
        ({"model_type": "llava_onevision"}, r"model_type is 'llava_onevision'.*'llava' or 'llava_next'"),
        (
            LlavaConfig(vision_config=SiglipVisionConfig()).to_dict(),
            r"vision_config\.model_type is 'siglip_vision_model'",
        ),
        (
            LlavaConfig(text_config=Qwen2Config()).to_dict(),
            r"text_config\.model_type is 'qwen2'.*'llama' or 'mistral'",
        ),
        (LlavaConfig(vision_feature_select_strategy="full").to_dict(), r"select_strategy is 'full'"),
        ({"model_type": "llava", "vision_config": {"image_size": [336, 336]}}, r"image_size is \[336, 336\]"),
        ({"model_type": "llava", "text_config": {"num_attention_heads": 0}}, r"num_attention_heads is 0"),
        ({"model_type": "llava", "text_config": {"hidden_size": "4096"}}, r"hidden_size is '4096'"),
        (
            {"model_type": "llava", "text_config": {"num_key_value_heads": 5}},
            r"32 query heads cannot share 5",
        ),
        (
            {"model_type": "llava", "vision_config": {"patch_size": 500}},
            r"patch size 500 exceeds the image size 224",
        ),
        (
            {"model_type": "llava", "vision_config": {"num_attention_heads": 5}},
            r"width 768 cannot be split among 5",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model_shape_from_config(config)


@pytest.mark.parametrize("layers", [0, -1, 2.0, True, None])
def test_a_shape_built_by_hand_is_checked_too(layers: Any) -> None:
    with pytest.raises(InputError, match=r"LLMShape\.layers is"):
        dataclasses.replace(LLAVA_1_5_7B.llm, layers=layers)
