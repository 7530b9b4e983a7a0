"""Memory of fixed places: what a captured graph reads and writes, over and over, for one batch size and capacity.

    a batch of two prompts, 5 and 3 tokens, bucket 6, capacity 12; three tokens decoded

    column        0 1 2 3 4 5 | 6 7 8 9 10 11
    row 0         p p p p p . | a a a . .  .         p prompt, a answer, . written or not, never read
    row 1         p p p . . . | a a a . .  .

All rows write their next key and value to one column, `slot`, whatever their own length.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.engines.fused_layers import Stack
from adallava.families.layer_parts import Parts

MOST_ENDS = 8
"""Ids that may end an answer."""

MOST_STAGES = 8
"""Between which a method inside the LLM drops tokens."""


@dataclass(frozen=True)
class Seat:
    """Buffers for B rows and C columns. L layers, D the LLM's width, V its vocabulary, R rows of positions.

    Where R is 1, positions and tables have no axis for it.

    Attributes:
        keys: [L, B, kv heads, C, head width].
        values: the same.
        embeds: [B * C * D], the prompts; see `embeds_of`.
        states: [B * C * D], between two segments of layers; see `states_of`.
        added: [levels, B * C * D], what is added to a prompt's states after some layers; see `added_of`.
        tables: [2, R * B * C * head width], rotary cosines and sines between two segments; R may be 1 for these alone.
        positions: [R * B * C] int64, of the prompts.
        hidden: [B, C] bool, tokens of the prompt that no other token reads.
        readable: [B, C] bool, columns that a decoded token may read once they are written.
        stage_readable: [stages, B, C] bool, the same in each stage of a method inside the LLM.
        stage_shifts: [stages, B] int64, by how much positions are smaller there, where they are counted again.
        last: [B] int64, the column of each prompt's last token.
        active: [L, B] bool, the rows that each layer runs for, where they differ.
        parts: [2, L, B, kv heads] bool, the parts of each layer that each row runs: of its heads, and of its MLP. Of
            fewer parts than that, the first places; see `parts_of`.
        token: [B, 1] int64, the newest of each answer.
        position: [R, B, 1] int64, of the token.
        slot: [1] int64, the column that it is written to.
        step: [1] int64, how many tokens an answer has.
        answers: [B, C] int64.
        finished: [B] bool.
        ends: [E] int64, ids that end an answer; -1 for none.
        padding: [1] int64, the id after an answer's end.
        logits: [B, V] float32, of the newest token.
    """

    keys: Tensor
    values: Tensor
    embeds: Tensor
    states: Tensor
    added: Tensor
    tables: Tensor
    positions: Tensor
    hidden: Tensor
    readable: Tensor
    stage_readable: Tensor
    stage_shifts: Tensor
    last: Tensor
    active: Tensor
    parts: Tensor
    token: Tensor
    position: Tensor
    slot: Tensor
    step: Tensor
    answers: Tensor
    finished: Tensor
    ends: Tensor
    padding: Tensor
    logits: Tensor

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.token)

    @property
    def capacity(self) -> int:
        """C."""
        return self.answers.shape[1]

    def embeds_of(self, length: int) -> Tensor:
        """Return the place of prompts of so many columns, [B, S, D]."""
        return self._first(self.embeds, length)

    def states_of(self, length: int) -> Tensor:
        """Return the place of hidden states between two segments, [B, S, D]."""
        return self._first(self.states, length)

    def added_of(self, level: int, length: int) -> Tensor:
        """Return the place of what is added after one layer, [B, S, D]."""
        return self._first(self.added[level], length)

    def parts_of(self, layer: int, groups: int) -> Parts:
        """Return the place of what each row runs of a layer, which is split into so many groups."""
        return Parts(*self.parts[:, layer, :, :groups])

    def tables_of(self, length: int) -> tuple[Tensor, Tensor]:
        """Return the place of the rotary tables between two segments, [R, B, S, head width] each."""
        area = self.batch_size * self.capacity
        width = self.keys.shape[-1]
        rows = self.tables.shape[1] // (area * width)
        numel = rows * self.batch_size * length * width
        shape = (*([rows] if rows > 1 else []), self.batch_size, length, width)
        return self.tables[0, :numel].view(shape), self.tables[1, :numel].view(shape)

    def positions_of(self, length: int) -> Tensor:
        """Return the place of the prompts' positions, [R, B, S]."""
        rows = len(self.positions) // (self.batch_size * self.capacity)
        flat = self.positions[: rows * self.batch_size * length]
        return flat.view(*([rows] if rows > 1 else []), self.batch_size, length)

    def _first(self, flat: Tensor, length: int) -> Tensor:
        width = len(flat) // (self.batch_size * self.capacity)
        return flat[: self.batch_size * length * width].view(self.batch_size, length, width)


def cache_numel(stack: Stack, batch_size: int, capacity: int) -> int:
    """Return the elements of the keys (and of the values) of all layers."""
    return len(stack.layers) * batch_size * stack.kv_heads * capacity * stack.head_width


def make_seat(stack: Stack, batch_size: int, capacity: int, arena: Tensor) -> Seat:
    """Return buffers for a batch size and a capacity.

    Args:
        stack: the LLM.
        batch_size: B.
        capacity: C.
        arena: [2, at least `cache_numel`], shared by all seats: only one of them is in use.
    """
    device, dtype = stack.weight.device, stack.weight.dtype
    area = batch_size * capacity
    numel = cache_numel(stack, batch_size, capacity)
    shape = (len(stack.layers), batch_size, stack.kv_heads, capacity, stack.head_width)
    rows = [stack.position_rows] if stack.position_rows > 1 else []

    def zeros(*sizes: int, of: torch.dtype = torch.int64) -> Tensor:
        """Return a tensor of the seat's device."""
        return torch.zeros(sizes, dtype=of, device=device)

    return Seat(
        keys=arena[0, :numel].view(shape),
        values=arena[1, :numel].view(shape),
        embeds=zeros(area * stack.width, of=dtype),
        states=zeros(area * stack.width, of=dtype),
        added=zeros(stack.added_levels, area * stack.width, of=dtype),
        tables=zeros(2, stack.table_rows * area * stack.head_width, of=dtype),
        positions=zeros(stack.position_rows * area),
        hidden=zeros(batch_size, capacity, of=torch.bool),
        readable=zeros(batch_size, capacity, of=torch.bool),
        stage_readable=zeros(MOST_STAGES, batch_size, capacity, of=torch.bool),
        stage_shifts=zeros(MOST_STAGES, batch_size),
        last=zeros(batch_size),
        active=zeros(len(stack.layers), batch_size, of=torch.bool),
        parts=zeros(2, len(stack.layers), batch_size, stack.kv_heads, of=torch.bool),
        token=zeros(batch_size, 1),
        position=zeros(*rows, batch_size, 1),
        slot=zeros(1),
        step=zeros(1),
        answers=zeros(batch_size, capacity),
        finished=zeros(batch_size, of=torch.bool),
        ends=zeros(MOST_ENDS) - 1,
        padding=zeros(1),
        logits=zeros(batch_size, stack.vocabulary_size, of=torch.float32),
    )
