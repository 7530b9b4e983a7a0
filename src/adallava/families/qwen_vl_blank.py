"""An untrained Qwen2.5-VL and its processor, initialized so that a short training succeeds; see `llava_blank`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from adallava.errors import InputError
from adallava.families.capabilities.of_classes import BlankShape
from adallava.families.llava_blank import WORD_STRENGTH, cosine_filters, initialise_linear, initialise_llm
from adallava.families.transformers_internals import picture_processor, without_videos

_MERGE = 2
_WINDOW_TOKENS = 8
_QUERY_KEY_GAIN = 1.2
_ROPE_THETA = 200.0
"""Rows and columns are counted from 0 to 15: at the published million the slowest, the columns', would not move."""
_FRAME_SHARE = 8
"""One of so many pairs of a head counts frames; rows and columns share the rest."""
_MOST_SIDE = 2
"""Pictures are taken up to so many times as high and wide as those that it is made for."""


def blank_config(shape: BlankShape, vocab_size: int, token_ids: Mapping[str, int], ids: dict[str, int]) -> Any:
    """Translate shapes into a stock `Qwen2_5_VLConfig`: a token is 2 x 2 patches, the first layer looks in windows.

    Raises:
        InputError: for a tower or LLM of another type, a token of an odd number of pixels, or heads too narrow.
    """
    from transformers import Qwen2_5_VLConfig

    for part, name in (("tower", shape.tower), ("llm", shape.llm)):
        if name is not None:
            raise InputError(f"[blank] {part} = {name!r}: a Qwen2.5-VL has its own; leave it out")
    head_width = shape.llm_width // shape.llm_heads
    frames = head_width // (2 * _FRAME_SHARE)
    rows = (head_width // 2 - frames) // 2
    if shape.patch_px % _MERGE or rows < 1 or shape.vision_width // shape.vision_heads % 4:
        raise InputError(
            f"[blank] patch_px = {shape.patch_px} with heads of {head_width} and {shape.vision_width} / "
            f"{shape.vision_heads} values: a token is of 2 x 2 patches, and heads turn by rows and columns; give an "
            "even number of pixels, and widths that give each head a multiple of 4"
        )
    sections = [head_width // 2 - 2 * rows, rows, rows]
    return Qwen2_5_VLConfig(
        vision_config=_vision_config(shape),
        text_config={**_text_config(shape, vocab_size, sections), **ids},
        image_token_id=token_ids["image_token"],
        video_token_id=token_ids["video_token"],
        vision_start_token_id=token_ids["vision_bos_token"],
        vision_end_token_id=token_ids["vision_eos_token"],
        tie_word_embeddings=False,
        **ids,
    )


def _vision_config(shape: BlankShape) -> dict[str, Any]:
    return {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_width,
        "intermediate_size": shape.vision_mlp_width,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.llm_width,
        "in_channels": 3,
        "patch_size": shape.patch_px // _MERGE,
        "spatial_merge_size": _MERGE,
        "temporal_patch_size": 2,
        "window_size": _WINDOW_TOKENS * shape.patch_px,
        "fullatt_block_indexes": list(range(min(1, shape.vision_layers - 1), shape.vision_layers)),
    }


def _text_config(shape: BlankShape, vocab_size: int, sections: list[int]) -> dict[str, Any]:
    """Return the LLM's settings; `sections` are the pairs of a head that count frames, rows and columns."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": shape.llm_width,
        "intermediate_size": shape.llm_mlp_width,
        "num_hidden_layers": shape.llm_layers,
        "num_attention_heads": shape.llm_heads,
        "num_key_value_heads": shape.llm_kv_heads,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": _ROPE_THETA, "mrope_section": sections},
    }


def blank_model(shape: BlankShape, vocab_size: int, token_ids: Mapping[str, int], ids: dict[str, int]) -> Any:
    """Return the untrained model; see `MadeFromNothing`."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration(blank_config(shape, vocab_size, token_ids, ids))
    _initialise(model)
    model.generation_config.update(**ids, do_sample=False)
    return model


def blank_processor(tokenizer: Any, shape: BlankShape, chat_template: str) -> Any:
    """Return the stock processor for pictures at their own size; see `MadeFromNothing`."""
    pictures = picture_processor(
        patch_size=shape.patch_px // _MERGE,
        merge_size=_MERGE,
        size={"shortest_edge": (2 * shape.patch_px) ** 2, "longest_edge": (_MOST_SIDE * shape.image_px) ** 2},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return without_videos("Qwen2_5_VLProcessor")(
        image_processor=pictures, tokenizer=tokenizer, chat_template=chat_template
    )


@torch.no_grad()
def _initialise(model: Any) -> None:
    visual, llm = model.model.visual, model.model.language_model
    for part, layers in ((visual, len(visual.blocks)), (llm, len(llm.layers))):
        initialise_linear(part, layers)
    initialise_linear(model.lm_head, len(llm.layers))
    nn.init.normal_(model.get_input_embeddings().weight, std=WORD_STRENGTH)
    filters = cosine_filters(visual.patch_embed.embed_dim, visual.patch_embed.patch_size)
    # One frame is shown twice.
    visual.patch_embed.proj.weight.copy_(filters.unsqueeze(2).expand_as(visual.patch_embed.proj.weight) / 2)
    for block in visual.blocks:
        queries, keys, _ = block.attn.qkv.weight.chunk(3)
        queries.mul_(_QUERY_KEY_GAIN)
        keys.copy_(queries)
    initialise_llm(llm)
