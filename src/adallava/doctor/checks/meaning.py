"""Do the accuracies mean anything: are responses answers of the task at all, and does the image help?

Computed again from the samples, so that it is said of folders that older versions wrote, too. Answers that are empty or
cut have checks of their own and are looked past here: one cause is one finding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.find_alarms import alarm_of_answers, alarm_of_floor, majority_words, tally
from adallava.analysis.majority import MajorityScores, score_majority
from adallava.doctor.answers import Answer, AnswerCell, AnswerFile, percent
from adallava.doctor.findings import Observation, found, not_visible, passed
from adallava.doctor.tails import tails_of
from adallava.records import NONE_METHOD
from adallava.records.alarms import Alarm, raised
from adallava.tasks.scoring import EXACT_MATCH, METRICS, Metric

_SEED = 0


@dataclass(frozen=True)
class _Group:
    """Cells that are compared, and what their task's answers are."""

    name: str
    cells: Sequence[AnswerCell]
    answers: Mapping[str, tuple[str, ...]]

    @classmethod
    def all_of(cls, file: AnswerFile) -> "list[_Group]":
        """Return the groups of a file, each with its samples' right answers."""
        return [
            cls(name, cells, {answer.sample_id: answer.targets for cell in cells for answer in cell.answers})
            for name, cells in file.groups.items()
        ]

    @cached_property
    def _distinct(self) -> frozenset[str]:
        return frozenset(answer.casefold() for own in self.answers.values() for answer in own)

    @cached_property
    def _tails(self) -> frozenset[str]:
        return tails_of(self._distinct) - self._distinct

    def is_cut(self, answer: Answer) -> bool:
        """Return whether an answer is none, or the tail of one: findings of their own."""
        response = answer.response.strip().casefold()
        return answer.empty or (response in self._tails and not response.isdigit())

    def given(self) -> Iterator[tuple[str, float | None]]:
        """Yield every response with its score."""
        for answer in (answer for cell in self.cells for answer in cell.answered):
            if not self.is_cut(answer):
                # lmms-eval gives some samples no number: their responses are looked at all the same.
                yield answer.response, answer.score or 0.0

    def clusters(self, ids: Sequence[str]) -> Clusters:
        """Return which samples share an image."""
        known = {answer.sample_id: answer.picture_sha256 for cell in self.cells for answer in cell.answered}
        return Clusters.by_picture(ids, known)

    def scores(self, cell: AnswerCell, ids: Sequence[str]) -> NDArray[np.float64]:
        """Return a cell's scores of samples, NaN where there is none."""
        judged = {sample_id: answer.score for sample_id, answer in cell.by_sample.items() if not self.is_cut(answer)}
        scores = [judged.get(sample_id) for sample_id in ids]
        return np.array([np.nan if score is None else score for score in scores], dtype=np.float64)


def check_answers_of_task(file: AnswerFile) -> Observation:
    """Additional: no response, or hardly any, is one of the task's answers, right or wrong."""
    alarms, judged = [], 0
    for group in _Group.all_of(file):
        if any(group.answers.values()):
            told = tally(group.given())
            judged += told.scored + told.others.total()
            alarms.append((group.name, alarm_of_answers(told, group.answers.values())))
    if not alarms:
        return not_visible("the samples name no right answers")
    return _observed(alarms, f"{judged:,} responses looked at: they are answers of the task, right or wrong")


def check_full_above_none(file: AnswerFile) -> Observation:
    """Additional: the full-token model is not above answers without any image."""
    alarms = []
    for group in _Group.all_of(file):
        full = file.full_cell(group.name)
        blind = next((cell for cell in group.cells if cell.method == NONE_METHOD), None)
        if full is not None and blind is not None:
            ids, words = list(full.by_sample), f"{NONE_METHOD}, which sees no image"
            scores = group.scores(full, ids), group.scores(blind, ids)
            alarms.append(
                (group.name, alarm_of_floor("full-not-above-none", *scores, words, _SEED, group.clusters(ids)))
            )
    if not alarms:
        return not_visible(f"there are no answers of {NONE_METHOD} next to the full-token model's")
    return _observed(alarms, f"the full-token model is above {NONE_METHOD}")


def check_full_above_majority(file: AnswerFile) -> Observation:
    """Additional: the full-token model is not above the most frequent answer, given to every question."""
    alarms, lines = [], []
    for group in _Group.all_of(file):
        full = file.full_cell(group.name)
        majority = None if full is None else _majority(file, full)
        if full is not None and majority is not None:
            ids, words = list(full.by_sample), majority_words(majority)
            scores = group.scores(full, ids), majority.best
            alarm = alarm_of_floor("full-not-above-majority", *scores, words, _SEED, group.clusters(ids))
            alarms.append((group.name, alarm))
            lines.append(f"{words}, is right on {percent(float(majority.best.sum()), len(ids))}")
    if alarms:
        return _observed(alarms, "the full-token model is above the majority answer", *lines)
    # The sweep could score answers by a metric of another harness, which is not known here.
    known = [] if file.results is None else file.results.alarms
    told = [("", alarm) for alarm in known if alarm.kind == "full-not-above-majority"]
    if told:
        return _observed(told)
    return not_visible("it needs the full-token model's answers, and right answers under a metric known here")


def _observed(alarms: Sequence[tuple[str, Alarm | None]], *healthy: str) -> Observation:
    """Return what alarms of groups of cells come to. A caution is evidence, and no finding."""
    told = [(group, alarm) for group, alarm in alarms if alarm is not None]
    evidence = [f"{group}: {alarm.message}" if group else alarm.message for group, alarm in told]
    if raised([alarm for _, alarm in told]):
        return found("cannot-tell", evidence)
    return passed(*(f"too few samples: {line}" for line in evidence)) if evidence else passed(*healthy)


def _majority(file: AnswerFile, full: AnswerCell) -> MajorityScores | None:
    metric = _metric(file, full)
    if metric is None:
        return None
    targets = {sample_id: answer.targets for sample_id, answer in full.by_sample.items()}
    kinds = {sample_id: answer.kind for sample_id, answer in full.by_sample.items()}
    return score_majority(targets, kinds, lambda sample_id, response: metric(response, targets[sample_id]))


def _metric(file: AnswerFile, full: AnswerCell) -> Metric | None:
    """Return the run's metric, or for another harness's scores the exact match, if it is what they are."""
    named = None if file.config is None else METRICS.get(file.config.metric or "")
    if named is not None:
        return named
    exact, any_scored = METRICS[EXACT_MATCH], False
    for answer in full.answered:
        if answer.score is not None:
            any_scored = True
            if not answer.targets or exact(answer.response, answer.targets) != answer.score:
                return None
    return exact if any_scored else None
