"""Puts a prepared batch, which is padded on the left, into a seat's places, padded on the right."""

from collections.abc import Sequence

import torch

from adallava.engines.decode_mode import DecodeMode
from adallava.engines.layer_pass import LayerStep
from adallava.engines.program_of_layers import layer_steps
from adallava.engines.seat import MOST_ENDS, Seat
from adallava.pipeline.prepare import Prepared
from adallava.pipeline.skips import ScheduledLayers


def place_prompts(seat: Seat, prepared: Prepared, length: int, mode: DecodeMode) -> bool:
    """Write a call's prompts, and return whether a token of them is hidden from the others.

    Args:
        seat: of the batch's size.
        prepared: what enters the LLM; padded on the left.
        length: S, the bucket.
        mode: how to decode.
    """
    layout, batch = prepared.layout, prepared.batch
    embeds, positions = seat.embeds_of(length), seat.positions_of(length)
    columns = batch.input_ids.shape[1]
    # Of several rows, the first may count for masks alone.
    given = batch.position_ids if positions.dim() == 2 else batch.position_ids[-len(positions) :]
    hides = any(prompt.hidden_place is not None for prompt in layout.prompts)
    seat.hidden.zero_()
    # Positions after a prompt's end stay those of an earlier one: nothing is read there.
    for row, count in enumerate(layout.lengths):
        embeds[row, :count].copy_(batch.inputs_embeds[row, columns - count :])
        positions[..., row, :count].copy_(given[..., row, columns - count :])
        if hides:
            seat.hidden[row, :count].copy_(batch.attention_mask[row, columns - count :] == 0)
    place_ends(seat, mode, [count - 1 for count in layout.lengths])
    return hides


def place_added(seat: Seat, prepared: Prepared, length: int) -> None:
    """Write what is added after the first layers: to the vision tokens, and nothing to the others."""
    slots = prepared.layout.vision_slots
    columns = slots.shape[1]
    for level, rows in prepared.added.items():
        added = rows.flatten(0, 1)[slots.clamp_min(0)].masked_fill((slots < 0).unsqueeze(-1), 0)
        place = seat.added_of(level, length)
        for row, count in enumerate(prepared.layout.lengths):
            place[row, :count].copy_(added[row, columns - count :])
            place[row, count:].zero_()


def place_plan(seat: Seat, layers: ScheduledLayers) -> tuple[LayerStep, ...]:
    """Return the layers that a decided plan runs; where rows differ, write what each runs of them, in one transfer."""
    groups = layers.groups
    runs = layers.parts_by_layer()
    steps = layer_steps(runs, groups)
    if not any(step.masked or step.groups > 1 for step in steps):
        return steps
    given = torch.tensor(runs)
    if groups == 1:
        seat.active.copy_(given[..., 0], non_blocking=True)
    else:
        of_parts = given.view(*given.shape[:2], 2, groups).permute(2, 0, 1, 3).contiguous()
        seat.parts[..., :groups].copy_(of_parts.to(seat.parts.device, non_blocking=True))
    return steps


def place_ends(seat: Seat, mode: DecodeMode, last: Sequence[int]) -> None:
    """Write what ends an answer, and the column of each prompt's last token, in one transfer."""
    ends = [*mode.ends, *[-1] * (MOST_ENDS - len(mode.ends))]
    given = torch.tensor([*ends, mode.padding, *last]).to(seat.ends.device, non_blocking=True)
    seat.ends.copy_(given[:MOST_ENDS])
    seat.padding.copy_(given[MOST_ENDS : MOST_ENDS + 1])
    seat.last.copy_(given[MOST_ENDS + 1 :])
