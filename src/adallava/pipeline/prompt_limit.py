"""How long a prompt may be: as many tokens as the LLM has positions, less those of its answer, and as memory holds.

Past the positions a model still answers, and attention over such a prompt can take all memory there is.
"""

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from adallava.errors import InputError

MOST_CHARACTERS_PER_TOKEN = 64
"""A text with more characters than this for each position is too long without being tokenized."""

_BYTES_PER_PAIR = 6
"""Of a padded batch, for every two tokens of a row: a mask in bool, and the copy in float that SDPA makes of it."""
_BYTES_PER_EAGER_PAIR = 8
"""More for each head where attention is computed by matrices: the products, and their softmax."""
_MEMORY_SHARE = 4
"""Masks may take one part in so many of memory; the rest is for weights, keys, values and other programs."""


@dataclass(frozen=True)
class PromptLimit:
    """The most tokens of a prompt, vision tokens included.

    Attributes:
        tokens: their number.
        holder: what has room for no more, in words that end before the number.
        remedy: in words, besides shortening the question.
    """

    tokens: int
    holder: str = "the LLM has positions for"
    remedy: str = "show fewer or smaller images"


def max_prompt_tokens(
    config: Any, max_new_tokens: int, *, rows: int = 1, eager: bool = False, memory_bytes: int | None = None
) -> PromptLimit | None:
    """Return the limit; None for an LLM whose config names no number of positions, where memory is not known either.

    Args:
        config: the model's.
        max_new_tokens: that its answers may have.
        rows: of the LLM that are run together: prompts of a batch, or beams of a search.
        eager: True if attention is computed by matrices.
        memory_bytes: of the device; None = not looked at.

    Raises:
        InputError: if the answers alone are longer than that.
    """
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    limits = []
    if isinstance(positions, int):
        if max_new_tokens >= positions:
            raise InputError(
                f"{max_new_tokens} new tokens leave no position for a prompt: the LLM has {positions} "
                "(max_position_embeddings); ask for fewer"
            )
        limits.append(PromptLimit(positions - max_new_tokens))
    if memory_bytes is not None:
        pair_bytes = _BYTES_PER_PAIR + _BYTES_PER_EAGER_PAIR * eager * int(getattr(text, "num_attention_heads", 1))
        most = math.isqrt(memory_bytes // _MEMORY_SHARE // (pair_bytes * rows))
        limits.append(PromptLimit(max(1, most), f"memory for batches of {rows} holds", "make batches smaller"))
    return min(limits, key=lambda limit: limit.tokens, default=None)


def device_memory_bytes(device: torch.device) -> int:
    """Return the memory of a device: all of it, so that the limit does not depend on what else runs."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_prompt_text(tokenizer: Any, prompt: str, limit: PromptLimit) -> None:
    """Refuse a prompt whose text alone is too long, before its pictures are looked at.

    Args:
        tokenizer: the model's.
        prompt: with one placeholder a picture.
        limit: of `max_prompt_tokens`.

    Raises:
        InputError: naming length and limit.
    """
    if len(prompt) > MOST_CHARACTERS_PER_TOKEN * limit.tokens:
        raise InputError(
            f"the question has {len(prompt):,} characters, and {limit.holder} {limit.tokens:,} tokens: shorten it"
        )
    check_prompt_tokens(len(tokenizer(prompt)["input_ids"]), limit)


def check_prompt_tokens(num_tokens: int, limit: PromptLimit | None) -> None:
    """Refuse a prompt that is too long, its vision tokens included.

    Raises:
        InputError: naming length and limit.
    """
    if limit is not None and num_tokens > limit.tokens:
        raise InputError(
            f"the prompt has {num_tokens:,} tokens, and {limit.holder} {limit.tokens:,} besides the answer's: "
            f"shorten the question, or {limit.remedy}"
        )


def warn_of_positions(config: Any, prompt_columns: int, max_new_tokens: int) -> None:
    """Warn, as transformers does in its log, of a prompt with more tokens than the LLM has positions for.

    Args:
        config: the model's.
        prompt_columns: of the longest prompt, vision tokens included.
        max_new_tokens: that its answer may have.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and prompt_columns + max_new_tokens > positions:
        warnings.warn(
            f"a prompt of {prompt_columns} tokens and {max_new_tokens} new ones go past the {positions} positions of "
            "the LLM (max_position_embeddings): do not rely on such answers",
            stacklevel=4,
        )
