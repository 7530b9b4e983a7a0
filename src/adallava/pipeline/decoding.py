"""Decoding that is stated, and inherits nothing in silence: what a sweep, its timing and the live doctor generate by.

transformers fills whatever a call does not name from the checkpoint's `generation_config.json`. Here every attribute is
named in the call: at transformers' own default, or as it was asked for.
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from adallava.pipeline.modes import token_ids
from adallava.records import Decoding

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Attributes that only sampling reads."""


def decoding_of(generation_config: Any, options: Mapping[str, Any] | None = None) -> Decoding:
    """Return how a model decodes: greedily, unless options say otherwise.

    Args:
        generation_config: of the model. Only the ids that end an answer and that fill one up are taken from it.
        options: what was asked for, by transformers' names.
    """
    ends = token_ids(generation_config.eos_token_id)
    padding = generation_config.pad_token_id
    return Decoding(
        options=dict(options or {}),
        eos_token_ids=list(ends),
        # transformers pads with the first of them where a model names no padding.
        pad_token_id=(ends[0] if ends else None) if padding is None else int(padding),
    )


def generate_arguments(decoding: Decoding) -> dict[str, Any]:
    """Return arguments for `generate`, of the stock model too: every attribute of a `GenerationConfig`.

    Lengths are left to the caller.
    """
    stated = {**neutral_settings(), **decoding.options}
    lengths = ("max_length", "min_length", "return_dict_in_generate")
    named = {name: value for name, value in stated.items() if name not in lengths}
    ends = decoding.eos_token_ids
    return named | {"eos_token_id": ends or None, "pad_token_id": decoding.pad_token_id}


def values_of_checkpoint(generation_config: Any) -> dict[str, Any]:
    """Return what a model's `generation_config` sets besides token ids: not unset, and not transformers' default."""
    defaults = {name: value for name, value in neutral_settings().items() if name not in _IDS}
    return {
        name: value
        for name, value in vars(generation_config).items()
        if name in defaults and value is not None and value != (defaults[name] or False)
    }


def in_words(values: Mapping[str, Any]) -> str:
    """Return `num_beams=4, repetition_penalty=5.0`."""
    return ", ".join(f"{name}={value!r}" for name, value in sorted(values.items()))


@cache
def neutral_settings() -> Mapping[str, Any]:
    """Return transformers' default of every attribute, None where it has none."""
    from transformers import GenerationConfig

    unset = {name: value for name, value in vars(GenerationConfig()).items() if name[0] != "_"}
    unset.pop("transformers_version", None)
    defaults: dict[str, Any] = {**unset, **GenerationConfig._get_default_generation_params()}
    # Neither counts tokens that the prompt does not have.
    return MappingProxyType(defaults | {"max_length": None, "min_length": None, "use_cache": True})
