"""The answer that needs no model: a task's most frequent one, given to every question."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.statistics import mean_interval
from adallava.records import Interval
from adallava.records.alarms import MajorityBaseline
from adallava.tasks.normalising import normalise_answer

ResponseScorer = Callable[[str, str], float]
"""From a sample's id and a response to a score in [0, 1]."""

MIN_SAMPLES_OF_KIND = 10
"""A question type with fewer samples has no answer of its own: the most frequent of three is right too often."""

_CANDIDATES = 3
"""The most frequent answers that are tried: a metric of many people's answers may score the second one higher."""


@dataclass(frozen=True)
class MajorityScores:
    """What the most frequent answers score, sample by sample.

    Attributes:
        answer: the one of all questions.
        answers_by_kind: of each question type that is large enough.
        overall: [samples], scores of `answer`.
        by_kind: [samples], scores of the type's answer, or of `answer` where it has none.
    """

    answer: str
    answers_by_kind: Mapping[str, str]
    overall: NDArray[np.float64]
    by_kind: NDArray[np.float64]

    @property
    def best(self) -> NDArray[np.float64]:
        """What the full-token model has to be above, [samples]."""
        return self.by_kind if self.answers_by_kind else self.overall


def score_majority(
    answers: Mapping[str, Sequence[str]], kinds: Mapping[str, str | None], score: ResponseScorer
) -> MajorityScores | None:
    """Score the most frequent answers of a task; None for a task without answers.

    Args:
        answers: the right ones by sample id, in the order of the samples.
        kinds: question types by sample id.
        score: of a response to a sample.
    """
    ids = list(answers)
    answer = _most_scoring(ids, answers, score)
    if answer is None:
        return None
    overall = np.array([score(sample_id, answer) for sample_id in ids])
    by_kind, own = overall.copy(), {}
    for kind in dict.fromkeys(kinds.get(sample_id) for sample_id in ids):
        places = [place for place, sample_id in enumerate(ids) if kinds.get(sample_id) == kind]
        if kind is None or len(places) < MIN_SAMPLES_OF_KIND:
            continue
        best = _most_scoring([ids[place] for place in places], answers, score)
        if best is not None:
            own[kind] = best
            by_kind[places] = [score(ids[place], best) for place in places]
    # Types that all have the same answer say no more than that answer.
    own = own if set(own.values()) - {answer} else {}
    return MajorityScores(answer, own, overall, by_kind if own else overall)


def describe_majority(
    scores: MajorityScores, kinds: NDArray[np.object_], hard: NDArray[np.bool_] | None, clusters: Clusters
) -> MajorityBaseline:
    """Return the baseline with intervals.

    Args:
        scores: of the answers.
        kinds: the samples' types, [samples].
        hard: [samples], True for those in the hard split; None if the run has none.
        clusters: which samples share an image.
    """
    of_kind = {kind: kinds == kind for kind in sorted({kind for kind in kinds if kind is not None})}
    on_hard = np.zeros(len(kinds), dtype=np.bool_) if hard is None else hard
    return MajorityBaseline(
        answer=scores.answer,
        accuracy=mean_interval(scores.overall, clusters),
        answers_by_kind=dict(scores.answers_by_kind),
        accuracy_by_kind=_intervals(scores.best, of_kind, clusters),
        accuracy_with_kinds=mean_interval(scores.by_kind, clusters) if scores.answers_by_kind else None,
        num_scored=int((scores.overall > 0).sum()),
        num_scored_with_kinds=int((scores.by_kind > 0).sum()) if scores.answers_by_kind else None,
        accuracy_hard=_intervals(scores.best, {"": on_hard}, clusters).get(""),
        accuracy_hard_by_kind=_intervals(
            scores.best, {kind: chosen & on_hard for kind, chosen in of_kind.items()}, clusters
        ),
    )


def _intervals(
    values: NDArray[np.float64], parts: Mapping[str, NDArray[np.bool_]], clusters: Clusters
) -> dict[str, Interval]:
    """Return the mean over each part of the samples that holds any."""
    return {
        name: mean_interval(values[chosen], clusters.among(chosen)) for name, chosen in parts.items() if chosen.any()
    }


def _most_scoring(ids: Sequence[str], answers: Mapping[str, Sequence[str]], score: ResponseScorer) -> str | None:
    """Return the candidate with the highest total score; of equals the more frequent one."""
    counts: Counter[str] = Counter()
    wording: dict[str, str] = {}
    for sample_id in ids:
        for answer in answers[sample_id]:
            normal = normalise_answer(answer)
            if normal:
                counts[normal] += 1
                wording.setdefault(normal, answer)
    candidates = [wording[normal] for normal, _ in counts.most_common(_CANDIDATES)]
    return max(candidates, key=lambda answer: sum(score(sample_id, answer) for sample_id in ids), default=None)
