"""What a model lacks is told before anything runs; what a method reads of the tower is the stock tower's own."""

from typing import Any

import pytest
import torch
from models import tiny_base, tiny_processor, tiny_tokenizer

from adallava import AdaLlava
from adallava.errors import InputError, UnsupportedModeError
from adallava.families import wrap_model
from adallava.families.picture_inputs import PictureInputs
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need


def siglip_base() -> Any:
    """A Llava with a SigLIP tower, which has no class token."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    tokenizer = tiny_tokenizer()
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def siglip() -> Any:
    return siglip_base()


@pytest.mark.parametrize(
    ("method", "lacks"),
    [
        ("cls-attention", "a class token"),
        ("visionzip", "a class token"),
        ("prumerge", "a class token"),
        ("downsample", "a vision tower that takes smaller images"),
    ],
)
def test_a_tower_without_a_class_token_refuses_methods_that_need_one(siglip: Any, method: str, lacks: str) -> None:
    with pytest.raises(UnsupportedModeError, match=f"method '{method}' needs {lacks}.*siglip_vision_model"):
        AdaLlava(siglip, None, build_selector(method, wrap_model(siglip).shape))


@torch.no_grad()
def test_a_tower_without_a_class_token_gives_the_keys_of_every_patch(siglip: Any) -> None:
    family = wrap_model(siglip)
    pixels = torch.randn(2, 3, 28, 28)
    layer = family.encode(PictureInputs(pixels), needs={Need.FEATURE_LAYER}).feature_layer
    assert layer is not None
    assert layer.cls_query is None
    assert layer.patch_keys.shape == (2, 16, 32)
    AdaLlava(siglip, None, build_selector("tome", family.shape))


@pytest.mark.parametrize(("feature_layer", "produces"), [(-2, 0), (-1, 1), ([-1, -2], 0), (0, 0)])
@torch.no_grad()
def test_attention_of_cls_is_what_eager_attention_returns(feature_layer: Any, produces: int) -> None:
    base = tiny_base(vision_feature_layer=feature_layer)
    pixels = torch.randn(3, 3, 28, 28)
    vision = wrap_model(base).encode(PictureInputs(pixels), needs={Need.FEATURE_LAYER, Need.LAST_LAYER, Need.CLS_TOKEN})
    eager = tiny_base(vision_feature_layer=feature_layer, attn_implementation="eager")
    attentions = eager.model.vision_tower(pixels, output_attentions=True).attentions
    assert vision.feature_layer is not None
    assert vision.last_layer is not None
    for layer, index in ((vision.feature_layer, produces), (vision.last_layer, 1)):
        torch.testing.assert_close(layer.cls_attention(), attentions[index][:, :, 0, 1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_only_what_is_asked_for_is_made() -> None:
    vision = wrap_model(tiny_base()).encode(PictureInputs(torch.randn(1, 3, 28, 28)), needs={Need.LAST_LAYER})
    assert vision.feature_layer is None
    assert vision.last_layer is not None


def test_a_method_that_reads_words_needs_a_processor() -> None:
    base = tiny_base()
    model = AdaLlava(base, None, build_selector("mmtok", wrap_model(base).shape))
    processor = tiny_processor()
    from models import tiny_inputs

    with pytest.raises(InputError, match="tokenizer"):
        model.generate(**tiny_inputs(processor, ["why?"]), token_budget=3)
