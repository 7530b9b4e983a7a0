"""One batch of samples through one method at one budget, and what is recorded about each."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adallava.costs.shapes import ModelShape
from adallava.generation.clock import StageClock
from adallava.generation.output import AdaLlavaOutput
from adallava.model import AdaLlava
from adallava.picture_frames import Frame
from adallava.records import SampleRecord
from adallava.tasks import TaskSample
from adallava.tasks.task import Scorer

from .answer_flops import count_flops, count_kv_bytes
from .batches import BatchStore, PreparedBatch, describe_error
from .empties import classify_empty, eos_ids_of
from .peak_memory import peak_memory_bytes, reset_peak_memory
from .plan import CellPlan, sample_seed


@dataclass(frozen=True)
class Answerer:
    """A model with one method, and the settings that all its answers share.

    Attributes:
        model: holds the method.
        base_shape: of the model without the method, for its FLOPs.
        seed: of the run.
        max_new_tokens: after which an answer is cut.
        score: of a response to a sample.
    """

    model: AdaLlava
    base_shape: ModelShape
    seed: int
    max_new_tokens: int
    score: Scorer

    def answer(self, plan: CellPlan, draw: int, batch: PreparedBatch) -> list[SampleRecord]:
        """Answer a batch and return one record a sample, those that could not be read last.

        Raises:
            Exception: whatever the model raises; no record is made then.
        """
        failed = [failed_record(plan, draw, sample, error) for sample, error in batch.failures]
        if not batch.samples:
            return failed
        run = self.run(plan, draw, batch, max_new_tokens=self.max_new_tokens)
        answered = [
            self._record(plan, draw, sample, row, run, batch.frames.get(sample.id))
            for row, sample in enumerate(batch.samples)
        ]
        return answered + failed

    def run(self, plan: CellPlan, draw: int, batch: PreparedBatch, **lengths: Any) -> "BatchRun":
        """Generate once, greedily, for a batch that holds a sample. It is on the device before the clock starts.

        Args:
            plan: the cell.
            draw: of a method that draws at random.
            batch: of prompts and pictures.
            lengths: of the answers, as `generate` names them.
        """
        device = self.model.device
        clock = StageClock(device)
        inputs: dict[str, Any] = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        reset_peak_memory(device)
        start = time.perf_counter()
        output = self.model.generate(
            **inputs,
            token_budget=1.0 if plan.budget is None else plan.budget,
            latency=1.0 if plan.latency is None else plan.latency,
            seed=[sample_seed(self.seed, sample.id, draw) for sample in batch.samples],
            positions=plan.positions,
            clock=clock,
            **lengths,
            do_sample=False,
        )
        batch_ms = (time.perf_counter() - start) * 1000.0
        return BatchRun(output, batch_ms, len(batch.samples), output.part_ms or {}, peak_memory_bytes(device))

    def _record(
        self, plan: CellPlan, draw: int, sample: TaskSample, row: int, run: "BatchRun", frame: Frame | None
    ) -> SampleRecord:
        output, ran, response = run.output, run.output.records[row], run.output.text[row]
        return SampleRecord(
            **_asked(plan, draw, sample),
            response=response,
            score=self.score(sample, response),
            num_vision_tokens=ran.num_vision_tokens,
            tokens_asked=ran.tokens_asked,
            tokens_kept=ran.tokens_kept,
            tokens_kept_by_layer=None if ran.tokens_kept_by_layer is None else list(ran.tokens_kept_by_layer),
            tokens_planned=ran.tokens_planned,
            kept_indices=[list(indices) for indices in ran.kept_indices],
            grids=list(ran.grids),
            frames=None if frame is None else [frame],
            groups_run=None if ran.layers is None else [list(run) for run in ran.layers.groups_run],
            groups_per_layer=1 if ran.layers is None else ran.layers.groups,
            latency_tokens=0 if ran.layers is None else ran.layers.latency_tokens,
            kv_bytes=count_kv_bytes(self.model, self.base_shape, ran, output.answer_lengths[row]),
            merged=self.model.selector is not None and self.model.selector.merges,
            chosen_per_sample=self.model.selector is not None and self.model.selector.per_sample,
            prompt_length=output.prompt_lengths[row],
            answer_length=output.answer_lengths[row],
            finish_reason=output.finish_reasons[row],
            empty_cause=classify_empty(response, output.answer_ids[row], self._eos_ids, self._special_ids),
            batch_ms=run.batch_ms,
            batch_size=run.batch_size,
            part_ms={part: ms / run.batch_size for part, ms in run.part_ms.items()},
            flops=count_flops(self.model, self.base_shape, ran, sample.question, output.answer_lengths[row]),
            peak_memory_bytes=run.peak_memory_bytes,
        )

    @cached_property
    def _eos_ids(self) -> frozenset[int]:
        return eos_ids_of(self.model)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.model.processor.tokenizer.all_special_ids)


@dataclass(frozen=True)
class BatchRun:
    """One batch answered, and what was measured of it as a whole.

    Attributes:
        output: the answers.
        batch_ms: wall time.
        batch_size: samples.
        part_ms: milliseconds by part.
        peak_memory_bytes: see `SampleRecord.peak_memory_bytes`.
    """

    output: AdaLlavaOutput
    batch_ms: float
    batch_size: int
    part_ms: dict[str, float]
    peak_memory_bytes: int


def answer_batch(answerer: Answerer, plan: CellPlan, draw: int, store: BatchStore, number: int) -> list[SampleRecord]:
    """Answer a stored batch; if that raises, its samples one by one, so that a bad one fails alone.

    Returns one record a sample, in the batch's order.
    """
    samples = store.batches[number]
    try:
        records = answerer.answer(plan, draw, store.prepared(number))
    except Exception as error:  # the run must go on, whatever one sample does to the model
        reason = describe_error(error)
    else:
        by_id = {record.sample_id: record for record in records}
        return [by_id[sample.id] for sample in samples]
    # Outside the handler: the exception would keep the failed batch's tensors alive.
    if len(samples) == 1:
        return [failed_record(plan, draw, samples[0], reason)]
    return [_answer_alone(answerer, plan, draw, store, sample) for sample in samples]


def _answer_alone(answerer: Answerer, plan: CellPlan, draw: int, store: BatchStore, sample: TaskSample) -> SampleRecord:
    try:
        (record,) = answerer.answer(plan, draw, store.prepare([sample]))
    except Exception as error:  # as above
        return failed_record(plan, draw, sample, describe_error(error))
    return record


def _asked(plan: CellPlan, draw: int, sample: TaskSample) -> dict[str, Any]:
    """Return the fields of a record that are known before anything runs."""
    return {
        "cell": plan.cell,
        "sample_id": sample.id,
        "draw": draw,
        "positions": plan.positions,
        "question": sample.question,
        "answers": list(sample.answers),
        "kind": sample.kind,
        "method": plan.method,
        "budget_asked": plan.budget_asked,
        "scheduler": plan.scheduler,
        "latency_asked": plan.latency_asked,
    }


def failed_record(plan: CellPlan, draw: int, sample: TaskSample, error: str) -> SampleRecord:
    """Return the record of a sample without an answer: no score, all counts 0."""
    return SampleRecord(
        **_asked(plan, draw, sample),
        response="",
        score=None,
        num_vision_tokens=0,
        tokens_asked=0,
        tokens_kept=0,
        prompt_length=0,
        answer_length=0,
        finish_reason="error",
        empty_cause="error",
        batch_ms=0.0,
        batch_size=0,
        part_ms={},
        flops={},
        error=error,
    )
