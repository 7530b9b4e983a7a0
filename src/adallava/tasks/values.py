"""The one place where a typed value of a data file, from JSON or parquet, becomes text, or is refused with the reason.

A message begins with a verb ("holds ..."): whoever reads the file puts file, row and column before it.
"""

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from adallava.errors import InputError

BOOLEAN_WORDS = {True: ("yes", "true"), False: ("no", "false")}
"""A boolean has no wording of its own: to a question the answer is yes or no, to a statement true or false."""

_MOST_PLACES = 400
"""Of a decimal number, before and after the point: what no float exceeds by much."""

_LONE_SURROGATES = "holds text with half a surrogate pair, which is not a character: write the whole one"


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that the library which reads the file cannot give.

    Attributes:
        reason: a verb first.
    """

    reason: str


def check_text(text: str) -> str:
    """Return the text itself.

    Raises:
        InputError: if it cannot be written as UTF-8, so that no file could hold the answer to it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(_LONE_SURROGATES) from None
    return text


def text_of(value: object) -> str:
    """Return one scalar as text: numbers as people write them (1.0 is "1"), booleans as "true" and "false".

    Bytes are text in UTF-8, as some writers of parquet store it.

    Raises:
        InputError: for NaN, infinity, a date or time, which may be worded in many ways, and what is not a scalar.
    """
    match value:
        case str():
            return check_text(value)
        case bool() | np.bool_():
            return "true" if value else "false"
        case int() | np.integer():
            return str(int(value))
        case float() | np.floating() | Decimal():
            return _number_text(value)
        case bytes():
            return _decoded(value)
        case Unreadable():
            raise InputError(value.reason)
    raise InputError(f"holds {describe(value)}, which has no one wording: write it as text")


def answers_of(value: object) -> tuple[str, ...]:
    """Return the answers that a cell holds; none for an absent value.

    A list holds alternatives; VQA's files wrap each one as {"answer": ...}, and `datasets` stores these as
    {"answer": [...]}. A blank one stays: it is what one of the people said, and no response is right by it alone. A
    boolean gives both of its `BOOLEAN_WORDS`.

    Raises:
        InputError: as `text_of`; for a list in a list, and an object without "answer".
    """
    if isinstance(value, Mapping) and isinstance(value.get("answer"), list):
        value = value["answer"]
    items = value if isinstance(value, list) else [value]
    return tuple(text for item in items for text in _one_answer(item))


def question_of(value: object) -> str:
    """Return the question that a cell holds.

    Raises:
        InputError: if it is not text, or blank.
    """
    if isinstance(value, Unreadable):
        raise InputError(value.reason)
    if not isinstance(value, str | bytes):
        raise InputError("holds no question" + ("" if value is None else f", but {describe(value)}"))
    question = text_of(value)
    if not question.strip():
        raise InputError("holds no question: it is blank")
    return question


def describe(value: object) -> str:
    """Return what kind of thing a value is, in words and without the value: it may be of any size or depth."""
    for kinds, words in _KINDS:
        if isinstance(value, kinds):
            return words
    return f"a {type(value).__name__}"


_KINDS: tuple[tuple[Any, str], ...] = (
    (type(None), "nothing"),
    (str, "text"),
    (bool, "a boolean"),
    ((int, float, Decimal, np.number), "a number"),
    (bytes, "bytes"),
    (list, "a list"),
    (dict, "an object"),
    (tuple, "a pair of a map"),
    (datetime.datetime, "a point in time"),
    (datetime.date, "a date"),
    (datetime.time, "a time of day"),
    (datetime.timedelta, "a duration"),
)


def _one_answer(item: object) -> tuple[str, ...]:
    if isinstance(item, Mapping):
        if "answer" not in item:
            raise InputError(f'holds an object without "answer", but with {", ".join(map(repr, item)) or "nothing"}')
        item = item["answer"]
    if item is None:
        return ()
    if isinstance(item, list):
        raise InputError("holds a list within a list: an answer is one text, and a list holds those that are right")
    if isinstance(item, bool | np.bool_):
        return BOOLEAN_WORDS[bool(item)]
    return (text_of(item),)


def _number_text(value: float | np.floating[Any] | Decimal) -> str:
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        held = "NaN" if (value.is_nan() if isinstance(value, Decimal) else math.isnan(value)) else "an infinite number"
        raise InputError(f"holds {held}, which says nothing: write null for a value that is missing")
    if isinstance(value, Decimal):
        if abs(value.adjusted()) > _MOST_PLACES:
            raise InputError(f"holds a number of {abs(value.adjusted())} places: write it as text")
        text = f"{value:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        # The fewest digits that tell the number from its neighbors, of its own width: a float32 of 0.1 is "0.1".
        text = np.format_float_positional(value, trim="-")
    return "0" if text == "-0" else text


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"holds bytes that are not text in UTF-8 (byte {error.start} is 0x{value[error.start]:02x})"
        ) from None
