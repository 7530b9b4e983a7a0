"""A tiny random LLaVA-NeXT in stock format: the tower and the LLM of `tiny_base`, pictures in tiles."""

from pathlib import Path
from typing import Any

import torch
from models import save_tiny_adapter, tiny_base, tiny_tokenizer

from adallava.selection.selector_contract import TowerShape

NEXT_PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28]]
"""Sizes, (rows, columns) of pixels, that the tiny LLaVA-NeXT fits a picture into: tiles of 28 x 28."""


def tiny_next_base(**options: Any) -> Any:
    """Return a random LLaVA-NeXT with the tower and the LLM of `tiny_base`."""
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    base = tiny_base(**options)
    config = LlavaNextConfig(
        vision_config=base.config.vision_config,
        text_config=base.config.text_config,
        image_token_id=base.config.image_token_id,
        vision_feature_layer=base.config.vision_feature_layer,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=NEXT_PINPOINTS,
    )
    config._attn_implementation = options.get("attn_implementation", "sdpa")
    model = LlavaNextForConditionalGeneration(config)
    weights = base.state_dict()
    weights["model.image_newline"] = torch.randn(48, generator=torch.Generator().manual_seed(5))
    model.load_state_dict(weights)
    model.generation_config = base.generation_config
    return model.to(base.dtype).eval()


NEXT_SIZES = [(28, 28), (56, 28), (30, 90)]
"""(width, height) of the pictures that a LLaVA-NeXT is asked about, in turn: each whole, and in 2, 2 and 3 tiles."""

NEXT_GRIDS = [((4, 4), (4, 5)), ((4, 4), (4, 9)), ((4, 4), (12, 5))]
"""By hand, (rows, columns) of the tokens of each, its whole and its tiles, with a column for the ends of the rows.

28 x 28 fits 28 x 56 first, as high: 4 columns are left of 8. 56 x 28 fills 56 x 28. 30 x 90 fits 28 x 84.
"""

NEXT_SHAPE = TowerShape(num_vision_tokens=16, vision_width=33, llm_width=48, grid=(4, 4))
"""One channel more than `TINY_SHAPE`, which marks a row's end."""

NEXT_LACKS = ("budget-token", "downsample")
"""Methods that LLaVA-NeXT refuses; see `tests/families/test_llava_next.py`."""


def tiny_next_processor() -> Any:
    """Tiles of 28 x 28 pixels in patches of 7."""
    import transformers

    cls = getattr(transformers, "LlavaNextImageProcessorPil", None) or transformers.LlavaNextImageProcessor
    return transformers.LlavaNextProcessor(
        image_processor=cls(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=NEXT_PINPOINTS
        ),
        tokenizer=tiny_tokenizer(),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def tiny_next(folder: Path) -> Path:
    """Save a random LLaVA-NeXT with processor, and a random adapter for `question`, to `folder`; return it."""
    tiny_next_base().save_pretrained(folder)
    tiny_next_processor().save_pretrained(folder)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", NEXT_SHAPE)
    return folder
