"""Every argument of transformers' `generate` and of the models' `forward`: taken as the stock model does, or refused.

A name that is in no list here is refused as unknown, so that no argument is dropped in silence. A test holds the lists
against transformers' own.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from adallava.budget import MAX_BEAMS
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.transformers_internals import CACHE_NAMES

_EMBEDS_ONLY = "the shortened prompt reaches the LLM as embeddings, with which transformers' assisted decoding is wrong"
_ASSISTED_ONLY = "it belongs to assisted decoding, which is not supported: " + _EMBEDS_ONLY
_END_UNCERTAIN = "an answer's end must be EOS or max_new_tokens, so that its length is certain"
_REMOTE = "transformers moved this way to decode into code on its hub, and no code from there is ever run"
_PLACED = "the model lies on one device, and each process generates on its own"
_PACKED = "it describes packed or masked sequences, which the shortened batch is not: its mask is made here"
_CACHED = "a cache begun elsewhere does not fit a shortened prompt"
_TOKENIZER = "nothing reads it but stop_strings, token_healing and assisted decoding, which are not supported"
_INSIDE = "a method inside the LLM, a scheduler, or rows that a family adds after layers, change what its layers read"
_TOWER = "the tower runs here, in every call: give pixel_values"

_OF_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx", "is_causal")

GENERATE_TAKEN = frozenset(
    (
        # ways to generate
        *("generation_config", "logits_processor", "prefix_allowed_tokens_fn", "streamer"),
        *("max_new_tokens", "min_new_tokens", "max_length", "min_length", "use_cache", "num_return_sequences"),
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("num_beams", "early_stopping", "length_penalty"),
        # what changes the logits
        *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "sequence_bias", "suppress_tokens"),
        *("begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty"),
        *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "remove_invalid_values", "renormalize_logits"),
        *("watermarking_config", "guidance_scale", "negative_prompt_ids", "negative_prompt_attention_mask"),
        # tokens; without effect after a prompt are bos_token_id and decoder_start_token_id, as in the stock model
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
        # what is returned, and how it is computed
        *("output_scores", "output_logits", "output_attentions", "output_hidden_states", "return_dict_in_generate"),
        *("cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile"),
        "logits_to_keep",
    )
)
"""Arguments of `generate` that mean what they mean in the stock model, at every budget. The ids that a processor or a
function is called with are those of the shortened prompt."""

GENERATE_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp", "speculation_type"),
        _EMBEDS_ONLY,
    ),
    "prefill_chunk_size": "the shortened prompt reaches the LLM as embeddings, which transformers does not cut",
    "token_healing": "it changes the prompt's ids, whose embeddings are made already",
    "inputs": "give input_ids",
    "inputs_embeds": "they are made here, from input_ids and pixel_values: give those",
    "position_ids": "they are made here: choose positions='original' or 'compact'",
    **dict.fromkeys(CACHE_NAMES, _CACHED),
    **dict.fromkeys(("mm_encoder_outputs", "encoder_outputs"), _TOWER),
    "labels": "generate computes no loss: use forward",
    "stop_strings": f"{_END_UNCERTAIN}: cut the text instead",
    **dict.fromkeys(("stopping_criteria", "max_time"), _END_UNCERTAIN),
    **dict.fromkeys(
        ("num_beam_groups", "diversity_penalty", "penalty_alpha", "dola_layers", "constraints", "force_words_ids"),
        _REMOTE,
    ),
    **dict.fromkeys(("custom_generate", "trust_remote_code"), "no code but transformers' own decodes here"),
    "synced_gpus": _PLACED,
    **dict.fromkeys(("tokenizer", "assistant_tokenizer"), _TOKENIZER),
    **dict.fromkeys(_OF_PACKED, _PACKED),
    "num_items_in_batch": "generate computes no loss: use forward",
    "output_router_logits": "no LLM that is supported has a router",
    "return_dict": "transformers' generate has no such argument: the answer is always an AdaLlavaOutput",
}
"""Arguments of `generate` that are never taken, and why."""

GENERATE_IDLE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("assistant_confidence_threshold", "assistant_ensemble_weight", "assistant_lookbehind", "is_assistant"),
            *("max_matching_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "target_lookbehind"),
        ),
        _ASSISTED_ONLY,
    ),
    "continuous_batching_config": "it belongs to continuous batching, which takes no images",
    "low_memory": "transformers' beam search has no such way any more",
}
"""Arguments of `generate` that do nothing on their own. A checkpoint may name them; a caller hears why they are not
taken."""

_REFUSED_INSIDE: Mapping[str, str] = {
    "output_hidden_states": _INSIDE,
    "output_attentions": _INSIDE,
    "guidance_scale": f"{_INSIDE}, and its second prompt has none of them",
    "compile_config": f"{_INSIDE}, for which decoding is not compiled",
}
"""Further arguments that are not taken where the LLM's layers do not all read the same."""

