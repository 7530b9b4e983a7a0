"""Samples whose schedules run the same layers, put into one batch: a batch runs a layer if any of its samples does.

A scheduler with one plan for all leaves the batches as they are. One that draws is asked for its plans beforehand. One
that reads the prompt is read first, where an engine runs a layer for the whole batch: the tower and the prefix then run
once more, outside of what is timed. Stock `generate` gathers the rows that run a layer, so that there the reading would
cost more than it saves.
"""

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import torch

from adallava.families.capabilities.of_llms import decoder_of
from adallava.pipeline.allocate import allocate_units
from adallava.records.cells import CellPlan, sample_seed
from adallava.runs.answering import Answerer
from adallava.runs.batches import BatchStore
from adallava.runs.units import Batch
from adallava.scheduling.scheduler_contract import ScheduleInput, TokenScheduler, Units
from adallava.selection.layer_contract import LayerSelector

PlanById = dict[str, tuple[int, ...]]
"""Parts of layers that run for a sample, by its id: whatever sorts equal plans side by side."""


def sort_by_plan(
    answerer: Answerer, plan: CellPlan, draw: int, batches: Sequence[Batch], store: BatchStore
) -> Sequence[Batch]:
    """Return the samples of these batches in batches of the same sizes, those with one plan side by side.

    The same batches give the same ones again, so that a resumed sweep goes on with those it had. Where tokens are drawn
    at random the batches stay: what is drawn follows from who is in them.

    Args:
        answerer: of the cell.
        plan: the cell.
        draw: of a method or scheduler that draws.
        batches: of samples, in the task's order.
        store: prepares them.
    """
    chosen = {} if len(batches) < 2 else _plans(answerer, plan, draw, batches, store)
    if len(set(chosen.values())) < 2:
        return batches
    # A sample whose plan is not known cannot be read, and fails in any batch.
    ordered = iter(sorted(chain.from_iterable(batches), key=lambda sample: chosen.get(sample.id, ())))
    return [tuple(islice(ordered, len(batch))) for batch in batches]


def _plans(answerer: Answerer, plan: CellPlan, draw: int, batches: Sequence[Batch], store: BatchStore) -> PlanById:
    """Return each sample's plan; none where they are all alike, or not worth finding."""
    model, decoding = answerer.model, answerer.config.decoding
    scheduler = model.scheduler
    if scheduler is None or plan.latency is None or not scheduler.per_sample or decoding is None or decoding.samples:
        return {}
    units = scheduler.units(decoder_of(model.family).shape)
    (count,) = allocate_units([plan.latency], units)
    if count in (0, units.count):
        return {}
    if not isinstance(scheduler, TokenScheduler):
        ids = [sample.id for batch in batches for sample in batch]
        seeds = torch.tensor([sample_seed(answerer.config.seed, sample_id, draw) for sample_id in ids])
        drawn = scheduler.schedule(ScheduleInput(units, (count,) * len(ids), seeds))
        return {sample_id: tuple(row) for sample_id, row in zip(ids, drawn.active.int().tolist(), strict=True)}
    if not _runs_whole_batches(answerer, units):
        return {}
    read: PlanById = {}
    for batch in batches:
        read |= _read(answerer, plan, draw, batch, store)
    return read


def _runs_whole_batches(answerer: Answerer, units: Units) -> bool:
    """Return whether the engine in use runs a layer for all rows of a batch if it does for one."""
    model, decoding = answerer.model, answerer.config.decoding
    searches = decoding is not None and decoding.num_beams > 1
    inside = isinstance(model.selector, LayerSelector)
    return model.engine != "stock" and units.groups == 1 and not searches and not inside


def _read(answerer: Answerer, plan: CellPlan, draw: int, batch: Batch, store: BatchStore) -> PlanById:
    model = answerer.model
    try:
        prepared = store.prepared(batch)
        if not prepared.samples:
            return {}
        inputs: dict[str, Any] = {name: tensor.to(model.device) for name, tensor in prepared.inputs.items()}
        layers = model.read_layers(
            **inputs,
            **plan.call(),
            seed=[sample_seed(answerer.config.seed, sample.id, draw) for sample in prepared.samples],
        )
    except (
        Exception
    ):  # of one sample: it is reported when the batch is answered, and the others are then answered alone
        return {}
    assert layers is not None
    return {
        sample.id: tuple(int(bool(ran)) for ran in one.groups_run)
        for sample, one in zip(prepared.samples, layers, strict=True)
    }
