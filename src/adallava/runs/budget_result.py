"""What one question gave at one budget."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adallava.records import WhatRan

if TYPE_CHECKING:
    from adallava.model import AdaLlava
    from adallava.pipeline.result import AdaLlavaOutput


@dataclass(frozen=True)
class BudgetResult:
    """What one budget gave.

    Attributes:
        ran: what ran.
        answer: the text; None without generation.
        empty_cause: why the answer is empty, if it is.
        total_ms: wall time of the call.
        part_ms: of which, by part; None without generation.
        picture: the file with the kept patches.
    """

    ran: WhatRan
    answer: str | None
    empty_cause: str | None
    total_ms: float
    part_ms: dict[str, float] | None
    picture: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as `adallava generate --json` prints it."""
        ran = self.ran
        return {
            "budget_asked": ran.budget_asked,
            "answer": self.answer,
            "num_vision_tokens": ran.num_vision_tokens,
            "tokens_asked": ran.tokens_asked,
            "tokens_kept": ran.tokens_kept,
            "kept_indices": ran.kept_indices,
            "prompt_length": ran.prompt_length,
            "answer_length": None if self.answer is None else ran.answer_length,
            "finish_reason": ran.finish_reason,
            "empty_cause": self.empty_cause,
            "score_range": ran.score_range,
            "total_ms": self.total_ms,
            "part_ms": self.part_ms,
            "tokens_kept_by_layer": ran.tokens_kept_by_layer,
            "picture": self.picture,
            "latency_asked": ran.latency_asked,
            "groups_run": ran.groups_run,
            "groups_per_layer": ran.groups_per_layer,
            "engine": ran.engine,
        }


def of_answer(model: "AdaLlava", output: "AdaLlavaOutput", total_ms: float) -> BudgetResult:
    """Return the result of a batch of one sample."""
    from adallava.runs.empty_causes import classify_empty, eos_ids_of

    special_ids = model.processor.tokenizer.all_special_ids
    cause = classify_empty(output.text[0], output.answer_ids[0], eos_ids_of(model), special_ids)
    return BudgetResult(output.records[0], output.text[0], cause, total_ms, output.part_ms)
