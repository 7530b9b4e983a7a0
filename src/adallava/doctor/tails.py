"""Answers such as 'ing' for 'walking': what is left when the front was cut off inside a word."""

import re
from collections.abc import Iterable, Mapping, Sequence

from adallava.doctor.answers import Answer, AnswerCell, percent

_TAIL_SHARE = 0.05
_MIN_DISTINCT_TAILS = 3
_WORD = re.compile(r"[^\W\d_]+")


def tails_of_answers(cell: AnswerCell) -> tuple[str | None, list[str]]:
    """Return a line of evidence, and samples, if answers are the tails of right ones."""
    pairs: dict[str, tuple[str, str]] = {}
    for answer in cell.answered:
        response = answer.response.strip()
        right = {target.strip().casefold() for target in answer.targets}
        whole = next((target for target in answer.targets if is_tail(response, target)), None)
        if whole is not None and response.casefold() not in right:
            pairs[answer.sample_id] = (response, whole)
    return _evidence(cell, pairs, "the tail of a right answer")


def tails_of_questions(cell: AnswerCell) -> tuple[str | None, list[str]]:
    """Return the same for a file that names no right answers: tails of the words that its questions use.

    Answers are mostly made of the words that questions are made of. One that begins with a word no question has, though
    it ends one, is rare: 'lue', where another question asks about something blue.
    """
    if any(answer.targets for answer in cell.answers):
        return None, []
    words = _words(answer.question or "" for answer in cell.answers)
    by_tail = _by_tail(words)
    pairs = {}
    for answer in cell.answered:
        first = _first_word(answer)
        if first and first not in words and first in by_tail:
            pairs[answer.sample_id] = (first, by_tail[first])
    return _evidence(cell, pairs, "the tail of a word that the questions use, and no word of theirs")


def reflects(target: str, answers: Sequence[Answer]) -> bool:
    """Say whether more responses are a target, or tails of it, than `tails_of_answers` takes for chance."""
    responses = [answer.response.strip() for answer in answers if not answer.empty]
    reflecting = sum(one.casefold() == target.casefold() or is_tail(one, target) for one in responses)
    return reflecting > _TAIL_SHARE * len(responses)


def is_tail(response: str, target: str) -> bool:
    """Say whether a response ends an answer from inside a word.

    Digits are left out: a model that reads '42' where the image shows '1342' has misread, not been cut.
    """
    response, target = response.casefold(), target.casefold()
    if not response or response.isdigit() or len(response) >= len(target) or not target.endswith(response):
        return False
    return target[-len(response) - 1].isalnum() and response[0].isalnum()


def tails_of(words: Iterable[str]) -> frozenset[str]:
    """Return every text that `is_tail` takes for the tail of one of the words; those of digits too."""
    return frozenset(
        word[start:]
        for word in {word.casefold() for word in words}
        for start in range(1, len(word))
        if word[start - 1].isalnum() and word[start].isalnum()
    )


def _evidence(cell: AnswerCell, pairs: Mapping[str, tuple[str, str]], what: str) -> tuple[str | None, list[str]]:
    distinct = sorted(set(pairs.values()))
    if len(distinct) < _MIN_DISTINCT_TAILS:
        return None, []
    answered = len(cell.answered) - cell.num_empty
    if len(pairs) <= _TAIL_SHARE * answered:
        return None, []
    shown = ", ".join(f"{response!r} for {target!r}" for response, target in distinct[:3])
    return f"{cell.label}: {percent(len(pairs), answered)} are {what} ({shown})", list(pairs)


def _words(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in _WORD.findall(text.casefold()))


def _by_tail(words: frozenset[str]) -> dict[str, str]:
    """Return, for each end of a word of two letters or more, the first word in the alphabet that has it."""
    return {word[start:]: word for word in sorted(words, reverse=True) for start in range(1, len(word) - 1)}


def _first_word(answer: Answer) -> str | None:
    match = _WORD.match(answer.response.strip().casefold())
    return None if match is None else match[0]
