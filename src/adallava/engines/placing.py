"""Puts a prepared batch, which is padded on the left, into a seat's places, padded on the right."""

import torch

from adallava.engines.decode_mode import DecodeMode
from adallava.engines.seat import MOST_ENDS, Seat
from adallava.pipeline.prepare import Prepared


def place_prompts(seat: Seat, prepared: Prepared, length: int, mode: DecodeMode) -> bool:
    """Write a call's prompts and beginnings, and return whether a token of them is hidden from the others.

    Args:
        seat: of the batch's size.
        prepared: what enters the LLM; padded on the left.
        length: S, the bucket.
        mode: how to decode.
    """
    layout, batch = prepared.layout, prepared.batch
    lengths = layout.lengths
    columns = batch.input_ids.shape[1]
    device = seat.token.device
    # What an earlier call left there would be multiplied by zero, and zero times no number is none.
    seat.keys.zero_()
    seat.values.zero_()
    embeds, positions = seat.embeds_of(length), seat.positions_of(length)
    embeds.zero_()
    positions.zero_()
    hidden = (batch.attention_mask == 0) & (layout.mask == 1)
    for row, count in enumerate(lengths):
        embeds[row, :count].copy_(batch.inputs_embeds[row, columns - count :])
        positions[row, :count].copy_(batch.position_ids[row, columns - count :])
    hides = any(prompt.latency_hidden and prompt.latency_place is not None for prompt in layout.prompts)
    seat.hidden.zero_()
    if hides:
        for row, count in enumerate(lengths):
            seat.hidden[row, :count].copy_(hidden[row, columns - count :])
    counts = torch.tensor(lengths).to(device, non_blocking=True)
    seat.last.copy_(counts - 1)
    places = torch.arange(seat.capacity, device=device)
    seat.readable.copy_(((places < counts.unsqueeze(1)) | (places >= length)) & ~seat.hidden)
    seat.position.copy_(positions.gather(1, seat.last.unsqueeze(1)) + 1)
    # `take_token` and `decode` count on from here: the first decoded token is written to the column S.
    seat.slot.fill_(length)
    seat.step.zero_()
    seat.finished.zero_()
    seat.padding.fill_(mode.padding)
    ends = torch.full((MOST_ENDS,), -1)
    ends[: len(mode.ends)] = torch.tensor(mode.ends, dtype=torch.int64)
    seat.ends.copy_(ends, non_blocking=True)
    return hides
