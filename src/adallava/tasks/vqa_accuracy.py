"""VQA accuracy over ten human answers, in the two variants that are in use.

An answer is right to the degree that people gave it: leave one person out, count how many of the others said the
same, take min(1, count / 3), and average over the person left out (VQA, arXiv 1505.00468, section 3.2;
`vqaEval.py` of GT-Vision-Lab/VQA, commit a013f00). Among ten people that is 0, 0.3, 0.6, 0.9 for 0 to 3 and 1 from
4 on. The variants differ in what is normalized beforehand, see `official_vqa_accuracy` and `lmms_vqa_accuracy`.
"""

import re
from collections.abc import Sequence

from .contractions import CONTRACTIONS

NUM_HUMAN_ANSWERS = 10

_ENOUGH = 3
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
_ARTICLES = frozenset(("a", "an", "the"))

_FULL_STOP = re.compile(r"\.(?!\d)")
_MAX_FULL_STOPS = int(re.UNICODE)
"""Both scripts hand the flag over where `re.sub` takes a count, so no more than this many are removed: 32."""

_OFFICIAL_COMMA = re.compile(r"\d,\d")
_LMMS_COMMA = re.compile(r"\d,+\d")


def official_vqa_accuracy(response: str, answers: Sequence[str]) -> float:
    """Return the accuracy of the official script, in [0, 1].

    Both sides are normalized only where the people did not all agree to the letter; where they did, the response
    must equal their answer as it is written, apart from white space at the ends.

    Args:
        response: what the model wrote.
        answers: one a person, usually ten.
    """
    given, wanted = _one_line(response), [_one_line(answer) for answer in answers]
    if len(set(wanted)) > 1:
        given, wanted = _normalise(given, _OFFICIAL_COMMA), [_normalise(text, _OFFICIAL_COMMA) for text in wanted]
    return _leave_one_out(given, wanted)


def lmms_vqa_accuracy(response: str, answers: Sequence[str]) -> float:
    """Return the accuracy that lmms-eval 0.7.3 calls `exact_match` in its VQAv2 tasks, in [0, 1].

    Both sides are always normalized. Punctuation around a run of commas between digits (`1,,2`) goes without leaving
    a space, as the official script has it for a single comma only.

    Args:
        response: what the model wrote.
        answers: one a person, usually ten.
    """
    wanted = [_normalise(_one_line(answer), _LMMS_COMMA) for answer in answers]
    return _leave_one_out(_normalise(_one_line(response), _LMMS_COMMA), wanted)


def _leave_one_out(given: str, wanted: Sequence[str]) -> float:
    matches = sum(answer == given for answer in wanted)
    shares = (min(1.0, (matches - (answer == given)) / _ENOUGH) for answer in wanted)
    return sum(shares) / len(wanted)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _normalise(text: str, comma: re.Pattern[str]) -> str:
    words = (_DIGITS.get(word, word) for word in _without_punctuation(text, comma).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str, comma: re.Pattern[str]) -> str:
    """Drop a mark next to a space, or anywhere in a text with a thousands comma; else replace it by a space."""
    grouped = comma.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        at_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if at_space or grouped else " ")
    return _FULL_STOP.sub("", cleaned, count=_MAX_FULL_STOPS)