FORWARD_TAKEN = frozenset(
    ("logits_to_keep", "output_hidden_states", "output_attentions", "use_cache", "return_dict", "num_items_in_batch")
)
"""Arguments of the stock `forward` that mean what they mean there; for the others see `AdaLlava.forward`."""

FORWARD_REFUSED: Mapping[str, str] = {
    "inputs_embeds": "they are made here, from input_ids and pixel_values: give those",
    "position_ids": "they are made here: choose positions='original' or 'compact'",
    **dict.fromkeys(CACHE_NAMES, _CACHED),
    **dict.fromkeys(("mm_encoder_outputs", "encoder_outputs"), _TOWER),
    **dict.fromkeys(_OF_PACKED, _PACKED),
    "shift_labels": "labels are shortened with the prompt and shifted then: give labels",
    "ignore_index": "labels that are not learned are -100",
    "output_router_logits": "no LLM that is supported has a router",
}
"""Arguments of `forward` that are never taken, and why."""

AS_CONFIGURED = ("vision_feature_layer", "vision_feature_select_strategy")
"""Arguments that are taken where they say what the checkpoint's config says."""

_NEUTRAL: Mapping[str, Any] = {
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
    "guidance_scale": 1.0,
}
"""What asks for nothing, besides None and False."""


def asks_for_something(name: str, value: Any) -> bool:
    """Return whether a value of an argument that may be refused is more than its absence."""
    if value is None or value is False:
        return False
    return not (isinstance(value, int | float | str) and value == _NEUTRAL.get(name))


def check_generate_arguments(
    called: Mapping[str, Any], configured: Mapping[str, Any], inherited: Mapping[str, Any], *, inside_llm: bool
) -> None:
    """Refuse what `generate` cannot give.

    Args:
        called: the keyword arguments of the call.
        configured: attributes of the call's `generation_config`; empty if it gave none.
        inherited: attributes of the model's own.
        inside_llm: for a method inside the LLM or a schedule of its layers, which refuse more.

    Raises:
        UnsupportedModeError: naming the argument, where it came from, and the reason.
        InputError: for a name that nobody knows, or a value that does nothing or cannot be used.
    """
    own = {name: value for name, value in configured.items() if value is not None and value != inherited.get(name)}
    given = {**own, **called}
    rest = {name: value for name, value in inherited.items() if name not in given}
    refused = {**GENERATE_REFUSED, **(_REFUSED_INSIDE if inside_llm else {})}
    for name, value in given.items():
        reason = refused.get(name) or GENERATE_IDLE.get(name)
        if reason is not None and asks_for_something(name, value):
            argument = f"{name}={_short(value)}"
            argument = argument if name in _REFUSED_INSIDE else f"generate({argument})"
            raise UnsupportedModeError(f"{argument} is not supported: {reason}")
        if reason is None and name not in (*GENERATE_TAKEN, *AS_CONFIGURED) and not name.startswith("_"):
            raise InputError(f"generate has no argument {name!r}{_hint(name, GENERATE_TAKEN)}")
    for name, value in rest.items():
        if name in refused and asks_for_something(name, value):
            raise UnsupportedModeError(
                f"the model's generation_config has {name}={_short(value)}, which is not supported: {refused[name]}. "
                f"generate({name}=None) goes without it"
            )
    for values in (given, rest):
        _check_values(values, inside_llm=inside_llm)
    _check_negative_prompt(given, rest)


