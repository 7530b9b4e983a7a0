"""A tiny random Gemma 3 in stock format: 8 x 8 patches of 7 pixels a picture, averaged to 4 x 4 = 16 tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import save_tiny_adapter, tiny_image, tiny_tokenizer

from adallava.selection.selector_contract import TowerShape

SIZES = [(40, 30), (28, 90), (56, 56)]
GRIDS = [((4, 4),)] * 3
LACKS = (
    *("budget-token", "downsample", "cls-attention", "visionzip"),
    *("prumerge", "prumerge-k", "prumerge-plus", "prumerge-plus-k"),
    *("dart", "fastv", "pyramiddrop", "sparsevlm"),
)
"""Methods that read a class token, which SigLIP has not, send something else through the tower, or drop tokens inside
an LLM whose masks depend on their types."""

SHAPE = TowerShape(num_vision_tokens=16, vision_width=32, llm_width=48, grid=(4, 4))

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]


def tiny_gemma3_processor() -> Any:
    """56 x 56 pixels, 16 places between two tokens of text for each picture."""
    import transformers

    tokenizer = tiny_tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    cls = getattr(transformers, "Gemma3ImageProcessorPil", None) or transformers.Gemma3ImageProcessor
    return transformers.Gemma3Processor(
        image_processor=cls(size={"height": 56, "width": 56}), tokenizer=tokenizer, image_seq_length=16
    )


def tiny_gemma3_base(
    *,
    window: int = 512,
    attn_implementation: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    num_hidden_layers: int = 4,
    num_key_value_heads: int = 2,
) -> Any:
    """Return a random model, every other layer of its LLM with a window, in eval mode; weights as in `tiny_base`."""
    import transformers

    tokenizer = tiny_gemma3_processor().tokenizer
    vision = transformers.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=7,
        vision_use_head=False,
    )
    text = transformers.Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=4,
        num_key_value_heads=num_key_value_heads,
        head_dim=12,
        query_pre_attn_scalar=12,
        max_position_embeddings=512,
        sliding_window=window,
        layer_types=[("sliding_attention", "full_attention")[layer % 2] for layer in range(num_hidden_layers)],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=16,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_id=tokenizer.image_token_id,
    )
    config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.Gemma3ForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            else:  # Norms are 1 + weight.
                torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(dtype).eval()


def tiny_gemma3(folder: Path, **options: Any) -> Path:
    """Save a random Gemma 3 with its processor, and a random adapter for `question`, to `folder`; return it."""
    tiny_gemma3_base(**options).save_pretrained(folder)
    tiny_gemma3_processor().save_pretrained(folder)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", SHAPE)
    return folder


def prompts_with_pictures(
    processor: Any, pictures_each: Sequence[int] = (1, 2, 1), sizes: Sequence[tuple[int, int]] = ((40, 30), (28, 90))
) -> dict[str, Any]:
    """Return a batch of prompts with so many pictures each, between text, padded on the left."""
    images, texts, number = [], [], 0
    for question, count in zip(QUESTIONS, pictures_each, strict=False):
        images.append([tiny_image(number + i, sizes[(number + i) % len(sizes)]) for i in range(count)])
        number += count
        texts.append("a " + f"{processor.image_token} b " * count + question)
    return dict(processor(images=images, text=texts, return_tensors="pt", padding=True))
