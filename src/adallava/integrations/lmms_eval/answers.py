"""What is known about an answer given to lmms-eval, and it as a line of the log."""

from dataclasses import dataclass

from adallava.pipeline.result import RunRecord
from adallava.records import EmptyCause


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
        seen_shares: of each picture, how much the model saw; none where it is not known.
    """

    task: str
    doc_id: object
    text: str
    prompt_length: int
    answer_length: int
    record: RunRecord
    layers_run: float
    empty_cause: EmptyCause | None
    seen_shares: tuple[float, ...] = ()


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
