"""Parts of an answer, as reckoned, against PyTorch's own counter on small random stock models: equal to the last FLOP.

On a CPU the counter does not see the fused kernel of scaled-dot-product attention (it counts 0 for it), so
the models run with PyTorch's math backend, which computes the same products one by one.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from product_counter import ProductCounter
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
)
from transformers.models.clip.modeling_clip import CLIPEncoder

from adallava.costs.counted import count_costs
from adallava.costs.flops import answer_flops, decode_flops, prefill_flops, projector_flops, vision_flops
from adallava.costs.parts import ModelCosts

NUM_VISION_TOKENS = 16
NUM_TEXT_TOKENS = 7
IMAGE_TOKEN = 5

CLIP = CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=30,
    patch_size=7,
)
LLMS = {
    "llama-grouped": LlamaConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        vocab_size=64,
        pad_token_id=0,
        eos_token_id=None,
    ),
    "mistral": MistralConfig(
        hidden_size=24,
        intermediate_size=36,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=96,
        pad_token_id=0,
        eos_token_id=None,
    ),
}


@pytest.fixture(scope="module", params=[("llama-grouped", "sdpa"), ("mistral", "eager")], ids="-".join)
def model(request: pytest.FixtureRequest) -> Iterator[LlavaForConditionalGeneration]:
    llm, attention = request.param
    config = LlavaConfig(vision_config=CLIP, text_config=LLMS[llm], image_token_index=IMAGE_TOKEN)
    torch.manual_seed(0)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        yield LlavaForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


@pytest.fixture(scope="module")
def shape(model: LlavaForConditionalGeneration) -> ModelCosts:
    return count_costs(model.config)


def counted_flops(run: Callable[[], object]) -> int:
    with ProductCounter() as counter:
        run()
    return counter.flops


def counted_answer_flops(model: LlavaForConditionalGeneration, batch: int, length: int, new_tokens: int) -> int:
    """Return what `generate` costs from merged embeddings of `length` positions."""
    embeds = torch.randn(batch, length, model.config.text_config.hidden_size)
    mask = torch.ones(batch, length, dtype=torch.int64)
    return counted_flops(
        lambda: model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_the_tower(model: LlavaForConditionalGeneration, shape: ModelCosts, batch: int) -> None:
    pixels = torch.randn(batch, 3, CLIP.image_size, CLIP.image_size)
    # Through the model's own path, which reads layer -2: all three layers are computed all the same.
    counted = counted_flops(lambda: model.get_image_features(pixel_values=pixels))
    projector = projector_flops(shape, batch * NUM_VISION_TOKENS)
    assert counted - projector == vision_flops(shape.vision, num_images=batch)


def test_a_budget_token_in_the_tower(model: LlavaForConditionalGeneration, shape: ModelCosts) -> None:
    encoder = CLIPEncoder(model.config.vision_config).eval()
    stock, longer = (
        counted_flops(lambda tokens=tokens: encoder(inputs_embeds=torch.randn(1, tokens, CLIP.hidden_size)))
        for tokens in (NUM_VISION_TOKENS + 1, NUM_VISION_TOKENS + 2)
    )
    assert vision_flops(shape.with_budget_token().vision) - vision_flops(shape.vision) == longer - stock > 0


@pytest.mark.parametrize(("batch", "tokens_kept"), [(1, 1), (3, 4), (1, 16)])
def test_the_projector(model: LlavaForConditionalGeneration, shape: ModelCosts, batch: int, tokens_kept: int) -> None:
    features = torch.randn(batch, tokens_kept, CLIP.hidden_size)
    counted = counted_flops(lambda: model.model.multi_modal_projector(features))
    assert batch * projector_flops(shape, tokens_kept) == counted


@pytest.mark.parametrize(("batch", "tokens_kept"), [(1, 0), (3, 1), (1, 16)])
def test_prefill_and_decode(
    model: LlavaForConditionalGeneration, shape: ModelCosts, batch: int, tokens_kept: int
) -> None:
    length = tokens_kept + NUM_TEXT_TOKENS
    prefill = counted_answer_flops(model, batch, length, new_tokens=1)
    assert batch * prefill_flops(shape.llm, length) == prefill
    decode = counted_answer_flops(model, batch, length, new_tokens=5) - prefill
    assert batch * decode_flops(shape.llm, length, 5) == decode


def test_prefill_with_all_logits(model: LlavaForConditionalGeneration, shape: ModelCosts) -> None:
    ids = torch.randint(6, 60, (1, NUM_TEXT_TOKENS))
    counted = counted_flops(lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)))
    assert prefill_flops(shape.llm, NUM_TEXT_TOKENS, logits_for=NUM_TEXT_TOKENS) == counted


@pytest.mark.parametrize(("batch", "num_images"), [(1, 1), (3, 2)])
def test_a_whole_answer_of_the_stock_model(
    model: LlavaForConditionalGeneration, shape: ModelCosts, batch: int, num_images: int
) -> None:
    num_vision_tokens = num_images * NUM_VISION_TOKENS
    text = torch.randint(6, 60, (batch, NUM_TEXT_TOKENS))
    ids = torch.cat([torch.full((batch, num_vision_tokens), IMAGE_TOKEN), text], dim=1)
    pixels = torch.randn(batch * num_images, 3, CLIP.image_size, CLIP.image_size)
    counted = counted_flops(
        lambda: model.generate(
            input_ids=ids,
            pixel_values=pixels,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=4,
            do_sample=False,
        )
    )
    expected = answer_flops(
        shape,
        num_images=num_images,
        num_vision_tokens=num_vision_tokens,
        tokens_kept_per_image=NUM_VISION_TOKENS,
        prompt_length=ids.shape[1],
        answer_length=4,
        selector_flops=0,
    )
    assert batch * sum(expected.values()) == counted
