"""Reads `generate`'s keyword arguments: refuses what would be wrong, converts what counts the prompt."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adallava.errors import InputError, UnsupportedModeError
from adallava.families.transformers_internals import CACHE_NAMES

DEFAULT_NEW_TOKENS = 20
"""transformers' own default when neither max_new_tokens nor max_length is given."""

_EMBEDS_ONLY = "the shortened prompt reaches the LLM as embeddings, with which transformers' assisted decoding is wrong"
_END_UNCERTAIN = "an answer's end must be EOS or max_new_tokens, so that its length is certain"
_REFUSED = {
    "assistant_model": _EMBEDS_ONLY,
    "prompt_lookup_num_tokens": _EMBEDS_ONLY,
    "assistant_early_exit": _EMBEDS_ONLY,
    "prefill_chunk_size": _EMBEDS_ONLY,
    "inputs_embeds": "they are made here, from input_ids and pixel_values: give those",
    "position_ids": "they are made here: choose positions='original' or 'compact'",
    **dict.fromkeys(CACHE_NAMES, "a cache begun elsewhere does not fit a shortened prompt"),
    "labels": "generate computes no loss: use forward",
    "stop_strings": f"{_END_UNCERTAIN}: cut the text instead",
    "stopping_criteria": _END_UNCERTAIN,
    "max_time": _END_UNCERTAIN,
}
_INSIDE = "a method inside the LLM, or a scheduler, gives its layers different tokens to read"
_REFUSED_INSIDE = {"output_hidden_states": _INSIDE, "output_attentions": _INSIDE}


@dataclass(frozen=True)
class GenerationPlan:
    """What to pass on to transformers' `generate`, and what is needed to read its result.

    Attributes:
        kwargs: for `generate`, a number of new tokens among them.
        eos_token_ids: any of them ends an answer; may be empty.
        num_return_sequences: R, answers per sample.
    """

    kwargs: dict[str, Any]
    eos_token_ids: frozenset[int]
    num_return_sequences: int


def plan_generation(
    kwargs: Mapping[str, Any], default_config: Any, *, prompt_columns: int, inside_llm: bool = False
) -> GenerationPlan:
    """Check and convert the caller's generation arguments.

    `max_length` and `min_length` count the prompt in transformers. Here they count the prompt as it was before
    it was shortened, so that one value means the same number of new tokens at every budget.

    Args:
        kwargs: as the caller gave them; `generation_config` may be among them.
        default_config: the model's own `generation_config`.
        prompt_columns: L, columns of the caller's `input_ids`.
        inside_llm: for a method inside the LLM or a schedule of its layers, which refuse more and do not run compiled.

    Raises:
        UnsupportedModeError: for a mode that cannot be given correctly, with the reason.
        InputError: if `max_length` leaves no room for an answer.
    """
    given = kwargs.get("generation_config")

    def asked(name: str) -> Any:
        """Return an argument as the call, its configuration or the model's gives it, the first of them that does."""
        for source in (kwargs.get(name), getattr(given, name, None), getattr(default_config, name, None)):
            if source is not None:
                return source
        return None

    for name, reason in _REFUSED.items():
        if asked(name) is not None:
            raise UnsupportedModeError(f"generate({name}=…) is not supported: {reason}")
    if inside_llm:
        refuse_outputs_inside(asked)
    if asked("use_cache") is False:
        raise UnsupportedModeError(
            "generate(use_cache=False) is not supported: with embeddings, transformers turns the cache on again "
            "without a word"
        )
    fixed: dict[str, Any] = {**_lengths(asked, prompt_columns), "return_dict_in_generate": True}
    if inside_llm:
        # With a static cache on CUDA, transformers would compile decoding, for which the view is not made.
        fixed["disable_compile"] = True
    own = {*_REFUSED, *fixed, *_LENGTH_NAMES, "generation_config"}
    passed = {name: value for name, value in kwargs.items() if name not in own}
    if given is None:
        passed |= fixed
    else:
        # transformers wants either a configuration or single arguments, not both.
        passed["generation_config"] = copy.deepcopy(given)
        for name, value in fixed.items():
            setattr(passed["generation_config"], name, value)
    eos = asked("eos_token_id")
    eos_token_ids = () if eos is None else (eos,) if isinstance(eos, int) else eos
    return GenerationPlan(passed, frozenset(int(i) for i in eos_token_ids), asked("num_return_sequences") or 1)


def refuse_outputs_inside(asked: Callable[[str], Any]) -> None:
    """Refuse what a method inside the LLM cannot return.

    Args:
        asked: the value of an argument, or None.

    Raises:
        UnsupportedModeError: naming the argument.
    """
    for name, reason in _REFUSED_INSIDE.items():
        if asked(name):
            raise UnsupportedModeError(f"{name}=True is not supported: {reason}")


_LENGTH_NAMES = ("max_new_tokens", "max_length", "min_new_tokens", "min_length")


def _lengths(asked: Any, prompt_columns: int) -> dict[str, int | None]:
    max_new_tokens, max_length = asked("max_new_tokens"), asked("max_length")
    if max_new_tokens is None:
        max_new_tokens = DEFAULT_NEW_TOKENS if max_length is None else max_length - prompt_columns
    if max_new_tokens < 1:
        raise InputError(
            f"max_length={max_length} leaves no new token behind a prompt of {prompt_columns} columns: "
            "give max_new_tokens, at least 1"
        )
    min_new_tokens = asked("min_new_tokens")
    if min_new_tokens is None and asked("min_length"):
        min_new_tokens = max(0, asked("min_length") - prompt_columns)
    lengths: dict[str, int | None] = {"max_new_tokens": max_new_tokens, "max_length": None}
    if min_new_tokens:
        lengths |= {"min_new_tokens": min_new_tokens, "min_length": None}
    return lengths
