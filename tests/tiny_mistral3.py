"""A tiny random Mistral 3 in stock format: patches of 4 pixels, tokens of 2 x 2, pictures at their own size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import save_tiny_adapter, tiny_base, tiny_image, tiny_tokenizer

from adallava.families.transformers_internals import pixtral_processor_class
from adallava.selection.selector_contract import TowerShape

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]

SIZES = [(32, 30), (13, 64), (40, 16)]
"""(width, height) of pictures: sides are scaled up to whole tokens of 8 x 8 pixels."""

GRIDS = [((4, 4),), ((8, 2),), ((2, 5),)]
"""By hand, (rows, columns) of the tokens of each."""

LACKS = (
    *("budget-token", "cls-attention", "visionzip", "tome"),
    *("prumerge", "prumerge-k", "prumerge-plus", "prumerge-plus-k"),
)
"""Methods that it refuses: it has no class token, and keys that are turned by their places."""

SHAPE = TowerShape(num_vision_tokens=56 * 56, vision_width=4 * 32, llm_width=48, grid=(56, 56))
"""Of a picture of 448 x 448 pixels."""

CHAT_TEMPLATE = (
    "<s>{% for message in messages %}{% if message['role'] == 'system' %}[SYSTEM_PROMPT]"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}"
    "{% endif %}[/SYSTEM_PROMPT]{% elif message['role'] == 'user' %}[INST]"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for block in message['content'] %}"
    "{% if block['type'] == 'text' %}{{ block['text'] }}{% elif block['type'] in ['image', 'image_url'] %}[IMG]"
    "{% endif %}{% endfor %}{% endif %}[/INST]{% else %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}"
    "{% endif %}</s>{% endif %}{% endfor %}"
)
"""As the published one words a prompt, without its default system prompt and its checks."""

_SPECIAL = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}


def tiny_mistral3_processor(**options: Any) -> Any:
    """Pictures at their own size, of whole tokens of 8 x 8 pixels; sides of 64 pixels at most."""
    import transformers

    cls = getattr(transformers, "PixtralImageProcessorPil", None) or transformers.PixtralImageProcessor
    return pixtral_processor_class()(
        image_processor=cls(size={"longest_edge": 64}, patch_size={"height": 4, "width": 4}, **options),
        tokenizer=tiny_tokenizer(**_SPECIAL),
        patch_size=4,
        spatial_merge_size=2,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_mistral3_base(**options: Any) -> Any:
    """Return a random model, in eval mode; its LLM and options as of `tiny_base`."""
    import transformers

    tokenizer = tiny_tokenizer(**_SPECIAL)
    text = tiny_base(**{"llm": "mistral", "sliding_window": None} | options).config.text_config
    text.vocab_size = len(tokenizer)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 4,
    }
    config = transformers.Mistral3Config(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        tie_word_embeddings=False,
    )
    config._attn_implementation = options.get("attn_implementation", "sdpa")
    with torch.random.fork_rng():
        torch.manual_seed(options.get("seed", 0))
        model = transformers.Mistral3ForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            else:
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(options.get("dtype", torch.float32)).eval()


def tiny_mistral3(folder: Path, **options: Any) -> Path:
    """Save a random model with its processor, and a random adapter for `question`, to `folder`; return it."""
    tiny_mistral3_base(**options).save_pretrained(folder)
    tiny_mistral3_processor().save_pretrained(folder)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", SHAPE)
    return folder


def prompts_with_pictures(processor: Any, pictures_each: Sequence[int] = (1, 2, 1)) -> dict[str, Any]:
    """Return a batch of prompts with so many pictures each, of `SIZES` in turn, between text, padded on the left."""
    images, texts, number = [], [], 0
    for question, count in zip(QUESTIONS, pictures_each, strict=False):
        images.append([tiny_image(number + i, SIZES[(number + i) % len(SIZES)]) for i in range(count)])
        number += count
        texts.append("a " + "[IMG] b " * count + question)
    return dict(processor(images=images, text=texts, return_tensors="pt", padding=True))
