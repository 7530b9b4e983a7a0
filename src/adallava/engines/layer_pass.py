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

from adallava.engines.seat import Seat
from adallava.families.layer_stack import LayerStack

Pick = Literal["greedy", "later"]
"""Who chooses the next token: the pass itself, or its caller, from the logits."""


class LayerStep(NamedTuple):
    """One layer to run.

    Attributes:
        index: of the layer.
        masked: True if it runs for the rows in `Seat.active` only; the others pass it unchanged.
    """

    index: int
    masked: bool = False


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


class _PrefillSlots:
    """A layer's cache while prompts enter it: written, and not read."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys, self._values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write a prompt's keys and values; queries read them as they are."""
        length = keys.shape[2]
        self._keys[:, :, :length].copy_(keys)
        self._values[:, :, :length].copy_(values)
        return keys, values


class _DecodeSlots:
    """A layer's cache while one token enters it: written at the seat's slot, and read whole."""

    def __init__(self, keys: Tensor, values: Tensor, slot: Tensor) -> None:
        self._keys, self._values, self._slot = keys, values, slot

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write one token's keys and values; its query reads all columns, under a mask."""
        self._keys.index_copy_(2, self._slot, keys)
        self._values.index_copy_(2, self._slot, values)
        return self._keys, self._values


def prefill(stack: LayerStack, seat: Seat, length: int, segment: Segment, *, hides: bool, pick: Pick) -> None:
    """Run part of the first pass, over prompts of `length` columns.

    Args:
        stack: the LLM.
        seat: holds the prompts.
        length: S, a bucket.
        segment: what to run.
        hides: whether `Seat.hidden` names any token: then attention needs a mask.
        pick: who chooses the first token.
    """
    if segment.enter:
        states = seat.embeds_of(length)
        tables = stack.rotary(states, seat.positions_of(length))
    else:
        states, tables = seat.states_of(length), seat.tables_of(length)
    mask = _prompt_mask(seat, length, states.dtype) if hides and segment.layers else None
    for index, masked in segment.layers:
        left = stack.run(index, states, tables, mask, _PrefillSlots(seat.keys[index], seat.values[index]))
        states = _for_active(seat, index, left, states) if masked else left
    if not segment.leave:
        _put_down(seat, length, states, tables if segment.enter else None)
        return
    rows = torch.arange(seat.batch_size, device=states.device)
    seat.logits.copy_(stack.head(stack.norm(states[rows, seat.last])))
    if pick == "greedy":
        take_token(seat, seat.logits.argmax(dim=-1))


def decode(stack: LayerStack, seat: Seat, segment: Segment, *, pick: Pick) -> None:
    """Run part of a pass over the newest token of each row. Arguments as for `prefill`."""
    if segment.enter:
        states = stack.embed(seat.token)
        tables = stack.rotary(states, seat.position)
    else:
        states, tables = seat.states_of(1), seat.tables_of(1)
    mask = _token_mask(seat, states.dtype) if segment.layers else None
    for index, masked in segment.layers:
        slots = _DecodeSlots(seat.keys[index], seat.values[index], seat.slot)
        left = stack.run(index, states, tables, mask, slots)
        states = _for_active(seat, index, left, states) if masked else left
    if not segment.leave:
        _put_down(seat, 1, states, tables if segment.enter else None)
        return
    seat.slot.add_(1)
    seat.position.add_(1)
    seat.logits.copy_(stack.head(stack.norm(states[:, 0])))
    if pick == "greedy":
        take_token(seat, seat.logits.argmax(dim=-1))


def take_token(seat: Seat, token: Tensor) -> None:
    """Write the next token of each row, [B]; behind an answer's end, the padding."""
    token = torch.where(seat.finished, seat.padding, token)
    seat.answers.index_copy_(1, seat.step, token.unsqueeze(1))
    seat.finished.logical_or_((token.unsqueeze(1) == seat.ends).any(dim=1))
    seat.token.copy_(token.unsqueeze(1))
    seat.step.add_(1)


def _for_active(seat: Seat, layer: int, left: Tensor, before: Tensor) -> Tensor:
    return torch.where(seat.active[layer, :, None, None], left, before)


def _put_down(seat: Seat, length: int, states: Tensor, tables: tuple[Tensor, Tensor] | None) -> None:
    seat.states_of(length).copy_(states)
    if tables is not None:
        for place, table in zip(seat.tables_of(length), tables, strict=True):
            place.copy_(table)


def _prompt_mask(seat: Seat, length: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores, [B, 1, S, S]: no token reads one behind it, or a hidden one."""
    columns = torch.arange(length, device=seat.hidden.device)
    causal = columns <= columns.unsqueeze(1)
    # Column 0 reads itself even if it is hidden: a row that reads nothing would be no number.
    seen = causal & (~seat.hidden[:, None, :length] | (columns + columns.unsqueeze(1) == 0))
    return _added(seen.unsqueeze(1), dtype)


def _token_mask(seat: Seat, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores, [B, 1, 1, C]: of the columns written so far, those that may be read."""
    written = torch.arange(seat.capacity, device=seat.slot.device) <= seat.slot
    return _added((seat.readable & written)[:, None, None], dtype)


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
