"""How a response is scored against a sample's answers: metrics by name."""

from collections.abc import Callable, Mapping, Sequence

from adallava.errors import InputError, UnknownNameError

from .normalising import normalise_answer
from .vqa_accuracy import NUM_HUMAN_ANSWERS, lmms_vqa_accuracy, official_vqa_accuracy

EXACT_MATCH = "exact-match"
"""The metric that is used where none is asked for."""

Metric = Callable[[str, Sequence[str]], float]
"""From a response and the sample's answers to a score in [0, 1]."""


def exact_match(response: str, answers: Sequence[str]) -> float:
    """Return 1.0 if `response` equals any of `answers` after `normalise_answer`, else 0.0.

    A response with nothing left after normalizing is never right, even where an answer is punctuation alone: a local
    file is refused where a sample has no other answer.
    """
    given = normalise_answer(response)
    return float(bool(given) and any(given == normalise_answer(answer) for answer in answers))


METRICS: Mapping[str, Metric] = {
    EXACT_MATCH: exact_match,
    "vqa": lmms_vqa_accuracy,
    "vqa-official": official_vqa_accuracy,
}
"""Metrics by name. `exact-match` takes any of the answers as right; both `vqa` ones want one answer from each of ten
people."""

METRIC_VERSIONS: Mapping[str, int] = {EXACT_MATCH: 2}
"""Of metrics that gave other scores once; 1 for every other metric. A run never mixes two. `exact-match` 1 normalized
ASCII alone."""


def load_metric(name: str) -> Metric:
    """Return a metric.

    Raises:
        UnknownNameError: for another name.
    """
    if name not in METRICS:
        raise UnknownNameError(f"metric {name!r} is not one of {', '.join(METRICS)}")
    return METRICS[name]


def check_can_be_right(name: str | None, answers: Sequence[str]) -> None:
    """Refuse answers if a metric counts none of them as right, whatever the response.

    Args:
        name: of the metric; None for no scoring.
        answers: of one sample.

    Raises:
        InputError: beginning with a verb, as in `values`.
    """
    if name == EXACT_MATCH and not any(map(normalise_answer, answers)):
        raise InputError(
            f"holds no answer but punctuation ({', '.join(map(repr, answers))[:80]}), which {EXACT_MATCH} leaves out, "
            "so that no response would be right: write it as a word"
        )


def check_answers(name: str | None, sample_id: str, answers: Sequence[str]) -> None:
    """Refuse answers that a metric cannot score.

    Raises:
        InputError: if it wants ten of them, and there are more or fewer.
    """
    if name not in (None, EXACT_MATCH) and len(answers) != NUM_HUMAN_ANSWERS:
        raise InputError(
            f"metric {name} takes {NUM_HUMAN_ANSWERS} answers a question, one a person, and sample {sample_id} has "
            f"{len(answers)}: use --metric {EXACT_MATCH}"
        )
