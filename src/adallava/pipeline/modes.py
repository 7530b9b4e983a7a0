"""Reads `generate`'s keyword arguments: refuses what would be wrong, converts what counts the prompt."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from adallava.errors import InputError, UnsupportedModeError
from adallava.pipeline.stock_arguments import AS_CONFIGURED, GENERATE_REFUSED, check_generate_arguments

DEFAULT_NEW_TOKENS = 20
"""transformers' own default when neither max_new_tokens nor max_length is given."""


@dataclass(frozen=True)
class GenerationPlan:
    """What to pass on to transformers' `generate`, and what is needed to read its result.

    Attributes:
        kwargs: for `generate`, a number of new tokens among them.
        eos_token_ids: any of them ends an answer; may be empty.
        num_return_sequences: R, answers per sample.
        max_new_tokens: of an answer at most.
        settings: every argument that is in force, whether the call, its configuration or the model's own says so;
            without those that are None.
        encoder_repetition_penalty: that transformers applies only to prompts that are ids; 1.0 is none.
        encoder_no_repeat_ngram_size: likewise; 0 is none.
    """

    kwargs: dict[str, Any]
    eos_token_ids: frozenset[int]
    num_return_sequences: int
    max_new_tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    encoder_repetition_penalty: float = 1.0
    encoder_no_repeat_ngram_size: int = 0

    def prompt_processors(self, input_ids: Tensor) -> list[Any]:
        """Return the logits processors that transformers leaves out of a call with embeddings.

        Args:
            input_ids: [B, Lc], the shortened prompts.
        """
        from transformers import (
            EncoderNoRepeatNGramLogitsProcessor,
            EncoderRepetitionPenaltyLogitsProcessor,
        )

        processors: list[Any] = []
        if self.encoder_repetition_penalty != 1.0:
            processors.append(EncoderRepetitionPenaltyLogitsProcessor(self.encoder_repetition_penalty, input_ids))
        if self.encoder_no_repeat_ngram_size > 0:
            processors.append(EncoderNoRepeatNGramLogitsProcessor(self.encoder_no_repeat_ngram_size, input_ids))
        return processors


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
        InputError: for an argument that nobody knows, or lengths that leave no room for an answer.
    """
    called = {name: value for name, value in kwargs.items() if name != "generation_config"}
    configured, inherited = (_attributes(config) for config in (kwargs.get("generation_config"), default_config))
    check_generate_arguments(called, configured, inherited, inside_llm=inside_llm)

    asked = asked_values(kwargs, default_config).get
    penalty, ngram_size = asked("encoder_repetition_penalty"), asked("encoder_no_repeat_ngram_size")
    fixed: dict[str, Any] = {
        **_lengths(asked, inherited, prompt_columns),
        **_cached(called, configured, inherited),
        "return_dict_in_generate": True,
    }
    if penalty not in (None, 1.0) or ngram_size not in (None, 0):
        # `GenerationPlan.prompt_processors` does this: with embeddings transformers ignores them, with a warning.
        fixed |= {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}
    if inside_llm:
        # With a static cache on CUDA, transformers would compile decoding, for which the view is not made.
        fixed["disable_compile"] = True
    return GenerationPlan(
        _passed_on(kwargs, fixed, inherited),
        frozenset(token_ids(asked("eos_token_id"))),
        asked("num_return_sequences") or 1,
        fixed["max_new_tokens"],
        _given({**inherited, **_given(configured), **called, **fixed}),
        encoder_repetition_penalty=1.0 if penalty is None else penalty,
        encoder_no_repeat_ngram_size=ngram_size or 0,
    )


def _passed_on(kwargs: Mapping[str, Any], fixed: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for transformers' `generate`: the caller's own, with what is set here in their place.

    Args:
        kwargs: as of `plan_generation`.
        fixed: what is set here.
        inherited: of the model's own configuration.
    """
    own = {*fixed, *_LENGTH_NAMES, *AS_CONFIGURED, *(GENERATE_REFUSED.keys() - inherited.keys()), "generation_config"}
    passed = {name: value for name, value in kwargs.items() if name not in own}
    given = kwargs.get("generation_config")
    if given is None:
        return {**passed, **fixed}
    # transformers wants either a configuration or single arguments, not both.
    passed["generation_config"] = copy.deepcopy(given)
    for name, value in fixed.items():
        setattr(passed["generation_config"], name, value)
        if value is None and inherited.get(name) is not None:
            # What is None in a configuration is filled from the model's own; only an argument says none.
            passed[name] = None
    return passed


def asked_values(kwargs: Mapping[str, Any], default_config: Any) -> dict[str, Any]:
    """Return each argument as the call gives it, else as its configuration or the model's does.

    Args:
        kwargs: as of `plan_generation`.
        default_config: likewise.
    """
    configs = (_attributes(config) for config in (default_config, kwargs.get("generation_config")))
    stated = {name: value for config in configs for name, value in config.items() if value is not None}
    return stated | {name: value for name, value in kwargs.items() if name != "generation_config"}


def token_ids(value: Any) -> tuple[int, ...]:
    """Return the ids of an attribute such as `eos_token_id`: one, several, or None."""
    return () if value is None else (int(value),) if isinstance(value, int) else tuple(int(one) for one in value)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not None: in a configuration, None is filled from the model's own."""
    return {name: value for name, value in values.items() if value is not None}


def _attributes(config: Any) -> dict[str, Any]:
    public = {} if config is None else vars(config)
    return {name: value for name, value in public.items() if name[0] != "_" and name != "transformers_version"}


def _cached(called: Mapping[str, Any], configured: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, bool]:
    """Decode with a cache: refuse a caller who wants none, and say so where it is the checkpoint.

    Raises:
        UnsupportedModeError: if the call says use_cache=False.
    """
    if called.get("use_cache", configured.get("use_cache")) is False:
        raise UnsupportedModeError(
            "generate(use_cache=False) is not supported: with embeddings, transformers silently turns the cache "
            "on again"
        )
    if inherited.get("use_cache") is False and "use_cache" not in called and not configured.get("use_cache"):
        warnings.warn(
            "the model's generation_config has use_cache=False, which is ignored: answers are decoded with a cache, "
            "and are the same. generate(use_cache=True) says so without this warning",
            stacklevel=6,
        )
        return {"use_cache": True}
    return {}


_LENGTH_NAMES = ("max_new_tokens", "max_length", "min_new_tokens", "min_length")


def _lengths(asked: Callable[[str], Any], inherited: Mapping[str, Any], prompt_columns: int) -> dict[str, int | None]:
    max_new_tokens, max_length = asked("max_new_tokens"), asked("max_length")
    if max_new_tokens is None:
        max_new_tokens = DEFAULT_NEW_TOKENS if max_length is None else max_length - prompt_columns
        if max_new_tokens < 1:
            raise InputError(
                f"max_length={max_length} leaves no new token after a prompt of {prompt_columns} columns: "
                "give max_new_tokens, at least 1"
            )
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise InputError(f"max_new_tokens={max_new_tokens!r} is not a whole number: give at least 1")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens} asks for no answer: give at least 1")
    min_new_tokens = asked("min_new_tokens")
    if min_new_tokens is None and asked("min_length"):
        min_new_tokens = max(0, asked("min_length") - prompt_columns)
    lengths: dict[str, int | None] = {"max_new_tokens": max_new_tokens, "max_length": None}
    if min_new_tokens or inherited.get("min_new_tokens") or inherited.get("min_length"):
        lengths |= {"min_new_tokens": min_new_tokens or None, "min_length": None}
    return lengths
