"""How a response is scored: exact match after a light normalisation, the best over all right answers."""

import string
from collections.abc import Sequence


def normalise_answer(text: str) -> str:
    """Return `text` in lower case, without surrounding punctuation and with single spaces.

    Articles and inner punctuation stay: `"The 3.5"` and `"3.5"` are different answers.
    """
    return " ".join(text.lower().split()).strip(string.punctuation + " ")


def exact_match(response: str, answers: Sequence[str]) -> float:
    """Return 1.0 if `response` equals any of `answers` after `normalise_answer`, else 0.0.

    A response with nothing left after normalising is never right, even where an answer is punctuation alone.
    """
    given = normalise_answer(response)
    return float(bool(given) and any(given == normalise_answer(answer) for answer in answers))