def _check_negative_prompt(given: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
    """Refuse parts of a second prompt that nothing reads, as stock `generate` leaves them out in silence."""
    needs = {"negative_prompt_ids": "guidance_scale", "negative_prompt_attention_mask": "negative_prompt_ids"}
    for name, needed in needs.items():
        if given.get(name) is not None and not asks_for_something(needed, given.get(needed, rest.get(needed))):
            raise InputError(f"generate({name}=…) does nothing without {needed}: give that too, or leave it out")


def _check_values(values: Mapping[str, Any], *, inside_llm: bool) -> None:
    """Refuse single values of arguments that are taken otherwise."""
    for name in ("num_beams", "num_return_sequences"):
        if isinstance(number := values.get(name), int) and number > MAX_BEAMS:
            raise InputError(f"{name}={number} is over the limit of {MAX_BEAMS}: the LLM holds each in memory")
    if values.get("cache_implementation") == "paged":
        raise UnsupportedModeError(
            "generate(cache_implementation='paged') is not supported: transformers then batches prompts of ids alone, "
            "which takes no images and counts nothing"
        )
    streamer = values.get("streamer")
    missing = [name for name in ("put", "end") if not callable(getattr(streamer, name, None))]
    if streamer is not None and missing:
        raise InputError(
            f"generate(streamer={_short(streamer)}): its type {type(streamer).__name__} has no "
            f"{' and no '.join(missing)}, which a streamer has: transformers' TextStreamer, for one"
        )
    if values.get("return_dict_in_generate") is False:
        raise UnsupportedModeError(
            "generate(return_dict_in_generate=False) is not supported: the answer is always an AdaLlavaOutput, whose "
            "`sequences` are that tensor"
        )
    if inside_llm and values.get("disable_compile") is False:
        raise UnsupportedModeError(
            f"generate(disable_compile=False) is not supported: {_REFUSED_INSIDE['compile_config']}"
        )


def check_forward_arguments(given: Mapping[str, Any], *, inside_llm: bool) -> None:
    """Refuse what `forward` cannot give. Arguments and errors as for `check_generate_arguments`."""
    for name, value in given.items():
        if name in FORWARD_REFUSED and asks_for_something(name, value):
            raise UnsupportedModeError(f"forward({name}={_short(value)}) is not supported: {FORWARD_REFUSED[name]}")
        if name not in FORWARD_REFUSED and name not in (*FORWARD_TAKEN, *AS_CONFIGURED):
            raise InputError(f"forward has no argument {name!r}{_hint(name, FORWARD_TAKEN)}")
    if inside_llm:
        for name in ("output_hidden_states", "output_attentions", "use_cache"):
            if given.get(name):
                raise UnsupportedModeError(f"{name}=True is not supported: {_INSIDE}")


def check_as_configured(given: Mapping[str, Any], config: Any) -> None:
    """Refuse a tower's layer or strategy of features that is not the checkpoint's.

    Args:
        given: the call's arguments.
        config: of the model.

    Raises:
        UnsupportedModeError: naming both values.
    """
    for name in AS_CONFIGURED:
        value, own = given.get(name), getattr(config, name, None)
        if value is not None and value != own:
            raise UnsupportedModeError(
                f"{name}={value!r} is not supported in a call, the model has {own!r}: methods, adapters and costs are "
                f"made for that one. Set base.config.{name} before AdaLlava(base, processor) is made"
            )


_OF_BUDGETS = frozenset({"token_budget", "latency", "seed", "positions"})
"""Arguments of `generate` and `forward` here that transformers does not have."""


def _hint(name: str, known: frozenset[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known | _OF_BUDGETS), n=1, cutoff=0.7)
    if close:
        return f": did you mean {close[0]!r}?"
    return ": transformers' own that are taken are in docs/concepts/decoding.md"


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int | float | str) else "…"
