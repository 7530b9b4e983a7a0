"""What `adallava generate` shows of one budget."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adallava.budget import Latency

if TYPE_CHECKING:
    from adallava.model import AdaLlava
    from adallava.pipeline.result import AdaLlavaOutput, SampleSelection


@dataclass(frozen=True)
class BudgetResult:
    """What one budget gave. Answer, lengths of it, reason and times are None without generation.

    Attributes:
        budget_asked: as asked for; "none" for a method that ignores it.
        answer: the text.
        num_vision_tokens: N over all images.
        tokens_asked: K the budget resolves to.
        tokens_kept: vision tokens that entered the LLM.
        tokens_kept_by_layer: that each LLM layer read, for a method inside the LLM.
        kept_indices: patches kept, by image.
        prompt_length: tokens that entered the LLM.
        answer_length: new tokens, EOS included.
        finish_reason: `eos` or `length`.
        empty_cause: why the answer is empty, if it is.
        score_range: lowest and highest score of a patch, for methods that score.
        total_ms: wall time of the call.
        part_ms: of which, by part.
        picture: the file with the kept patches.
        latency_asked: as asked for.
        groups_run: for each LLM layer, the groups of heads that ran; None where all did.
        groups_per_layer: groups that a layer is split into.
    """

    budget_asked: str
    answer: str | None
    num_vision_tokens: int
    tokens_asked: int
    tokens_kept: int
    kept_indices: tuple[tuple[int, ...], ...]
    prompt_length: int
    answer_length: int | None
    finish_reason: str | None
    empty_cause: str | None
    score_range: tuple[float, float] | None
    total_ms: float
    part_ms: dict[str, float] | None
    tokens_kept_by_layer: tuple[int, ...] | None = None
    picture: str | None = None
    latency_asked: str = "1.0"
    groups_run: tuple[tuple[int, ...], ...] | None = None
    groups_per_layer: int = 1

    @property
    def tokens_at_end(self) -> int:
        """Vision tokens that the LLM's last layer read."""
        return self.tokens_kept if self.tokens_kept_by_layer is None else self.tokens_kept_by_layer[-1]


def of_selection(selection: "SampleSelection", total_ms: float) -> BudgetResult:
    """Return the result of a choice without an answer."""
    return BudgetResult(
        budget_asked=selection.budget_asked,
        answer=None,
        num_vision_tokens=selection.num_vision_tokens,
        tokens_asked=selection.tokens_asked,
        tokens_kept=selection.tokens_kept,
        kept_indices=selection.kept_indices,
        prompt_length=selection.llm_sequence_length,
        answer_length=None,
        finish_reason=None,
        empty_cause=None,
        score_range=selection.score_range,
        total_ms=total_ms,
        part_ms=None,
        tokens_kept_by_layer=selection.tokens_kept_by_layer,
    )


def of_answer(model: "AdaLlava", output: "AdaLlavaOutput", latency: Latency, total_ms: float) -> BudgetResult:
    """Return the result of a batch of one sample."""
    from adallava.runs.empty_causes import classify_empty, eos_ids_of

    record = output.records[0]
    return BudgetResult(
        budget_asked=record.budget_asked,
        answer=output.text[0],
        num_vision_tokens=record.num_vision_tokens,
        tokens_asked=record.tokens_asked,
        tokens_kept=record.tokens_kept,
        kept_indices=record.kept_indices,
        prompt_length=output.prompt_lengths[0],
        answer_length=output.answer_lengths[0],
        finish_reason=output.finish_reasons[0],
        empty_cause=classify_empty(
            output.text[0],
            output.answer_ids[0],
            eos_ids_of(model),
            model.processor.tokenizer.all_special_ids,
        ),
        score_range=record.score_range,
        total_ms=total_ms,
        part_ms=output.part_ms,
        tokens_kept_by_layer=record.tokens_kept_by_layer,
        latency_asked=str(latency),
        groups_run=None if record.layers is None else record.layers.groups_run,
        groups_per_layer=1 if record.layers is None else record.layers.groups,
    )
