"""K = N is the stock model to the bit, and a choice never depends on its batch: in every type, at published widths.

CLIP-L/336's tower (C = 1024) with one layer, LLaVA-1.5's projector (D = 4096; 256 in half precision, which a CPU is
slow in), and random weights. How a product is rounded depends on its shape and on how what it reads lies in memory,
which tiny widths may hide. Pictures have 65 tokens; at their full 577 in `make test-long`.
"""

from typing import Any

import pytest
import torch
from models import sample_of, tiny_image, tiny_tokenizer
from stock_reference import projector_of

from adallava import AdaLlava
from adallava.model import build_prompt

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FEW, ALL = 112, 336
"""Pixels of a side."""


def _wide(kind: str, dtype: torch.dtype, side: int) -> AdaLlava:
    """Return a model of random weights with the widths of LLaVA-1.5-7B, or of LLaVA-NeXT on the same tower."""
    import transformers

    tokenizer, tiles = tiny_tokenizer(), {}
    if kind == "LlavaNext":
        tiles = {"image_grid_pinpoints": [[side, 2 * side], [2 * side, side]]}
    config = getattr(transformers, f"{kind}Config")(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=256,
            num_hidden_layers=1,
            num_attention_heads=16,
            image_size=side,
            patch_size=14,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=4096 if dtype == torch.float32 else 256,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=64,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        **tiles,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = getattr(transformers, f"{kind}ForConditionalGeneration")(config).to(dtype).eval()
    pictures = "LlavaNext" if kind == "LlavaNext" else "CLIP"
    cls = getattr(transformers, f"{pictures}ImageProcessorPil", None) or getattr(
        transformers, f"{pictures}ImageProcessor"
    )
    processor = getattr(transformers, f"{kind}Processor")(
        image_processor=cls(size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **tiles),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return AdaLlava(base, processor)


QUICK = [("Llava", torch.float32, FEW), ("Llava", torch.bfloat16, FEW)]
"""Tiles are many pictures, and a CPU is slow: at tiny widths they have their bits in test_generation_contract.py."""

CASES = [
    pytest.param(case, marks=[] if case in QUICK else [pytest.mark.long])
    for side in (FEW, ALL)
    for dtype in DTYPES
    for kind in ("Llava", "LlavaNext")
    for case in [(kind, dtype, side)]
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def wide(request: pytest.FixtureRequest) -> AdaLlava:
    return _wide(*request.param)


def _inputs(model: AdaLlava, num_pictures: int) -> dict[str, Any]:
    """Return a batch with one picture a prompt, two alike in size and one wider where that makes a difference."""
    sizes = [(336, 336), (600, 300), (336, 336)][:num_pictures]
    made = model.processor(
        images=[tiny_image(index, size) for index, size in enumerate(sizes)],
        text=[build_prompt(model.processor, "what?") for _ in sizes],
        return_tensors="pt",
        padding=True,
        padding_side="right",
    )
    return dict(made) | {"pixel_values": made["pixel_values"].to(model.dtype)}


@torch.no_grad()
def test_at_the_full_budget_the_logits_have_the_stock_models_bits(wide: AdaLlava) -> None:
    for num_pictures in (1, 2):
        inputs = _inputs(wide, num_pictures)
        stock = wide.base(**inputs, use_cache=False).logits
        real = inputs["attention_mask"].bool()
        assert torch.equal(wide.forward(**inputs, token_budget=1.0).logits[real], stock[real])


@torch.no_grad()
def test_a_picture_keeps_the_same_tokens_alone_and_in_a_batch(wide: AdaLlava) -> None:
    together = _inputs(wide, 2)
    for method in ("divprune", "visionzip"):
        model = wide.with_method(method)
        kept = [selection.kept_indices for selection in model.select(**together, token_budget=24)]
        for row, expected in enumerate(kept):
            (alone,) = model.select(**sample_of(together, row), token_budget=24)
            assert alone.kept_indices == expected, method


@torch.no_grad()
def test_at_the_full_budget_the_projector_reads_what_stock_reads_as_it_lies_in_memory(
    full: AdaLlava, inputs: dict[str, Any]
) -> None:
    """On a GPU bits depend on that; on many a CPU they do not, and the tests above would see nothing."""
    read: list[tuple[torch.Size, tuple[int, ...], torch.Tensor]] = []
    hook = projector_of(full.base).register_forward_pre_hook(
        lambda _, args: read.append((args[0].shape, args[0].stride(), args[0].clone()))
    )
    full.base(**inputs, use_cache=False)
    full.forward(**inputs, token_budget=1.0)
    full.with_method("divprune").forward(**inputs, token_budget=1.0)
    hook.remove()
    stock, *ours = read
    # Once for the model, and twice where the method reads projected tokens; or once, where all are chosen behind it.
    assert len(ours) == (2 if full.family.name == "llava_onevision" else 3)
    for shape, stride, values in ours:
        assert (shape, stride) == stock[:2]
        assert torch.equal(values, stock[2])
