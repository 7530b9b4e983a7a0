"""What `generate` and `select` return: one meaning of every length, at every budget and batch size."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from adallava.pipeline.checked import check_indices
from adallava.pipeline.clock import StageClock
from adallava.pipeline.layout import Layout
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.pack import CompactBatch
from adallava.pipeline.prepare import Prepared
from adallava.pipeline.skips import SampleLayers
from adallava.records import FULL_METHOD
from adallava.scheduling.contract import Schedule
from adallava.selection.contract import Selection

FinishReason = Literal["eos", "length"]


@dataclass(frozen=True)
class SampleSelection:
    """What was kept of one sample.

    Attributes:
        method: that chose.
        budget_asked: in the form `TokenBudget` prints; "none" for a method that ignores it.
        num_vision_tokens: N, over all images of the sample.
        tokens_asked: K the budget resolves to.
        tokens_planned: K the method can keep of it: less for a `RoundingMethod`.
        tokens_kept: vision tokens that enter the LLM's first layer: all N, of a method inside the LLM.
        kept_indices: per image, ascending, at the end; of a merging method, the patches that stand for the merged
            tokens.
        llm_sequence_length: tokens of the prompt that enter the LLM, padding excluded.
        grids: (rows, columns) of each image's tokens.
        tower_runs: pictures that the tower runs on for each image: 1, or its tiles.
        scores: [images, N] float32 on the CPU that the choice was made from, for methods that score.
        tokens_kept_by_layer: vision tokens that each LLM layer reads, for a method inside the LLM; else None.
        text_behind_images: text tokens that may judge each image, for a method inside the LLM; else None.
        layers: what ran of the LLM, once it ran; None if all layers did for the whole batch.
    """

    method: str
    budget_asked: str
    num_vision_tokens: int
    tokens_asked: int
    tokens_planned: int
    tokens_kept: int
    kept_indices: tuple[tuple[int, ...], ...]
    llm_sequence_length: int
    grids: tuple[tuple[int, int], ...]
    tower_runs: tuple[int, ...]
    scores: Tensor | None
    tokens_kept_by_layer: tuple[int, ...] | None = None
    text_behind_images: tuple[int, ...] | None = None
    layers: SampleLayers | None = None

    @property
    def tokens_at_end(self) -> int:
        """Vision tokens that the LLM's last layer reads: what the budget's K counts."""
        return self.tokens_kept if self.tokens_kept_by_layer is None else self.tokens_kept_by_layer[-1]

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score over the sample's images."""
        if self.scores is None or self.scores.numel() == 0:
            return None
        return float(self.scores.min()), float(self.scores.max())


@dataclass(frozen=True)
class RunRecord:
    """What ran for one row of the output. See `SampleSelection` for the fields they share.

    Attributes:
        method: that chose.
        budget_asked: as asked.
        num_vision_tokens: N.
        tokens_asked: K asked for.
        tokens_planned: K the method can keep of it.
        tokens_kept: vision tokens that entered the LLM.
        kept_indices: per image.
        positions: "original" or "compact".
        llm_sequence_length: real tokens of the shortened prompt; the row's prompt length.
        grids: (rows, columns) of each image's tokens.
        tower_runs: pictures that the tower runs on for each image.
        score_range: lowest and highest score, for methods that score.
        tokens_kept_by_layer: for a method inside the LLM.
        text_behind_images: for a method inside the LLM.
        layers: what ran of the LLM; None if all layers did for the whole batch.
    """

    method: str
    budget_asked: str
    num_vision_tokens: int
    tokens_asked: int
    tokens_planned: int
    tokens_kept: int
    kept_indices: tuple[tuple[int, ...], ...]
    positions: str
    llm_sequence_length: int
    grids: tuple[tuple[int, int], ...]
    tower_runs: tuple[int, ...]
    score_range: tuple[float, float] | None
    tokens_kept_by_layer: tuple[int, ...] | None = None
    text_behind_images: tuple[int, ...] | None = None
    layers: SampleLayers | None = None

    @property
    def tokens_at_end(self) -> int:
        """Vision tokens that the LLM's last layer read: what the budget's K counts."""
        return self.tokens_kept if self.tokens_kept_by_layer is None else self.tokens_kept_by_layer[-1]


