"""Tiny random Qwen-VL models that vLLM runs on a CPU, whose attention there wants heads of 32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_qwen
import torch
import transformers
from models import save_tiny_adapter

WIDTH = 64


def qwen_for_vllm(kind: str, folder: Path) -> Path:
    """Save a random model with its processor, videos and all, and an adapter for `question`; return the folder."""
    stock = tiny_qwen.tiny_qwen_base(kind)
    text, vision = stock.config.text_config.to_dict(), stock.config.vision_config.to_dict()
    text |= {"hidden_size": WIDTH, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": [4, 6, 6]}
    if kind == "qwen3_vl":
        # As published: transformers goes by the class, vLLM by this.
        text["rope_parameters"]["mrope_interleaved"] = True
    vision |= {"out_hidden_size": WIDTH}
    ids = {name: value for name, value in stock.config.to_dict().items() if name.endswith("_token_id")}
    config = type(stock.config)(text_config=text, vision_config=vision, **ids)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = type(stock)(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = stock.generation_config.eos_token_id
    model.generation_config.pad_token_id = stock.generation_config.pad_token_id
    model.save_pretrained(folder)
    _processor(kind).save_pretrained(folder)
    shape = replace(tiny_qwen.QWEN_SHAPE, llm_width=WIDTH)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", shape)
    return folder


def _processor(kind: str) -> Any:
    own = tiny_qwen.tiny_qwen_processor(kind)
    name, videos = {
        "qwen2_5_vl": ("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
        "qwen3_vl": ("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
    }[kind]
    return getattr(transformers, name)(
        image_processor=own.image_processor,
        tokenizer=own.tokenizer,
        video_processor=getattr(transformers, videos)(patch_size=4),
        chat_template=tiny_qwen.CHAT_TEMPLATE,
    )
