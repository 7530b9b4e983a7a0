"""The least that an answer can take on this machine: products at the rate of a large one, weights at that of a copy.

A bound (a roofline, see `costs/roofline.py`), of one prefill and the decoding after it: what a method does to choose,
and what is launched and waited for, is none of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from adallava.costs.flops import decode_flops, kv_bytes, prefill_flops, projector_flops, vision_flops
from adallava.costs.parts import ModelCosts, TowerCosts
from adallava.costs.roofline import Hardware, floor_ms, weight_bytes, weight_counts
from adallava.costs.towers_run import towers_run
from adallava.records import WhatRan


@dataclass(frozen=True)
class Row:
    """What one sample of a batch has the machine do.

    Attributes:
        tokens_projected: vision tokens that enter the LLM.
        lengths: tokens that each layer of the LLM reads in prefill.
        groups_run: of each layer, which of its groups of heads run; None if all do.
        groups: that a layer is split into.
        towers: of each image that the tower ran on.
    """

    tokens_projected: int
    lengths: tuple[int, ...]
    groups_run: tuple[frozenset[int], ...] | None = None
    groups: int = 1
    towers: tuple[TowerCosts, ...] = ()

    @property
    def layer_shares(self) -> list[Fraction] | None:
        """The share of each layer that runs."""
        return None if self.groups_run is None else [Fraction(len(run), self.groups) for run in self.groups_run]


def row_of(record: WhatRan, costs: ModelCosts, method: object, num_vision_tokens: int) -> Row:
    """Return what the record of an answer says was done for it; arguments as of `towers_run`."""
    num_layers = len(costs.llm.layers)
    by_layer = record.tokens_kept_by_layer or (record.tokens_kept,) * num_layers
    text = record.prompt_length - record.tokens_kept
    return Row(
        tokens_projected=record.tokens_kept,
        lengths=tuple(text + count for count in by_layer),
        groups_run=None if record.groups_run is None else tuple(map(frozenset, record.groups_run)),
        groups=record.groups_per_layer,
        towers=tuple(towers_run(costs.vision, record, method, num_vision_tokens)),
    )


def floors_of(
    machine: Hardware,
    costs: ModelCosts,
    rows: Sequence[Row],
    new_tokens: int,
    *,
    dtype: str,
    value_bytes: int,
    llm_dtype: str | None = None,
    layer_value_bytes: int | None = None,
) -> dict[str, float]:
    """Return the least milliseconds of a batch, by the names that its measured times have.

    Args:
        machine: with the ceiling of the type.
        costs: of the model's parts.
        rows: of the batch, which reads each weight once: those of the layers that any row runs.
        new_tokens: A, of each answer.
        dtype: of weights and products.
        value_bytes: of a number of that type.
        llm_dtype: of the LLM's products, if it is another.
        layer_value_bytes: of a weight of the LLM's layers, if it is quantized.
    """
    llm, weights = costs.llm, weight_counts(costs)
    read = weight_bytes(llm, bytes_per_value=1, layer_shares=_run_by_any(rows))
    in_layers = read - weights["output"]
    read_bytes = in_layers * (layer_value_bytes or value_bytes) + weights["output"] * value_bytes

    def cached_bytes(ahead: int) -> int:
        """Return the bytes that one decoding step reads, so many tokens after the first."""
        each = (
            kv_bytes(llm, row.lengths, 1 + ahead, bytes_per_value=value_bytes, layer_shares=row.layer_shares)
            for row in rows
        )
        return read_bytes + sum(each)

    def least(flops: float, num_bytes: float, of: str = dtype) -> float:
        """Return the least ms for so much work, in products of the given type."""
        return floor_ms(machine, flops, num_bytes, dtype=of)

    projected, towers = sum(row.tokens_projected for row in rows), [tower for row in rows for tower in row.towers]
    vision = sum(map(vision_flops, towers))
    prefill = sum(prefill_flops(llm, row.lengths, layer_shares=row.layer_shares) for row in rows)
    decode = sum(decode_flops(llm, row.lengths, new_tokens, layer_shares=row.layer_shares) for row in rows)
    floors = {
        "vision": least(vision, value_bytes * weights["vision"]) if towers else 0.0,
        "projector": least(projector_flops(costs, projected), value_bytes * weights["projector"]) if projected else 0.0,
        "prefill": least(prefill, cached_bytes(0), llm_dtype or dtype),
    }
    first = sum(floors.values())
    # The cache of the middle step, rounded down: the mean of a bound over the steps is a bound of their mean.
    token = least(decode / max(1, new_tokens - 1), cached_bytes(new_tokens // 2), llm_dtype or dtype)
    return floors | {
        "time_to_first_token": first,
        "decode_per_token": token,
        "total": first + (new_tokens - 1) * token,
    }


def _run_by_any(rows: Sequence[Row]) -> list[Fraction] | None:
    """Return the share of each layer that at least one row runs."""
    runs = [row.groups_run for row in rows if row.groups_run is not None]
    if len(runs) < len(rows):
        return None
    groups = rows[0].groups
    return [Fraction(len(frozenset().union(*layer)), groups) for layer in zip(*runs, strict=True)]
