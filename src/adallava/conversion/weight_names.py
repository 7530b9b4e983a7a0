"""What the original LLaVA code calls its weights, and what Hugging Face's published LLaVA-1.5 checkpoints call them.

Both from public code: `llava/model/llava_arch.py` of haotian-liu/LLaVA, and transformers' conversion script and
checkpoints of llava-hf. transformers renames the latter as it loads them.
"""

import re

_RULES = (
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\.mm_projector\.0\."), "multi_modal_projector.linear_1."),
    (re.compile(r"^model\.mm_projector\.2\."), "multi_modal_projector.linear_2."),
    (re.compile(r"^model\.vision_tower\.vision_tower\.vision_model\."), "vision_tower.vision_model."),
    (re.compile(r"^model\.(?=embed_tokens\.|layers\.|norm\.)"), "language_model.model."),
)

_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")
"""Saved by old transformers, computed by today's."""

VISION_PREFIX = "vision_tower."

EMBEDDINGS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
"""One row for each word."""


def is_buffer(name: str) -> bool:
    """Return whether a saved tensor is not a weight."""
    return _BUFFERS.search(name) is not None


def stock_name(original: str) -> str | None:
    """Return the published name of an original weight; None for one that a stock model does not have."""
    for pattern, replacement in _RULES:
        if pattern.match(original):
            return pattern.sub(replacement, original)
    return None


def clip_name(name: str) -> str | None:
    """Return the published name of a CLIP checkpoint's weight; None for those of its text half."""
    return VISION_PREFIX + name if name.startswith("vision_model.") else None
