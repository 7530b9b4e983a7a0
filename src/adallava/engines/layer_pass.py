"""One pass of the LLM over a seat, in segments: what a graph holds, and what runs the same without one.

    whole      [enter, layers 0 … L-1, leave]                            one graph
    by layer   [enter] [0] [1] … [L-1] [leave]                           a plan leaves any layer out at its full price
    scheduled  [enter, prefix] (the scheduler decides) [the rest, leave]

Everything is read from the seat and written to it, in place: no value comes from the host, and none goes there.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from adallava.engines.fused_layers import Stack
from adallava.engines.seat import Seat

Pick = Literal["greedy", "later"]
"""Who chooses the next token: the pass itself, or its caller, from the logits."""


class LayerStep(NamedTuple):
    """One layer to run.

    Attributes:
        layer: its index.
        masked: True if it runs for the rows in `Seat.active` only; the others pass it unchanged.
        groups: that it is split into, of which each row runs those in `Seat.parts` only; 1 for a layer as it is.
    """

    layer: int
    masked: bool = False
    groups: int = 1


@dataclass(frozen=True)
class Segment:
    """Part of a pass.

    Attributes:
        layers: to run, in order.
        enter: whether it begins with what enters the LLM, or with `Seat.states_of`.
        leave: whether it ends with logits, or with `Seat.states_of`.
    """

    layers: tuple[LayerStep, ...]
    enter: bool = False
    leave: bool = False


class Slots:
    """One layer's cache during a pass.

    Attributes:
        keys: [B, kv heads, C, head width], written in place.
        values: the same.
        slot: [1], the column that one token is written to; None for prompts, which begin at column 0.
    """

    def __init__(self, seat: Seat, layer: int, slot: Tensor | None) -> None:
        """Take a layer's place."""
        self.keys, self.values, self.slot = seat.keys[layer], seat.values[layer], slot

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write keys and values, and return what queries read: of prompts their own, of one token all columns."""
        if self.slot is None:
            length = keys.shape[2]
            self.keys[:, :, :length].copy_(keys)
            self.values[:, :, :length].copy_(values)
            return keys, values
        self.keys.index_copy_(2, self.slot, keys)
        self.values.index_copy_(2, self.slot, values)
        return self.keys, self.values


def prefill(stack: Stack, seat: Seat, length: int, segment: Segment, *, hides: bool, adds: bool, pick: Pick) -> None:
    """Run part of the first pass, over prompts of `length` columns.

    Args:
        stack: the LLM.
        seat: holds the prompts.
        length: S, a bucket.
        segment: what to run.
        hides: whether `Seat.hidden` names any token: then attention needs a mask.
        adds: whether `Seat.added` is added after the first layers.
        pick: who chooses the first token.
    """
    if segment.enter:
        states = _begin(seat, length)
        tables = stack.rotary(states, seat.positions_of(length))
    else:
        states, tables = seat.states_of(length), seat.tables_of(length)
    mask = _prompt_mask(seat, length, states.dtype) if hides and segment.layers else None
    for step in segment.layers:
        states = run_step(stack, seat, step, states, tables, mask)
        if adds and step.layer < len(seat.added):
            states = states + seat.added_of(step.layer, length)
    if not segment.leave:
        _put_down(seat, length, states, tables if segment.enter else None)
        return
    rows = torch.arange(seat.batch_size, device=states.device)
    leave(stack, seat, states[rows, seat.last], pick)


def enter_or_take_up(stack: Stack, seat: Seat, segment: Segment) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return what a segment over the newest token of each row begins with: states, [B, 1, D], and rotary tables."""
    if not segment.enter:
        return seat.states_of(1), seat.tables_of(1)
    states = stack.embed(seat.token)
    return states, stack.rotary(states, seat.position)


def decode(stack: Stack, seat: Seat, segment: Segment, *, pick: Pick) -> None:
    """Run part of a pass over the newest token of each row. Arguments as for `prefill`."""
    states, tables = enter_or_take_up(stack, seat, segment)
    mask = _token_mask(seat, states.dtype) if segment.layers else None
    for step in segment.layers:
        states = run_step(stack, seat, step, states, tables, mask, seat.slot)
    leave_or_put_down(stack, seat, segment, states, tables, pick)


