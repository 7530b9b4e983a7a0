"""Passes of the LLM with tokens dropped between its layers: each layer a graph, and the method between them as it is.

    layers 0, 1     p p p p p p p p | a a a        8 columns of the prompt
    layers 2, 3 …   p p p p . . . . | a a a        4 are left; what lies after them is not read

An answer's keys and values lie in the same columns of every layer, whatever was dropped: only what may be read differs.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from adallava.engines.decode_mode import DecodeMode
from adallava.engines.fused_layers import Stack
from adallava.engines.graph_store import GraphStore
from adallava.engines.layer_pass import (
    LayerStep,
    Pick,
    Segment,
    added_mask,
    enter_or_take_up,
    leave,
    leave_or_put_down,
    run_step,
)
from adallava.engines.placing import place_ends, place_plan
from adallava.engines.seat import MOST_STAGES, Seat
from adallava.families.family_contract import RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.pipeline.prepare import PreparedInside
from adallava.pipeline.program import LLMRun


@dataclass(frozen=True)
class DropStages:
    """The stages between a call's drops, as a graph's key.

    Attributes:
        starts: the first layer of each.
        compact: whether positions are counted again in each.
    """

    starts: tuple[int, ...]
    compact: bool

    def of_layer(self, layer: int) -> int:
        """Return the stage that a layer belongs to."""
        return bisect_right(self.starts, layer) - 1


def stages_of(inside: PreparedInside, *, compact: bool) -> DropStages:
    """Return the stages of a call."""
    return DropStages((0, *(drop.layer for drop in inside.plan.drops)), compact)


def refusal_inside(inside: PreparedInside) -> str | None:
    """Return why a call's drops cannot be run, in words; None if they can."""
    if len(inside.plan.layouts) > MOST_STAGES:
        return f"method {inside.selector.name!r} drops tokens {len(inside.plan.drops)} times"
    return None


def prefill_inside(
    stack: Stack, seat: Seat, store: GraphStore, run: LLMRun, mode: DecodeMode, pick: Pick
) -> tuple[LayerStep, ...]:
    """Run the prompts, drop between layers, leave logits, and the first token; return the layers that ran.

    Args:
        stack: the LLM.
        seat: of the batch's size.
        store: of graphs.
        run: what enters, what is dropped, and which layers run. All drops come before a layer that may be left out.
        mode: how to decode.
        pick: who chooses the first token.
    """
    assert run.inside is not None
    batch, layers = run.inside.prepared.batch, run.layers
    _place(seat, run.inside, batch.input_ids.shape[1], mode)
    states = batch.inputs_embeds
    # Of several rows, the first counts tokens, which masks are made of.
    of_text = batch.position_ids if batch.position_ids.dim() == 2 else batch.position_ids[0]
    positions = batch.position_ids if stack.position_rows == 1 else batch.position_ids[-stack.position_rows :]
    tables = stack.rotary(states, positions)
    mask = run.inside.drops.mask(0, states, run.inside.plan.layouts[0].padding_mask)
    inputs = LayerInputs(mask, tables, of_text, None)
    program = replace(run.program, skips=None)
    steps = tuple(map(LayerStep, range(len(stack.layers) if layers is None else layers.prefix_layers)))
    for step in steps:
        states = program.around(step.layer, _runner(stack, seat, store, step), states, inputs)
    if layers is not None:
        if not layers.is_decided:
            layers.decide_at(states)
        steps = place_plan(seat, layers)
        for step in steps[layers.prefix_layers :]:
            states = program.around(step.layer, _runner(stack, seat, store, step), states, inputs)
    last = positions[..., -1] if positions.dim() == 2 else positions[0, :, -1]
    for stage, shift in run.inside.drops.shifts.items():
        seat.stage_shifts[stage].copy_(shift - of_text[:, -1] + last)
    leave(stack, seat, states[:, -1], pick)
    return steps


def decode_inside(stack: Stack, seat: Seat, stages: DropStages, segment: Segment, *, pick: Pick) -> None:
    """Run part of a pass over the newest token of each row; see `layer_pass.decode`."""
    states, tables = enter_or_take_up(stack, seat, segment)
    written = torch.arange(seat.capacity, device=seat.slot.device) <= seat.slot
    for stage, steps in groupby(segment.layers, key=lambda step: stages.of_layer(step.layer)):
        own = tables
        if stages.compact and stage > 0:
            own = stack.rotary(states, seat.position - seat.stage_shifts[stage].unsqueeze(1))
        mask = added_mask((seat.stage_readable[stage] & written)[:, None, None], states.dtype)
        for step in steps:
            states = run_step(stack, seat, step, states, own, mask, seat.slot)
    leave_or_put_down(stack, seat, segment, states, tables, pick)


def _runner(stack: Stack, seat: Seat, store: GraphStore, step: LayerStep) -> RunLayer:
    """Return what runs one layer: replayed where no mask is needed."""

    def run(hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run the layer on [B, S, D], by a graph of this length where no mask is needed."""
        length = hidden.shape[1]
        if inputs.attention_mask is not None:
            return run_step(stack, seat, step, hidden, inputs.position_embeddings, inputs.attention_mask)
        states, tables = seat.states_of(length), seat.tables_of(length)
        if hidden.data_ptr() != states.data_ptr():
            states.copy_(hidden)
        for place, table in zip(tables, inputs.position_embeddings, strict=True):
            place.copy_(table)

        def work() -> None:
            """Run the layer in place."""
            states.copy_(run_step(stack, seat, step, states, tables, None))

        store.run(((seat.batch_size, seat.capacity), "layer", length, step), work)
        return states

    return run


def _place(seat: Seat, inside: PreparedInside, columns: int, mode: DecodeMode) -> None:
    """Make a seat ready: what may be read in each stage, and where answers begin."""
    device = seat.token.device
    places = torch.arange(seat.capacity, device=device)
    for number, layout in enumerate(inside.plan.layouts):
        length = layout.attention_mask.shape[1]
        seat.stage_readable[number].copy_((places >= columns).expand(seat.batch_size, -1))
        seat.stage_readable[number, :, :length].copy_(layout.attention_mask.bool())
    seat.keys.zero_()
    seat.values.zero_()
    last = inside.prepared.batch.position_ids[..., -1:]
    seat.position.copy_((last if last.dim() == 2 else last[-len(seat.position) :]) + 1)
    seat.slot.fill_(columns)
    seat.step.zero_()
    seat.finished.zero_()
    place_ends(seat, mode, [0] * seat.batch_size)
