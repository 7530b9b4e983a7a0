"""What is known about an answer given to lmms-eval, as a line of the log, and a watch over empty ones."""

from collections import Counter
from dataclasses import dataclass, field

from adallava.errors import AdallavaError
from adallava.generation.output import RunRecord
from adallava.records import EmptyCause

_ENOUGH_TO_JUDGE = 100
"""Answers after which a share of empty ones is judged before the end: a broken run should not take hours."""


@dataclass(frozen=True)
class Answered:
    """One answer.

    Attributes:
        task: name of the task.
        doc_id: of the sample.
        text: the response, up to the request's stop strings.
        prompt_length: tokens that entered the LLM, vision tokens included.
        answer_length: new tokens, EOS included.
        record: what ran.
        layers_run: LLM layers that ran, groups of heads counted as parts of a layer.
        empty_cause: if and only if the text is empty.
    """

    task: str
    doc_id: object
    text: str
    prompt_length: int
    answer_length: int
    record: RunRecord
    layers_run: float
    empty_cause: EmptyCause | None


def describe(answer: Answered) -> str:
    """Return the answer's line of the log."""
    record = answer.record
    kept = f"{record.tokens_kept} of {record.num_vision_tokens} vision tokens kept"
    if record.tokens_at_end != record.tokens_kept:
        kept += f", {record.tokens_at_end} in the last layer"
    said = repr(answer.text) if answer.empty_cause is None else f"empty ({answer.empty_cause})"
    return (
        f"{answer.task} doc {answer.doc_id}: {record.method} at {record.budget_asked}, {kept}, prompt "
        f"{answer.prompt_length} tokens, answer {answer.answer_length} tokens, {answer.layers_run:g} layers run: {said}"
    )


@dataclass
class EmptyWatch:
    """Counts empty answers by cause, and fails a run with too many: a score over empty answers is not a score.

    Attributes:
        max_share: of empty answers that is let pass.
        seen: answers so far.
        causes: empty answers so far, by cause.
    """

    max_share: float
    seen: int = 0
    causes: Counter[str] = field(default_factory=Counter)

    def see(self, answer: Answered) -> None:
        """Count an answer."""
        self.seen += 1
        if answer.empty_cause is not None:
            self.causes[answer.empty_cause] += 1

    def check(self, *, finished: bool = False) -> str | None:
        """Judge what was seen, once there is enough of it, or at the end; return a warning if a few are empty.

        Raises:
            AdallavaError: if too many are empty.
        """
        num_empty = sum(self.causes.values())
        if not num_empty or (self.seen < _ENOUGH_TO_JUDGE and not finished):
            return None
        by_cause = ", ".join(f"{count} {cause}" for cause, count in self.causes.items())
        found = f"{num_empty} of {self.seen} answers are empty ({by_cause})"
        if num_empty > self.max_share * self.seen:
            raise AdallavaError(
                f"{found}, more than the share of {self.max_share} that passes: their score would be no score. "
                "first-token-eos is a finding about the model at this budget; pass max_empty_share=1 to have its score "
                "all the same"
            )
        return found
