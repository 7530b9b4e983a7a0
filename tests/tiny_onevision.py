"""A tiny random LLaVA-OneVision in stock format: tiles of 28 pixels, 4 x 4 patches, two wholes at most in tiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import save_tiny_adapter, tiny_base, tiny_image, tiny_tokenizer

from adallava.families.transformers_internals import without_videos
from adallava.selection.selector_contract import TowerShape

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]

PINPOINTS = [[28 * rows, 28 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]

SIZES = [(28, 28), (56, 28), (30, 80), (84, 84)]
"""(width, height) of pictures."""

GRIDS = [((4, 4), (4, 5)), ((4, 4), (4, 9)), ((4, 4), (9, 4)), ((4, 4), (5, 6))]
"""By hand, of each alone in its prompt: the whole; and the tiles, with a column for the ends of the rows.

28 x 28 fills 1 tile, 56 x 28 two. 30 x 80 fits 3 x 2 of them, since 3 x 1 would make it smaller: 12 rows, and 4 of 8
columns are there: 48 patches. Two wholes are 32, and sqrt(48 / 32) = 1.22 is more than 1.1: 12 // 1.22 = 9 rows, and
4 // 1.22 = 3 columns. 84 x 84 fills 3 x 3: 144 patches, sqrt(144 / 32) = 2.12, and 12 // 2.12 = 5.
"""

LACKS = (
    *("budget-token", "downsample", "cls-attention", "visionzip"),
    *("prumerge", "prumerge-k", "prumerge-plus", "prumerge-plus-k"),
)
"""By hand: methods that read a class token, which SigLIP has not, or send something else through the tower."""

ONEVISION_SHAPE = TowerShape(num_vision_tokens=16, vision_width=48, llm_width=48, grid=(4, 4))

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>' }}{% endfor %}"
    "{# Render all text next #}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + content['text'] }}{% endfor %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As the published ones word a prompt, without videos."""

_SPECIAL = {
    "image_token": "<image>",
    "video_token": "<video>",
    "turn_token": "<|im_start|>",
    "end_of_turn_token": "<|im_end|>",
}


def tiny_onevision_processor() -> Any:
    """Tiles of 28 x 28 pixels, N = 16 of a whole."""
    import transformers

    cls = getattr(transformers, "LlavaOnevisionImageProcessorPil", None) or transformers.LlavaOnevisionImageProcessor
    return without_videos("LlavaOnevisionProcessor")(
        image_processor=cls(size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS),
        tokenizer=tiny_tokenizer(**_SPECIAL),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        chat_template=CHAT_TEMPLATE,
    )


def tiny_onevision_base(*, llm: str = "qwen2", **options: Any) -> Any:
    """Return a random model, in eval mode; see `tiny_base`."""
    import transformers

    tokenizer = tiny_tokenizer(**_SPECIAL)
    vision = transformers.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        vision_use_head=False,
    )
    text = tiny_base(llm=llm, **options).config.text_config
    text.vocab_size = len(tokenizer)
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        image_grid_pinpoints=PINPOINTS,
    )
    config._attn_implementation = options.get("attn_implementation", "sdpa")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlavaOnevisionForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            else:
                parameter.data += 0.1 * torch.randn_like(parameter)
        torch.nn.init.normal_(model.model.image_newline)
    model.lm_head.weight.data[[config.image_token_id, config.video_token_id]] = (
        0  # Is never the likeliest: no answer holds a picture's token.
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(options.get("dtype", torch.float32)).eval()


def tiny_onevision(folder: Path) -> Path:
    """Save a random LLaVA-OneVision with its processor, and an adapter for `question`, to `folder`; return it."""
    tiny_onevision_base().save_pretrained(folder)
    tiny_onevision_processor().save_pretrained(folder)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", ONEVISION_SHAPE)
    return folder


def prompts_with_pictures(
    processor: Any, sizes_each: Sequence[Sequence[tuple[int, int]]] = ((SIZES[2],), (SIZES[0], SIZES[1]), (SIZES[3],))
) -> dict[str, Any]:
    """Return a batch of prompts with pictures of such sizes each, between text, padded on the left."""
    images, texts, number = [], [], 0
    for question, sizes in zip(QUESTIONS, sizes_each, strict=False):
        images.append([tiny_image(number + i, size) for i, size in enumerate(sizes)])
        number += len(sizes)
        texts.append("a " + f"{processor.image_token} b " * len(sizes) + question)
    return dict(processor(images=images, text=texts, return_tensors="pt", padding=True))
