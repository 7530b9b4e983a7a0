"""Passes of the LLM with tokens dropped between its layers: each layer a graph, and the method between them as it is.

    layers 0, 1     p p p p p p p p | a a a        8 columns of the prompt
    layers 2, 3 …   p p p p . . . . | a a a        4 are left; what lies after them is not read

An answer's keys and values lie in the same columns of every layer, whatever was dropped: only what may be read differs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.engines.decode_mode import DecodeMode
from adallava.engines.fused_layers import Stack
from adallava.engines.graph_store import GraphStore
from adallava.engines.layer_pass import Pick, Slots, added_mask, leave
from adallava.engines.placing import place_ends
from adallava.engines.seat import MOST_STAGES, Seat
from adallava.families.family_contract import RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.pipeline.prepare import PreparedInside


@dataclass(frozen=True)
class Stages:
    """The stages of one call, as a graph's key.

    Attributes:
        starts: the first layer of each.
        compact: whether positions are counted again in each.
    """

    starts: tuple[int, ...]
    compact: bool


def stages_of(inside: PreparedInside, *, compact: bool) -> Stages:
    """Return the stages of a call."""
    return Stages((0, *(drop.layer for drop in inside.plan.drops)), compact)


def refusal_inside(inside: PreparedInside) -> str | None:
    """Return why a call's drops cannot be run, in words; None if they can."""
    if len(inside.plan.stages) > MOST_STAGES:
        return f"method {inside.selector.name!r} drops tokens {len(inside.plan.drops)} times"
    return None


def prefill_inside(
    stack: Stack, seat: Seat, store: GraphStore, inside: PreparedInside, mode: DecodeMode, pick: Pick
) -> None:
    """Run the prompts through all layers, drop between them, and leave logits, and the first token.

    Args:
        stack: the LLM.
        seat: of the batch's size.
        store: of graphs.
        inside: what enters, and what is dropped.
        mode: how to decode.
        pick: who chooses the first token.
    """
    batch, drops = inside.prepared.batch, inside.drops
    columns = batch.input_ids.shape[1]
    _place(seat, inside, columns, mode)
    states = batch.inputs_embeds
    tables: tuple[Tensor, Tensor] = stack.rotary(states, batch.position_ids)
    stage = inside.plan.stages[0]
    mask = inside.drops.mask(0, states, stage.layout.padding_mask)
    inputs = LayerInputs(mask, tables, batch.position_ids, None)
    for layer in range(len(stack.layers)):
        states = drops.around(layer, _runner(stack, seat, store, layer), states, inputs)
    last = states.shape[1] - 1
    leave(stack, seat, states[:, last], pick)


def decode_inside(stack: Stack, seat: Seat, stages: Stages, *, pick: Pick) -> None:
    """Run the newest token of each row through all layers; see `layer_pass.decode`."""
    states = stack.embed(seat.token)
    tables = stack.rotary(states, seat.position)
    ends = [*stages.starts[1:], len(stack.layers)]
    written = torch.arange(seat.capacity, device=seat.slot.device) <= seat.slot
    for number, (start, end) in enumerate(zip(stages.starts, ends, strict=True)):
        if stages.compact and number > 0:
            tables = stack.rotary(states, seat.position - seat.stage_shifts[number].unsqueeze(1))
        mask = added_mask((seat.stage_readable[number] & written)[:, None, None], states.dtype)
        for layer in range(start, end):
            states = stack.run(layer, states, tables, mask, Slots(seat, layer, seat.slot))
    seat.slot.add_(1)
    seat.position.add_(1)
    leave(stack, seat, states[:, 0], pick)


def _runner(stack: Stack, seat: Seat, store: GraphStore, layer: int) -> RunLayer:
    """Return what runs one layer: replayed where no mask is needed."""

    def run(hidden: Tensor, inputs: LayerInputs) -> Tensor:
        length = hidden.shape[1]
        if inputs.attention_mask is not None:
            slots = Slots(seat, layer, None)
            return stack.run(layer, hidden, inputs.position_embeddings, inputs.attention_mask, slots)
        states, tables = seat.states_of(length), seat.tables_of(length)
        if hidden.data_ptr() != states.data_ptr():
            states.copy_(hidden)
        for place, table in zip(tables, inputs.position_embeddings, strict=True):
            place.copy_(table)

        def work() -> None:
            left = stack.run(layer, states, tables, None, Slots(seat, layer, None))
            states.copy_(left)

        store.run(((seat.batch_size, seat.capacity), "layer", length, layer), work)
        return states

    return run


def _place(seat: Seat, inside: PreparedInside, columns: int, mode: DecodeMode) -> None:
    """Make a seat ready: what may be read in each stage, and where answers begin."""
    device = seat.token.device
    places = torch.arange(seat.capacity, device=device)
    before = inside.plan.stages[0].layout.prompts
    for number, stage in enumerate(inside.plan.stages):
        length = stage.layout.attention_mask.shape[1]
        seat.stage_readable[number].copy_((places >= columns).expand(seat.batch_size, -1))
        seat.stage_readable[number, :, :length].copy_(stage.layout.attention_mask.bool())
        dropped = [one.length - other.length for one, other in zip(before, stage.layout.prompts, strict=True)]
        seat.stage_shifts[number].copy_(torch.tensor(dropped), non_blocking=True)
    seat.keys.zero_()
    seat.values.zero_()
    seat.position.copy_(inside.prepared.batch.position_ids[:, -1:] + 1)
    seat.slot.fill_(columns)
    seat.step.zero_()
    seat.finished.zero_()
    place_ends(seat, mode, [0] * seat.batch_size)
