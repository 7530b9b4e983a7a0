"""What an lmms-eval request asks of generation: its `gen_kwargs` in transformers' words, and where answers end."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adallava.errors import InputError

DEFAULT_MAX_NEW_TOKENS = 1024
"""For tasks that set none; the same as in lmms-eval's own wrapper of transformers' Llava."""

_IGNORED = frozenset(("image_aspect_ratio",))
"""Of LLaVA's own code base; here the checkpoint's image processor decides."""


def generation_arguments(gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments for `generate`: greedy, unless a temperature above 0 is asked for.

    `until` is left out, see `cut_at`. What transformers does not know it refuses itself.
    """
    asked = {name: value for name, value in gen_kwargs.items() if value is not None and name not in _IGNORED}
    asked.pop("until", None)
    temperature = float(asked.pop("temperature", 0.0))
    sampling = bool(asked.pop("do_sample", temperature > 0)) and temperature > 0
    if sampling:
        return {"max_new_tokens": DEFAULT_MAX_NEW_TOKENS, **asked, "do_sample": True, "temperature": temperature}
    for name in ("top_p", "top_k"):
        asked.pop(name, None)
    return {"max_new_tokens": DEFAULT_MAX_NEW_TOKENS, **asked, "do_sample": False}


def stop_strings(gen_kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what ends an answer, from `until`.

    Raises:
        InputError: if it is neither a string nor a list of them.
    """
    until = gen_kwargs.get("until")
    strings = [until] if isinstance(until, str) else list(until or ())
    if not all(isinstance(text, str) for text in strings):
        raise InputError(f"until={until!r} is neither a string nor a list of strings")
    return tuple(text for text in strings if text)


def cut_at(response: str, stops: Sequence[str]) -> str:
    """Return `response` up to the first of `stops`, stripped."""
    places = [place for place in (response.find(stop) for stop in stops) if place >= 0]
    return response[: min(places, default=len(response))].strip()


def batches_alike(gen_kwargs: Sequence[Mapping[str, Any]], batch_size: int) -> list[list[int]]:
    """Return batches of places whose requests ask for the same generation, each place once."""
    alike: dict[str, list[int]] = {}
    for place, asked in enumerate(gen_kwargs):
        alike.setdefault(json.dumps(asked, sort_keys=True, default=str), []).append(place)
    return [
        places[start : start + batch_size] for places in alike.values() for start in range(0, len(places), batch_size)
    ]