def run_step(
    stack: Stack,
    seat: Seat,
    step: LayerStep,
    states: Tensor,
    tables: tuple[Tensor, Tensor],
    mask: Tensor | None,
    slot: Tensor | None = None,
) -> Tensor:
    """Return what a layer passes on, [B, S, D].

    Args:
        stack: the LLM.
        seat: holds its cache, and who runs it.
        step: the layer.
        states: [B, S, D].
        tables: rotary cosines and sines.
        mask: added to the scores; None for plain causal attention.
        slot: see `Slots`.
    """
    layer, masked, groups = step
    parts = seat.parts_of(layer, groups) if groups > 1 else None
    left = stack.run(layer, states, tables, mask, Slots(seat, layer, slot), parts)
    return torch.where(seat.active[layer, :, None, None], left, states) if masked else left


def leave_or_put_down(
    stack: Stack, seat: Seat, segment: Segment, states: Tensor, tables: tuple[Tensor, Tensor], pick: Pick
) -> None:
    """End part of a pass over one token of each row: with its logits, or with what the next part begins with."""
    if not segment.leave:
        _put_down(seat, 1, states, tables if segment.enter else None)
        return
    seat.slot.add_(1)
    seat.position.add_(1)
    leave(stack, seat, states[:, 0], pick)


def leave(stack: Stack, seat: Seat, states: Tensor, pick: Pick) -> None:
    """Write the logits of states that leave the last layer, [B, D], and take the likeliest token if asked for."""
    seat.logits.copy_(stack.head(stack.norm(states)))
    if pick == "greedy":
        take_token(seat, seat.logits.argmax(dim=-1))


def take_token(seat: Seat, token: Tensor) -> None:
    """Write the next token of each row, [B]; after an answer's end, the padding."""
    token = torch.where(seat.finished, seat.padding, token)
    seat.answers.index_copy_(1, seat.step, token.unsqueeze(1))
    seat.finished.logical_or_((token.unsqueeze(1) == seat.ends).any(dim=1))
    seat.token.copy_(token.unsqueeze(1))
    seat.step.add_(1)


def _begin(seat: Seat, length: int) -> Tensor:
    """Make a seat ready for an answer to the prompts that lie in it, and return what enters the LLM, [B, S, D]."""
    columns = torch.arange(seat.capacity, device=seat.last.device)
    last = seat.last.unsqueeze(1)
    seat.readable.copy_(((columns <= last) | (columns >= length)) & ~seat.hidden)
    positions = seat.positions_of(length)
    seat.position.copy_(positions.gather(-1, last.expand(*positions.shape[:-1], 1)) + 1)
    # `decode` counts on from here: the first decoded token is written to the column S.
    seat.slot.fill_(length)
    seat.step.zero_()
    seat.finished.zero_()
    # What an earlier call left there would be multiplied by zero, and zero times no number is none.
    seat.keys[..., length:, :].zero_()
    seat.values[..., length:, :].zero_()
    return seat.embeds_of(length).masked_fill((columns[:length] > last).unsqueeze(-1), 0.0)


def _put_down(seat: Seat, length: int, states: Tensor, tables: tuple[Tensor, Tensor] | None) -> None:
    seat.states_of(length).copy_(states)
    if tables is not None:
        for place, table in zip(seat.tables_of(length), tables, strict=True):
            place.copy_(table)


def _prompt_mask(seat: Seat, length: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores, [B, 1, S, S]: no token reads one after it, or a hidden one."""
    columns = torch.arange(length, device=seat.hidden.device)
    causal = columns <= columns.unsqueeze(1)
    # Column 0 reads itself even if it is hidden: a row that reads nothing would be no number.
    seen = causal & (~seat.hidden[:, None, :length] | (columns + columns.unsqueeze(1) == 0))
    return added_mask(seen.unsqueeze(1), dtype)


def _token_mask(seat: Seat, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores, [B, 1, 1, C]: of the columns written so far, those that may be read."""
    written = torch.arange(seat.capacity, device=seat.slot.device) <= seat.slot
    return added_mask((seat.readable & written)[:, None, None], dtype)


def added_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores: nothing where a token is seen, and the least number elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
