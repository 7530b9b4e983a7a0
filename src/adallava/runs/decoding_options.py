"""Which ways to decode a sweep can be asked for (`--generation-option`), checked before anything is loaded."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from adallava.budget import MAX_BEAMS, MAX_COUNT, MAX_NGRAM
from adallava.errors import InputError

_Check = Callable[[Any], bool]


def _is_count(least: int, most: int = MAX_COUNT) -> _Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(low: float, high: float, *, inclusive: bool = False) -> _Check:
    def check(value: Any) -> bool:
        """Return whether a value is a number in the range."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (low < value < high or (inclusive and value in (low, high)))

    return check


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_count(0)(one) for one in value)


_TRUE_OR_FALSE: tuple[_Check, str] = (lambda value: isinstance(value, bool), "true or false")
_SHARE: tuple[_Check, str] = (_is_number(0.0, 1.0, inclusive=True), "a number from 0 to 1")
_INNER_SHARE: tuple[_Check, str] = (_is_number(0.0, 1.0), "a number between 0 and 1")
_POSITIVE: tuple[_Check, str] = (_is_number(1e-6, 1e6, inclusive=True), "a number above 0, from 1e-6 to 1e6")
_WHOLE: tuple[_Check, str] = (_is_count(0), f"a whole number from 0 to {MAX_COUNT}")
_NGRAM: tuple[_Check, str] = (_is_count(0, MAX_NGRAM), f"a whole number from 0 to {MAX_NGRAM}")
_IDS: tuple[_Check, str] = (_is_ids, "a list of token ids, such as [13,29]")

_SAMPLING: Mapping[str, tuple[_Check, str]] = {
    "temperature": _POSITIVE,
    "top_k": _WHOLE,
    **dict.fromkeys(("top_p", "typical_p"), (_is_number(0.0, 1.0000001), "a number above 0, at most 1")),
    "min_p": _SHARE,
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "top_h"), _INNER_SHARE),
}
_SEARCHING: Mapping[str, tuple[_Check, str]] = {
    "length_penalty": (_is_number(-20.0, 20.0, inclusive=True), "a number from -20 to 20"),
    "early_stopping": (lambda value: isinstance(value, bool) or value == "never", "true, false or never"),
}
TAKEN: Mapping[str, tuple[_Check, str]] = {
    "do_sample": _TRUE_OR_FALSE,
    "num_beams": (_is_count(1, MAX_BEAMS), f"a whole number from 1 to {MAX_BEAMS}"),
    "repetition_penalty": _POSITIVE,
    "encoder_repetition_penalty": _POSITIVE,
    "no_repeat_ngram_size": _NGRAM,
    "encoder_no_repeat_ngram_size": _NGRAM,
    "min_new_tokens": _WHOLE,
    "suppress_tokens": _IDS,
    "begin_suppress_tokens": _IDS,
    "forced_eos_token_id": (_is_count(0), "a token id"),
    **_SAMPLING,
    **_SEARCHING,
}
"""By transformers' name, what a value must be, and that in words."""

_ELSEWHERE: Mapping[str, str] = {
    "max_new_tokens": "give --max-new-tokens",
    "max_length": "it counts the prompt, whose length differs by sample: give --max-new-tokens",
    "min_length": "it counts the prompt, whose length differs by sample: give min_new_tokens",
    "num_return_sequences": "one answer a sample is scored",
    "guidance_scale": "its second prompt is in no count of FLOPs",
    "use_cache": "answers are always decoded with a cache",
    "cache_implementation": "a cache longer than its tokens is in no count of FLOPs",
    "eos_token_id": "it comes from the checkpoint",
    "pad_token_id": "it comes from the checkpoint",
}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that a sweep does not take, and values that mean nothing, or that nothing would read.

    Raises:
        InputError: naming the option, its value and the fix.
    """
    for name, value in options.items():
        if name not in TAKEN:
            close = difflib.get_close_matches(name, TAKEN, n=1, cutoff=0.7)
            hint = f"did you mean {close[0]}?" if close else f"the options are {', '.join(TAKEN)}"
            raise InputError(f"--generation-option {name} cannot be used in a sweep: {_ELSEWHERE.get(name) or hint}")
        is_right, words = TAKEN[name]
        if not is_right(value):
            raise InputError(f"--generation-option {name} is {value!r}: give {words}")
    for names, needed, has in (
        (_SAMPLING, "do_sample=true", options.get("do_sample", False)),
        (_SEARCHING, "num_beams above 1", options.get("num_beams", 1) > 1),
    ):
        idle = sorted(names.keys() & options.keys())
        if idle and not has:
            raise InputError(f"--generation-option {', '.join(idle)} has no effect without {needed}: give that too")
