"""Timing as users feel it: the same warm batch through every cell, again and again, in turns.

The full-token model is a cell like any other: the same code, the same repeats.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from adallava.measuring.machine_load import load_between, read_load
from adallava.measuring.turns import Turns, spread_of, take_turns
from adallava.records import PART_NAMES, MachineLoad, Timing, TimingRecord
from adallava.records.cells import CellPlan
from adallava.records.journal import read_timings, write_timings
from adallava.runs.answering import Answerer
from adallava.runs.batches import PreparedBatch, describe_error
from adallava.runs.observer import SweepObserver
from adallava.tasks import TaskSample

WARM_UPS = 2
"""Rounds that are not recorded."""

REPEATS = 10
"""Rounds that are."""

NEW_TOKENS = 9
"""Tokens that every row generates, EOS or not: 8 decoding steps, the same for all."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Measurement:
    """One pass of a batch through one cell: milliseconds by part, and the peak of memory."""

    part_ms: Mapping[str, float]
    peak_memory_bytes: int


@dataclass(frozen=True)
class TimedSize:
    """All cells at one batch size.

    Attributes:
        records: one a cell; none where nothing could be timed.
        note: why nothing could; empty otherwise.
    """

    records: tuple[TimingRecord, ...]
    note: str = ""


def time_cells(
    folder: Path,
    plans: Sequence[CellPlan],
    batch_sizes: Sequence[int],
    time_one: Callable[[int], TimedSize],
    observer: SweepObserver,
) -> list[TimingRecord]:
    """Time every cell at every batch size that `timings.jsonl` does not hold yet, and return all of the file.

    A batch size is one measurement: its lines are written together when all its cells are done. Killed before, it is
    timed again as a whole, since cells that took no turns with each other do not compare.

    Args:
        folder: the locked run folder.
        plans: the cells.
        batch_sizes: to time at.
        time_one: times the cells at one of them, wherever the model is.
        observer: hears about each batch size, and about cells that could not be timed.

    Raises:
        RunFolderError: for a damaged `timings.jsonl`.
    """
    names = {plan.cell for plan in plans}
    there = read_timings(folder)
    complete = {size for size in batch_sizes if names <= {line.cell for line in there if line.batch_size == size}}
    timings = [line for line in there if line.batch_size in complete]
    for size in batch_sizes:
        if size in complete:
            continue
        observer.timing(size, len(plans))
        timed = time_one(size)
        if timed.note:
            observer.note(timed.note)
            continue
        for record in timed.records:
            if record.error is not None:
                observer.note(f"{record.cell} is not timed at batch size {size}: {record.error}")
        timings += timed.records
        write_timings(folder, timings)
    return timings


def time_size(
    answerers: Mapping[str, Answerer],
    plans: Sequence[CellPlan],
    batch_size: int,
    samples: Sequence[TaskSample],
    prepare: Callable[[Sequence[TaskSample]], PreparedBatch],
    device: torch.device = _CPU,
) -> TimedSize:
    """Time every cell at one batch size.

    Args:
        answerers: by `CellPlan.runner`.
        plans: the cells.
        batch_size: to time at.
        samples: the task's; the first ones that can be read are used, repeated if they are too few.
        prepare: makes a batch.
        device: whose load is recorded.
    """
    try:
        batch = timing_batch(samples, batch_size, prepare)
    except MemoryError as error:
        why = f"whose images do not fit: {describe_error(error)}"
        return TimedSize((), f"nothing is timed at batch size {batch_size}, {why}")
    if batch is None:
        why = "none of the task's first images can be read"
        return TimedSize((), f"nothing is timed at batch size {batch_size}: {why}")
    return TimedSize(tuple(time_batch(answerers, plans, batch, device)))


def timing_batch(
    samples: Sequence[TaskSample], size: int, prepare: Callable[[Sequence[TaskSample]], PreparedBatch]
) -> PreparedBatch | None:
    """Return a batch of exactly `size` of the first readable samples, repeated if needed; None if none is readable."""
    readable = prepare(samples[:size]).samples
    return prepare(list(islice(cycle(readable), size))) if readable else None


def time_batch(
    answerers: Mapping[str, Answerer], plans: Sequence[CellPlan], batch: PreparedBatch, device: torch.device = _CPU
) -> list[TimingRecord]:
    """Send one batch through all cells in turns. A cell that fails once is left out from then on, with its reason."""
    cells = {plan.cell: partial(measure, answerers[plan.runner], plan, batch) for plan in plans}
    before = read_load()
    turns = take_turns(cells, warm_ups=WARM_UPS, repeats=REPEATS, describe=describe_error)
    machine = load_between(before, read_load(), device)
    return [_record(plan.cell, len(batch.samples), turns[plan.cell], machine) for plan in plans]


def measure(answerer: Answerer, plan: CellPlan, batch: PreparedBatch) -> Measurement:
    """Generate `NEW_TOKENS` tokens for each row, and read the clock between the parts (events on CUDA).

    The batch is on the device before the clock starts: reading and preparing images is not timed.
    """
    run = answerer.run(plan, 0, batch, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS)
    return Measurement(run.part_ms, run.peak_memory_bytes)


def sum_up(batch_size: int, measurements: Sequence[Measurement], machine: MachineLoad | None = None) -> Timing:
    """Return medians and percentiles over the repeats; sums are taken within a repeat, before that."""
    totals = [sum(one.part_ms.values()) for one in measurements]
    decoding = [one.part_ms.get("decode", 0.0) for one in measurements]
    parts = {
        part: [one.part_ms.get(part, 0.0) for one in measurements]
        for part in PART_NAMES
        if any(part in one.part_ms for one in measurements)
    }
    parts["time_to_first_token"] = [total - decode for total, decode in zip(totals, decoding, strict=True)]
    parts["total"] = totals
    parts["decode_per_token"] = [decode / (NEW_TOKENS - 1) for decode in decoding]
    return Timing(
        batch_size=batch_size,
        repeats=len(measurements),
        part_ms={part: spread_of(values) for part, values in parts.items()},
        peak_memory_bytes=max(one.peak_memory_bytes for one in measurements),
        drift=_drift(parts["time_to_first_token"]),
        machine=machine,
    )


def _drift(values: Sequence[float]) -> float | None:
    """Return the last third's median over the first third's; None of fewer than three values, or of nothing."""
    third = len(values) // 3
    first, last = (float(np.median(part)) if third else 0.0 for part in (values[:third], values[len(values) - third :]))
    return last / first if first > 0.0 else None


def _record(cell: str, batch_size: int, turns: Turns[Measurement], machine: MachineLoad) -> TimingRecord:
    timing = sum_up(batch_size, turns.results, machine) if turns.error is None else None
    return TimingRecord(cell=cell, batch_size=batch_size, timing=timing, error=turns.error)
