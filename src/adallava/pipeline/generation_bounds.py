"""Arguments of `generate` held against the LLM that reads them: ids of its words, and the cache that it holds."""

from collections.abc import Mapping
from typing import Any

from adallava.errors import InputError
from adallava.pipeline.modes import token_ids

_IDS_READ = ("pad_token_id", "forced_bos_token_id", "forced_eos_token_id")
"""Written into an answer, so that the LLM reads them. On a GPU an id that it lacks ends the process."""


def check_generation_bounds(values: Mapping[str, Any], base: Any) -> None:
    """Refuse what the LLM cannot read, and a cache for more tokens than it can place.

    Args:
        values: of `generate`'s arguments, whoever gave them.
        base: the model.

    Raises:
        InputError: naming the argument and the limit.
    """
    num_words = base.get_input_embeddings().num_embeddings
    for name in _IDS_READ:
        outside = [one for one in token_ids(values.get(name)) if not 0 <= one < num_words]
        if outside:
            raise InputError(f"{name} is {outside[0]}, and the LLM has words 0 to {num_words - 1}: name one of these")
    cached, positions = (
        values.get("max_cache_len"),
        getattr(base.config.get_text_config(), "max_position_embeddings", None),
    )
    if isinstance(cached, int) and isinstance(positions, int) and cached > positions:
        raise InputError(
            f"max_cache_len is {cached}, and the LLM has {positions} positions (max_position_embeddings): ask for no "
            "more"
        )
