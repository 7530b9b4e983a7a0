"""A tiny random InternVL in stock format: tiles of 56 pixels, 8 x 8 patches, 4 x 4 tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import save_tiny_adapter, tiny_base, tiny_image, tiny_tokenizer

from adallava.families.transformers_internals import without_videos
from adallava.selection.selector_contract import TowerShape

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]

SIZES = [(56, 56), (112, 50), (60, 170)]
"""(width, height) of pictures. By hand, at 4 tiles at most: 1; 2 side by side and the whole; 3 on top of each other
and the whole."""

TILES = [1, 3, 4]

INTERNVL_SHAPE = TowerShape(num_vision_tokens=16, vision_width=4 * 32, llm_width=48, grid=(4, 4))

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<IMG_CONTEXT>\n{% elif content['type'] == 'text' %}{{ content['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As the published ones word a prompt, without videos."""

_SPECIAL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
    "turn_token": "<|im_start|>",
    "end_of_turn_token": "<|im_end|>",
}


def tiny_internvl_processor() -> Any:
    """Up to 4 tiles of 56 x 56 pixels."""
    import transformers

    cls = getattr(transformers, "GotOcr2ImageProcessorPil", None) or transformers.GotOcr2ImageProcessor
    return without_videos("InternVLProcessor")(
        image_processor=cls(size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=tiny_tokenizer(**_SPECIAL),
        image_seq_length=16,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_internvl_base(*, llm: str = "qwen2", qk_norm: bool = False, **options: Any) -> Any:
    """Return a random model, in eval mode; see `tiny_base`."""
    import transformers

    tokenizer = tiny_tokenizer(**_SPECIAL)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [56, 56],
        "patch_size": [7, 7],
        "attention_bias": True,
        "use_qk_norm": qk_norm,
        "use_absolute_position_embeddings": True,
    }
    text = tiny_base(llm=llm, **options).config.text_config
    text.vocab_size = len(tokenizer)
    config = transformers.InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
    )
    config._attn_implementation = options.get("attn_implementation", "sdpa")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.InternVLForConditionalGeneration(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            elif "lambda" not in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.lm_head.weight.data[config.image_token_id] = 0  # Is never the likeliest: no answer holds a picture's token.
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(options.get("dtype", torch.float32)).eval()


def tiny_internvl(folder: Path, **options: Any) -> Path:
    """Save a random InternVL with its processor, and an adapter for `question`, to `folder`; return it."""
    tiny_internvl_base(**options).save_pretrained(folder)
    tiny_internvl_processor().save_pretrained(folder)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", INTERNVL_SHAPE)
    return folder


def prompts_with_pictures(processor: Any, pictures_each: Sequence[int] = (1, 2, 1)) -> dict[str, Any]:
    """Return a batch of prompts with so many pictures each, of `SIZES` in turn, between text, padded on the left."""
    images, texts, number = [], [], 0
    for question, count in zip(QUESTIONS, pictures_each, strict=False):
        images += [tiny_image(number + i, SIZES[(number + i) % len(SIZES)]) for i in range(count)]
        number += count
        texts.append("a " + f"{processor.image_token} b " * count + question)
    return dict(processor(images=images, text=texts, return_tensors="pt", padding=True))