@dataclass(frozen=True)
class AdaLlavaOutput:
    """The answers to a batch of B samples, R returns each, in rows b * R + r.

        row    pad pad  t  v  v  t  t | a  a EOS pad       P = 7, A = 4
               `---- prompt_length --'                     prompt_lengths[row] = 5, answer_lengths[row] = 3

    Attributes:
        sequences: [B * R, P + A] the shortened prompt, left-padded to P, then the new tokens, right-padded.
        prompt_length: P, the column at which every row's answer begins.
        prompt_lengths: real tokens of each row's prompt.
        answer_lengths: new tokens of each row, EOS included, padding excluded.
        finish_reasons: "eos" or "length" for each row.
        text: each row's decoded answer, without special tokens and surrounding white space.
        records: what ran, for each row.
        part_ms: measured milliseconds of the batch by part, if a clock was given.
        num_steps: passes of the LLM that the batch took, the prefill among them; a search with beams goes on past its
            best answer.
        transformers_output: transformers' own result, for scores or logits that were asked for.
        engine: that ran the LLM.
        passed_over: why no engine before it in the order of preference did; empty if none was.
    """

    sequences: Tensor
    prompt_length: int
    prompt_lengths: tuple[int, ...]
    answer_lengths: tuple[int, ...]
    finish_reasons: tuple[FinishReason, ...]
    text: tuple[str, ...]
    records: tuple[RunRecord, ...]
    part_ms: dict[str, float] | None
    num_steps: int
    transformers_output: Any
    engine: str = "stock"
    passed_over: str = ""

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

    An answer ends with its first EOS, whatever padding is written with behind it; without one it fills the row.

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


def describe_selections(prepared: Prepared) -> tuple[SampleSelection, ...]:
    """Read a batch's choice back from the device, per sample.

    Raises:
        AdallavaError: if a method's indices are not ascending, unique and within the image.
    """
    selector, selection = prepared.selector, prepared.selection
    method = FULL_METHOD if selector is None else selector.name
    ignores_budget = selector is not None and selector.ignores_budget
    kept = _kept_indices(method, prepared)
    scores = None if selection is None or selection.scores is None else selection.scores.detach().float().cpu()
    described, first = [], 0
    for number, prompt in enumerate(prepared.layout.prompts):
        inside = None if prepared.inside is None else prepared.inside[number]
        images = slice(first, first + len(prompt.spans))
        first = images.stop
        described.append(
            SampleSelection(
                method=method,
                budget_asked="none" if ignores_budget else str(prompt.budget),
                num_vision_tokens=prompt.num_vision_tokens,
                tokens_asked=prompt.tokens_asked,
                tokens_planned=sum(prompt.keep_counts) if inside is None else inside.tokens_by_layer[-1],
                tokens_kept=sum(map(len, kept[images])) if inside is None else inside.tokens_by_layer[0],
                kept_indices=tuple(kept[images]),
                llm_sequence_length=prompt.length,
                grids=prepared.grids[images],
                tower_runs=prepared.tower_runs[images],
                scores=None if scores is None else scores[images],
                tokens_kept_by_layer=None if inside is None else inside.tokens_by_layer,
                text_behind_images=None if inside is None else inside.text_behind_images,
                layers=None if prepared.layers is None else prepared.layers[number],
            )
        )
    return tuple(described)


def read_answers(
    result: Any,
    plan: GenerationPlan,
    prepared: Prepared,
    processor: Any,
    positions: str,
    clock: StageClock | None,
    num_steps: int,
) -> AdaLlavaOutput:
    """Read transformers' result: the one place where answers are cut from sequences and measured."""
    prompt_length = prepared.batch.input_ids.shape[1]
    new_tokens = result.sequences[:, prompt_length:]
    lengths, reasons = measure_answers(new_tokens, plan.eos_token_ids)
    answers = [row[:length] for row, length in zip(new_tokens.tolist(), lengths, strict=True)]
    records = records_of(describe_selections(prepared), positions, plan.num_return_sequences)
    texts = processor.batch_decode(answers, skip_special_tokens=True)
    return AdaLlavaOutput(
        sequences=result.sequences,
        prompt_length=prompt_length,
        prompt_lengths=tuple(record.llm_sequence_length for record in records),
        answer_lengths=lengths,
        finish_reasons=reasons,
        text=tuple(text.strip() for text in texts),
        records=records,
        part_ms=None if clock is None else clock.part_ms(),
        num_steps=num_steps,
        transformers_output=result,
    )


def records_of(
    selections: Sequence[SampleSelection], positions: str, num_return_sequences: int
) -> tuple[RunRecord, ...]:
    """Return one record per row: each sample's, once for each of its returns."""
    return tuple(
        RunRecord(
            method=sample.method,
            budget_asked=sample.budget_asked,
            num_vision_tokens=sample.num_vision_tokens,
            tokens_asked=sample.tokens_asked,
            tokens_planned=sample.tokens_planned,
            tokens_kept=sample.tokens_kept,
            kept_indices=sample.kept_indices,
            positions=positions,
            llm_sequence_length=sample.llm_sequence_length,
            grids=sample.grids,
            tower_runs=sample.tower_runs,
            score_range=sample.score_range,
            tokens_kept_by_layer=sample.tokens_kept_by_layer,
            text_behind_images=sample.text_behind_images,
            layers=sample.layers,
        )
        for sample in selections
        for _ in range(num_return_sequences)
    )


def _kept_indices(method: str, prepared: Prepared) -> list[tuple[int, ...]]:
    selection = prepared.selection
    if selection is None:
        return [()] * len(prepared.layout.keep_counts)
    return check_indices(method, selection, prepared.layout.tokens_per_image)
