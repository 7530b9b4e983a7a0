"""Llavas of random weights, by name: what a call costs does not depend on what the weights know.

Sizes from the published config.json of `llava-hf/llava-1.5-7b-hf` and `-13b-hf` (Liu et al., arXiv 2310.03744): Vicuna
behind CLIP ViT-L/14 at 336 pixels, N = 576. `toy` has the same parts, tiny.
"""

from collections.abc import Sequence
from typing import Any

import torch

from adallava.errors import InputError
from adallava.families.transformers_internals import set_attention
from adallava.model import AdaLlava

_VICUNA_7B = {"vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
_VICUNA_13B = _VICUNA_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "num_hidden_layers": 40,
}
_CLIP_L_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
_TOY_LLM = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
}
_TOY_TOWER = {
    "hidden_size": 32,
    "image_size": 112,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "patch_size": 14,
}
_LLM_AND_TOWER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llava-1.5-7b": (_VICUNA_7B, _CLIP_L_336),
    "llava-1.5-13b": (_VICUNA_13B, _CLIP_L_336),
    "toy": (_TOY_LLM, _TOY_TOWER),
}

SHAPES = tuple(_LLM_AND_TOWER)
"""Names."""


class NoText:
    """Stands in for a processor where there is no text: prompts are random ids, and answers are not read."""

    tokenizer = None

    def batch_decode(self, answers: Sequence[Sequence[int]], **_: Any) -> list[str]:
        """Return an empty text for each answer."""
        return [""] * len(answers)


def config_of(name: str) -> Any:
    """Return transformers' config of a shape.

    Raises:
        InputError: for an unknown name, with the known ones.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    if name not in _LLM_AND_TOWER:
        raise InputError(f"shapes {name!r} are not known: give one of {', '.join(SHAPES)}")
    llm, tower = _LLM_AND_TOWER[name]
    side = tower["image_size"] // tower["patch_size"]
    config = LlavaConfig(
        text_config=LlamaConfig(**llm).to_dict(),
        vision_config=CLIPVisionConfig(**tower).to_dict(),
        # Behind the words: Vicuna's 32,000, of a vocabulary that is filled up to 32,064.
        image_token_id=llm["vocab_size"] - 64,
        image_seq_length=side**2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    set_attention(config, "sdpa")
    return config


def random_base(config: Any, device: str | torch.device, dtype: torch.dtype) -> Any:
    """Return a stock Llava of a config, made where it is to lie, with transformers' initial weights in that type."""
    from transformers import LlavaForConditionalGeneration

    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            base = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(kept)
    return base.eval()


def random_model(name: str, device: str | torch.device, dtype: torch.dtype) -> AdaLlava:
    """Return the full-token model of a shape, driven by stock `generate`, with no text around it.

    Raises:
        InputError: for an unknown name.
    """
    return AdaLlava(random_base(config_of(name), device, dtype), NoText(), engine="stock")
