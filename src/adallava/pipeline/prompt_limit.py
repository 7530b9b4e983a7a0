"""How long a prompt may be: as many tokens as the LLM has positions, less those of its answer.

Past that a model still answers, and attention over such a prompt can take all memory there is.
"""

import warnings
from typing import Any

from adallava.errors import InputError

MOST_CHARACTERS_PER_TOKEN = 64
"""A text with more characters than this for each position is too long without being tokenized."""


def max_prompt_tokens(config: Any, max_new_tokens: int) -> int | None:
    """Return the limit; None for an LLM whose config names no number of positions.

    Args:
        config: the model's.
        max_new_tokens: that its answers may have.

    Raises:
        InputError: if the answers alone are longer than that.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    if max_new_tokens >= positions:
        raise InputError(
            f"{max_new_tokens} new tokens leave no position for a prompt: the LLM has {positions} "
            "(max_position_embeddings); ask for fewer"
        )
    return positions - max_new_tokens


def check_prompt_text(tokenizer: Any, prompt: str, limit: int) -> None:
    """Refuse a prompt whose text alone is too long, before its pictures are looked at.

    Args:
        tokenizer: the model's.
        prompt: with one placeholder a picture.
        limit: of `max_prompt_tokens`.

    Raises:
        InputError: naming length and limit.
    """
    if len(prompt) > MOST_CHARACTERS_PER_TOKEN * limit:
        raise InputError(f"the question has {len(prompt):,} characters, and the LLM has positions for {limit:,} tokens")
    check_prompt_tokens(len(tokenizer(prompt)["input_ids"]), limit)


def check_prompt_tokens(num_tokens: int, limit: int | None) -> None:
    """Refuse a prompt that is too long, its vision tokens included.

    Raises:
        InputError: naming length and limit.
    """
    if limit is not None and num_tokens > limit:
        raise InputError(
            f"the prompt has {num_tokens:,} tokens, and the LLM has positions for {limit:,} beside the answer's: "
            "shorten the question, or show fewer or smaller pictures"
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
            "the LLM (max_position_embeddings): such answers are not to be relied on",
            stacklevel=3,
        )
