"""Why a response is empty. The cause is read from the token ids, not from the text."""

from collections.abc import Collection, Sequence

from adallava.model import AdaLlava
from adallava.records import EmptyCause


def classify_empty(
    response: str, answer_ids: Sequence[int], eos_ids: Collection[int], special_ids: Collection[int]
) -> EmptyCause | None:
    """Return the cause of an empty response, or None if it has text.

    Args:
        response: decoded text without special tokens.
        answer_ids: the new tokens, EOS included, padding excluded.
        eos_ids: every id that ends an answer.
        special_ids: every id that decoding skips.
    """
    if response.strip():
        return None
    if not answer_ids:
        return "no-new-tokens"
    if answer_ids[0] in eos_ids:
        return "first-token-eos"
    if all(token in special_ids for token in answer_ids):
        return "special-tokens-only"
    return "whitespace-only"


def eos_ids_of(model: AdaLlava) -> frozenset[int]:
    """Return every id that ends an answer of the model."""
    eos = model.base.generation_config.eos_token_id
    return frozenset() if eos is None else frozenset(eos if isinstance(eos, list) else [eos])
