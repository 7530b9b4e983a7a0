"""What `generate` and `select` return: one meaning of every length, at every budget and batch size."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from adallava.families.capabilities.of_llms import window_tokens
from adallava.pipeline.call import Request
from adallava.pipeline.checked import check_indices
from adallava.pipeline.clock import StageClock
from adallava.pipeline.layout import Layout
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.pack import CompactBatch
from adallava.pipeline.prepare import Prepared
from adallava.pipeline.program import LLMRun
from adallava.records import FULL_METHOD, FinishReason, WhatRan
from adallava.scheduling.scheduler_contract import Schedule, Scheduler
from adallava.selection.selector_contract import Selection


@dataclass(frozen=True)
class Generated:
    """What an engine made of a batch.

    Attributes:
        result: as transformers' `generate` returns it: `sequences` [rows, prompt + new], and what else was asked for.
        num_steps: how often the LLM ran, the prefill included.
        engine: that made it.
        passed_over: why no engine before it in the order of preference did; empty if none was.
    """

    result: Any
    num_steps: int
    engine: str
    passed_over: str = ""


@dataclass(frozen=True)
class AdaLlavaOutput:
    """The answers to a batch of B samples, R returns each, in rows b * R + r.

        row    pad pad  t  v  v  t  t | a  a EOS pad       P = 7, A = 4
               `---- prompt_length --'                     prompt_lengths[row] = 5, answer_lengths[row] = 3

    Attributes:
        sequences: [B * R, P + A] the shortened prompt, left-padded to P, then the new tokens, right-padded.
        prompt_length: P, the column at which every row's answer begins.
        text: each row's decoded answer, without special tokens and surrounding white space.
        records: what ran, for each row.
        part_ms: measured milliseconds of the batch by part, if a clock was given.
        num_steps: passes of the LLM that the batch took, the prefill among them; a search with beams goes on past its
            best answer.
        transformers_output: transformers' own result, for scores or logits that were asked for.
    """

    sequences: Tensor = field(repr=False)
    prompt_length: int
    text: tuple[str, ...]
    records: tuple[WhatRan, ...] = field(repr=False)
    part_ms: dict[str, float] | None
    num_steps: int
    transformers_output: Any = field(repr=False)

    @property
    def engine(self) -> str | None:
        """What ran the LLM."""
        return self.records[0].engine

    @property
    def passed_over(self) -> str:
        """Why no engine before it in the order of preference did; empty if none was."""
        return self.records[0].passed_over

    @property
    def prompt_lengths(self) -> tuple[int, ...]:
        """Real tokens of each row's prompt."""
        return tuple(record.prompt_length for record in self.records)

    @property
    def answer_lengths(self) -> tuple[int, ...]:
        """New tokens of each row, EOS included, padding excluded."""
        return tuple(record.answer_length for record in self.records)

    @property
    def finish_reasons(self) -> tuple[FinishReason | None, ...]:
        """Whether each row ended by itself (`eos`) or was cut (`length`)."""
        return tuple(record.finish_reason for record in self.records)

    @property
    def answer_ids(self) -> list[list[int]]:
        """Each row's new tokens, EOS included, padding excluded."""
        answers = self.sequences[:, self.prompt_length :].tolist()
        return [answer[:length] for answer, length in zip(answers, self.answer_lengths, strict=True)]


@dataclass(frozen=True)
class ForwardOutput:
    """What `AdaLlava.forward` returns.

    Attributes:
        loss: mean cross-entropy over the labels that are not -100; None without labels.
        logits: [B, Lc, V].
        batch: the shortened batch that the LLM's last layer read, its labels among it: what the logits belong to.
        layout: where its tokens come from.
        selection: the choice; None if no vision token was looked at.
        schedule: which units of the LLM ran; None if all did.
        transformers_output: transformers' own result, for hidden states, attentions or a cache that were asked for.
    """

    loss: Tensor | None
    logits: Tensor
    batch: CompactBatch
    layout: Layout
    selection: Selection | None
    schedule: Schedule | None = None
    transformers_output: Any = None

    def to_tuple(self) -> tuple[Tensor, ...]:
        """Return (loss, logits), or (logits,) without labels: how a stock `forward(return_dict=False)` begins."""
        return (self.logits,) if self.loss is None else (self.loss, self.logits)


def measure_answers(
    new_tokens: Tensor, eos_token_ids: Collection[int]
) -> tuple[tuple[int, ...], tuple[FinishReason, ...]]:
    """Return each row's answer length and finish reason.

    An answer ends with its first EOS, whatever padding is written with after it; without one it fills the row.

    Args:
        new_tokens: [rows, A] int64, right-padded.
        eos_token_ids: any of them ends an answer.
    """
    lengths: list[int] = []
    reasons: list[FinishReason] = []
    for row in new_tokens.tolist():
        end = next((place for place, token in enumerate(row) if token in eos_token_ids), None)
        lengths.append(len(row) if end is None else end + 1)
        reasons.append("length" if end is None else "eos")
    return tuple(lengths), tuple(reasons)


def describe_choice(
    prepared: Prepared, request: Request, scheduler: Scheduler | None, window: int | None = None
) -> tuple[WhatRan, ...]:
    """Read a batch's choice back from the device, per sample; of an answer nothing is known yet.

    Args:
        prepared: what the LLM reads, or has read.
        request: as it was planned.
        scheduler: the model's.
        window: the LLM's narrowest sliding window; None without one.

    Raises:
        AdallavaError: if a method's indices are not ascending, unique and within the image.
    """
    selector = prepared.selector
    method = FULL_METHOD if selector is None else selector.name
    ignores_budget = selector is not None and selector.ignores_budget
    kept, ranges = _kept_indices(method, prepared), _score_ranges(prepared)
    described, first = [], 0
    for number, prompt in enumerate(prepared.layout.prompts):
        inside = None if prepared.inside is None else prepared.inside[number]
        images = slice(first, first + prompt.num_images)
        first, shown = images.stop, range(first, images.stop)
        described.append(
            WhatRan(
                method=method,
                budget_asked="none" if ignores_budget else str(prompt.budget),
                positions=request.positions,
                num_vision_tokens=prompt.num_vision_tokens,
                tokens_asked=prompt.tokens_asked,
                tokens_planned=sum(prompt.keep_counts) if inside is None else inside.tokens_by_layer[-1],
                tokens_kept=sum(map(len, kept[images])) if inside is None else inside.tokens_by_layer[0],
                tokens_kept_by_layer=None if inside is None else inside.tokens_by_layer,
                kept_indices=tuple(kept[images]),
                grids=prepared.grids[images],
                whole_images=tuple(one - images.start for one in prepared.whole_images if one in shown),
                scheduler=None if scheduler is None else scheduler.name,
                latency_asked=str(request.latencies[number]),
                **_layers_run(prepared, number),
                merged=selector is not None and selector.merges,
                chosen_per_sample=selector is not None and selector.per_sample,
                prompt_length=prompt.length,
                answer_length=0,
                finish_reason=None,
                score_range=ranges(images),
                tower_runs=prepared.tower_runs[images],
                window_tokens=window,
                text_behind_images=() if inside is None else inside.text_behind_images,
            )
        )
    return tuple(described)


def read_answers(
    made: Generated,
    plan: GenerationPlan,
    run: LLMRun,
    *,
    processor: Any,
    scheduler: Scheduler | None,
    clock: StageClock | None,
) -> AdaLlavaOutput:
    """Read what an engine made: the one place where answers are cut from sequences and measured."""
    prepared = run.settled()
    prompt_length = prepared.batch.input_ids.shape[1]
    new_tokens = made.result.sequences[:, prompt_length:]
    lengths, reasons = measure_answers(new_tokens, plan.eos_token_ids)
    answers = [row[:length] for row, length in zip(new_tokens.tolist(), lengths, strict=True)]
    chosen = describe_choice(prepared, run.request, scheduler, window_tokens(run.family))
    by = {"engine": made.engine, "passed_over": made.passed_over}
    records = tuple(
        chosen[row // plan.num_return_sequences].model_copy(
            update={"answer_length": length, "finish_reason": reason, **by}
        )
        for row, (length, reason) in enumerate(zip(lengths, reasons, strict=True))
    )
    texts = processor.batch_decode(answers, skip_special_tokens=True)
    return AdaLlavaOutput(
        sequences=made.result.sequences,
        prompt_length=prompt_length,
        text=tuple(text.strip() for text in texts),
        records=records,
        part_ms=None if clock is None else clock.part_ms(),
        num_steps=made.num_steps,
        transformers_output=made.result,
    )


def _layers_run(prepared: Prepared, number: int) -> dict[str, Any]:
    if prepared.layers is None:
        return {}
    ran = prepared.layers[number]
    return {"groups_run": ran.groups_run, "groups_per_layer": ran.groups, "latency_tokens": ran.latency_tokens}


def _score_ranges(prepared: Prepared) -> Callable[[slice], tuple[float, float] | None]:
    """Return what gives the lowest and highest score over some images of the batch."""
    selection = prepared.selection
    scores = None if selection is None or selection.scores is None else selection.scores.detach().float().cpu()

    def of_images(images: slice) -> tuple[float, float] | None:
        """Return the least and the highest score of some images; None without any."""
        if scores is None or scores[images].numel() == 0:
            return None
        return float(scores[images].min()), float(scores[images].max())

    return of_images


def _kept_indices(method: str, prepared: Prepared) -> list[tuple[int, ...]]:
    selection = prepared.selection
    if selection is None:
        return [()] * len(prepared.layout.keep_counts)
    return check_indices(method, selection, prepared.layout.tokens_per_image)
