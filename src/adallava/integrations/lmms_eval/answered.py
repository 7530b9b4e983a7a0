"""What is known about an answer given to lmms-eval, and it as a line of the log."""

from dataclasses import dataclass

from adallava.records import EmptyCause, WhatRan


@dataclass(frozen=True)
class Answered:
    """One answer.

    Attributes:
        task: name of the task.
        doc_id: of the sample.
        text: the response, up to the request's stop strings.
        ran: what ran.
        layers_run: LLM layers that ran, groups of heads counted as parts of a layer.
        empty_cause: if and only if the text is empty.
        seen_shares: of each image, how much the model saw; none where it is not known.
    """

    task: str
    doc_id: object
    text: str
    ran: WhatRan
    layers_run: float
    empty_cause: EmptyCause | None
    seen_shares: tuple[float, ...] = ()


def describe(answer: Answered) -> str:
    """Return the answer's line of the log."""
    ran = answer.ran
    kept = f"{ran.tokens_kept} of {ran.num_vision_tokens} vision tokens kept"
    if ran.tokens_at_end != ran.tokens_kept:
        kept += f", {ran.tokens_at_end} in the last layer"
    said = repr(answer.text) if answer.empty_cause is None else f"empty ({answer.empty_cause})"
    return (
        f"{answer.task} doc {answer.doc_id}: {ran.method} at {ran.budget_asked}, {kept}, prompt "
        f"{ran.prompt_length} tokens, answer {ran.answer_length} tokens, {answer.layers_run:g} layers run: {said}"
    )
