"""One batch of samples through one method at one budget, and what is recorded about each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from adallava.costs.parts import ModelCosts
from adallava.measuring.machine_load import cpu_by_others, read_load
from adallava.measuring.peak_memory import peak_memory_bytes, reset_peak_memory
from adallava.model import AdaLlava
from adallava.pipeline.clock import StageClock
from adallava.pipeline.decoding import generate_arguments
from adallava.pipeline.result import AdaLlavaOutput
from adallava.records import Decoding, RunConfig, SampleRecord, WhatRan
from adallava.records.cells import CellPlan, sample_seed
from adallava.runs.answer_flops import count_flops, count_kv_bytes
from adallava.runs.batches import BatchStore, PreparedBatch, describe_error
from adallava.runs.empty_causes import classify_empty
from adallava.tasks import TaskSample
from adallava.tasks.task import Scorer

Batch = Sequence[TaskSample]
Preparing = Callable[[Batch], PreparedBatch]


@dataclass(frozen=True)
class Answerer:
    """A model with one method, and the settings that all its answers share.

    Attributes:
        model: holds the method.
        costs: of the parts of the model without the method, for its FLOPs; None where these cannot be counted.
        config: of the run, resolved.
        score: of a response to a sample.
    """

    model: AdaLlava
    costs: ModelCosts | None
    config: RunConfig
    score: Scorer

    def answer(self, plan: CellPlan, draw: int, batch: PreparedBatch) -> list[SampleRecord]:
        """Answer a batch and return one record a sample, those that could not be read last.

        Raises:
            Exception: whatever the model raises; no record is made then.
        """
        failed = [failed_record(plan, draw, sample, error) for sample, error in batch.failures]
        if not batch.samples:
            return failed
        run = self.run(plan, draw, batch, max_new_tokens=self.config.max_new_tokens)
        answered = [self._record(plan, draw, batch, row, run) for row in range(len(batch.samples))]
        return answered + failed

    def run(self, plan: CellPlan, draw: int, batch: PreparedBatch, **lengths: Any) -> "BatchRun":
        """Generate once for a batch that holds a sample. It is on the device before the clock starts.

        Where tokens are drawn at random, they follow from the run's seed, the batch's samples and the draw alone.

        Args:
            plan: the cell.
            draw: of a method that draws at random.
            batch: of prompts and images.
            lengths: of the answers, as `generate` names them.
        """
        device = self.model.device
        clock = StageClock(device)
        inputs: dict[str, Any] = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        reset_peak_memory(device)
        ids = [sample.id for sample in batch.samples]
        with _drawing(sample_seed(self.config.seed, "\n".join(ids), draw) if self._decoding.samples else None, device):
            load, start = read_load(), time.perf_counter()
            output = self.model.generate(
                **inputs,
                **plan.call(),
                seed=[sample_seed(self.config.seed, sample_id, draw) for sample_id in ids],
                clock=clock,
                **{**generate_arguments(self._decoding), **lengths},
            )
        batch_ms = (time.perf_counter() - start) * 1000.0
        others = cpu_by_others(load, read_load())
        return BatchRun(output, batch_ms, len(batch.samples), output.part_ms or {}, peak_memory_bytes(device), others)

    def give_back_memory(self) -> None:
        """Give back what engines and the allocator hold between calls, after a batch that did not fit."""
        self.model.release()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _record(self, plan: CellPlan, draw: int, batch: PreparedBatch, row: int, run: "BatchRun") -> SampleRecord:
        output, ran, response = run.output, run.output.records[row], run.output.text[row]
        # A search goes on past its best answer, for the whole batch: what it took is what it cost.
        beams = self._decoding.num_beams
        decoded = (output.num_steps if beams > 1 else ran.answer_length, beams)
        sample = batch.samples[row]
        return SampleRecord(
            **_asked(plan, draw, sample),
            ran=ran,
            response=response,
            score=self.score(sample, response),
            picture_sha256=batch.picture_sha256[row],
            frames=batch.frames.get(sample.id),
            kv_bytes=count_kv_bytes(self.model, self.costs, ran, *decoded),
            empty_cause=classify_empty(response, output.answer_ids[row], self._eos_ids, self._special_ids),
            batch_ms=run.batch_ms,
            batch_size=run.batch_size,
            part_ms={part: ms / run.batch_size for part, ms in run.part_ms.items()},
            flops=count_flops(self.model, self.costs, ran, sample.question, *decoded),
            peak_memory_bytes=run.peak_memory_bytes,
            cpu_by_others=run.cpu_by_others,
        )

    @property
    def _decoding(self) -> Decoding:
        assert self.config.decoding is not None
        return self.config.decoding

    @cached_property
    def _eos_ids(self) -> frozenset[int]:
        return frozenset(self._decoding.eos_token_ids)

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
        cpu_by_others: see `SampleRecord.cpu_by_others`.
    """

    output: AdaLlavaOutput
    batch_ms: float
    batch_size: int
    part_ms: dict[str, float]
    peak_memory_bytes: int
    cpu_by_others: float | None = None


def answer_batch(
    answerer: Answerer, plan: CellPlan, draw: int, store: BatchStore, samples: Sequence[TaskSample]
) -> list[SampleRecord]:
    """Answer samples as one batch; if that raises, in smaller ones, so that a bad sample fails alone.

    What does not fit into memory is halved until it does; after any other error each sample is answered alone.

    Returns one record a sample, in the batch's order.
    """
    return _answer(answerer, plan, draw, store.prepared, store.prepare, samples)


def _answer(
    answerer: Answerer, plan: CellPlan, draw: int, prepare: Preparing, prepare_part: Preparing, samples: Batch
) -> list[SampleRecord]:
    try:
        records = answerer.answer(plan, draw, prepare(samples))
    except Exception as error:  # the run must go on, whatever one sample does to the model
        reason, is_memory = describe_error(error), isinstance(error, torch.OutOfMemoryError | MemoryError)
    else:
        by_id = {record.sample_id: record for record in records}
        return [by_id[sample.id] for sample in samples]
    # Outside the handler: the exception would keep the failed batch's tensors alive.
    if is_memory:
        answerer.give_back_memory()
    if len(samples) == 1:
        return [failed_record(plan, draw, samples[0], reason)]
    size = (len(samples) + 1) // 2 if is_memory else 1
    parts = [samples[i : i + size] for i in range(0, len(samples), size)]
    return [r for part in parts for r in _answer(answerer, plan, draw, prepare_part, prepare_part, part)]


@contextmanager
def _drawing(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw tokens from a seed, and leave torch's own generators as they were; None draws none."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _asked(plan: CellPlan, draw: int, sample: TaskSample) -> dict[str, Any]:
    """Return the fields of a record that are known before anything runs."""
    return {
        "cell": plan.cell,
        "sample_id": sample.id,
        "draw": draw,
        "question": sample.question,
        "answers": list(sample.answers),
        "kind": sample.kind,
    }


def failed_record(plan: CellPlan, draw: int, sample: TaskSample, error: str) -> SampleRecord:
    """Return the record of a sample without an answer: no score, all counts 0."""
    return SampleRecord(
        **_asked(plan, draw, sample),
        ran=WhatRan.nothing(
            method=plan.method,
            budget_asked=plan.budget_asked,
            positions=plan.positions,
            scheduler=plan.scheduler,
            latency_asked=plan.latency_asked,
        ),
        response="",
        score=None,
        empty_cause="error",
        batch_ms=0.0,
        batch_size=0,
        part_ms={},
        flops={},
        error=error,
    )
