"""A task's questions, and what answers that no model gave to them would score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adallava.analysis.hard_split import HardSamples, blind_answers, split_hard
from adallava.analysis.majority import MajorityScores, ResponseScorer, score_majority
from adallava.analysis.scores import ScoreTable
from adallava.errors import AdallavaError
from adallava.tasks.scoring import exact_match


@dataclass(frozen=True)
class Questions:
    """What is known of a run's questions.

    Attributes:
        kinds: their types by sample id.
        answers: the right ones by sample id, in the order of the task.
        score: of any response to a sample, by the run's metric.
    """

    kinds: Mapping[str, str | None]
    answers: Mapping[str, Sequence[str]]
    score: ResponseScorer

    @classmethod
    def of(
        cls,
        sample_ids: Sequence[str],
        kinds: Mapping[str, str | None],
        answers: Sequence[Mapping[str, Sequence[str]]],
        score: ResponseScorer | None,
    ) -> "Questions":
        """Collect them from the cells of a run; without a metric, by an exact match with the right answers."""
        known: dict[str, Sequence[str]] = {}
        for of_cell in answers:
            known |= of_cell
        ordered = {sample_id: known.get(sample_id, ()) for sample_id in sample_ids}
        return cls(kinds, ordered, score or (lambda sample_id, response: exact_match(response, ordered[sample_id])))

    def hard_samples(
        self, scores: ScoreTable, tokens_kept: Mapping[str, float], responses: Mapping[str, str], seed: int
    ) -> HardSamples | None:
        """Split; None without `none`, and where the task's metric cannot score its answers to other questions.

        Args:
            scores: of the run.
            tokens_kept: mean vision tokens by cell.
            responses: of `none` by sample id.
            seed: of the choice of answers.
        """
        try:
            blind = blind_answers(list(self.answers), self.kinds, responses, self.score, seed)
        except AdallavaError:
            return None
        return split_hard(scores, tokens_kept, blind)

    def majority(self) -> MajorityScores | None:
        """Score the most frequent answers; None where the task's metric cannot score an answer that no model gave."""
        try:
            return score_majority(self.answers, self.kinds, self.score)
        except AdallavaError:
            return None
