"""Which ways to decode an engine of our own knows: greedy and sampling; everything else is left to stock `generate`."""

from dataclasses import dataclass, field
from typing import Any

from adallava.engines.seat import MOST_ENDS
from adallava.pipeline.decoding import SAMPLING, neutral_settings
from adallava.pipeline.modes import GenerationPlan, token_ids

_READ = {"max_new_tokens", "max_length", "min_length", "eos_token_id", "pad_token_id", "bos_token_id", "do_sample"}
_WITHOUT_EFFECT = {"use_cache", "return_dict_in_generate", "disable_compile", "decoder_start_token_id"}


@dataclass(frozen=True)
class DecodeMode:
    """How to decode.

    Attributes:
        max_new_tokens: of an answer at most.
        ends: ids that end an answer.
        padding: the id after its end.
        sampling: transformers' names of what shapes the distribution that is drawn from; None to decode greedily.
    """

    max_new_tokens: int
    ends: tuple[int, ...]
    padding: int
    sampling: dict[str, Any] | None = field(default=None)


def read_decode_mode(plan: GenerationPlan) -> DecodeMode | str:
    """Return how a plan decodes, or in words what of it only stock `generate` can do."""
    if plan.num_return_sequences != 1:
        return f"num_return_sequences={plan.num_return_sequences}"
    if plan.encoder_repetition_penalty != 1.0 or plan.encoder_no_repeat_ngram_size > 0:
        return "encoder_repetition_penalty or encoder_no_repeat_ngram_size"
    if plan.max_new_tokens < 1:
        return f"max_new_tokens={plan.max_new_tokens}"
    neutral = neutral_settings()
    for name, value in plan.settings.items():
        if name in _READ or name in _WITHOUT_EFFECT or name in SAMPLING:
            continue
        # Transformers' own defaults; what no configuration knows, such as a streamer, is neutral where it is None.
        if value is not None and value is not False and value != neutral.get(name):
            return f"{name}={value!r}" if isinstance(value, int | float | str) else name
    ends = tuple(sorted(plan.eos_token_ids))
    if len(ends) > MOST_ENDS:
        return f"{len(ends)} ids that end an answer"
    padding = plan.settings.get("pad_token_id")
    if padding is None:
        padding = next(iter(token_ids(plan.settings.get("eos_token_id"))), 0)
    sampling = None
    if plan.settings.get("do_sample"):
        # A call's own None says that nothing is shaped so; a configuration's is filled from the defaults.
        own = {name: plan.kwargs[name] for name in SAMPLING if name in plan.kwargs}
        values = {name: own.get(name, plan.settings.get(name, neutral.get(name))) for name in SAMPLING}
        sampling = {name: value for name, value in values.items() if value is not None}
    return DecodeMode(plan.max_new_tokens, ends, int(padding), sampling)
