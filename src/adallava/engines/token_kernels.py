"""The steps of a layer for one token of one row, each in one kernel: products of a row, and attention over a cache.

    norm ─▶ product                                queries, keys and values
    turn ─▶ write ─▶ read the columns written so far
            product ─▶ + residual                  after attention, after the MLP
    norm ─▶ product ─▶ silu(gate) * up

One token leaves a device nothing to do but to read weights and cache: libraries' kernels read a weight at 60 to 95 % of
what an H200's memory gives, these at 80 to 100 %, without a pause between two steps. Sums are in float32, and every
value that PyTorch's steps round to the weights' type between two of them is rounded here.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from adallava.engines.layer_kernels import Joined, LayerKernels, LayerSizes, Reads
from adallava.families.quantization import numbers_and_scales

_BLOCK_COLUMNS = 4096
"""Of a weight, that a program reads at a time."""

_BLOCK_KEYS = 256
"""Columns of a cache, likewise."""


class _Tiles(NamedTuple):
    """How a product is split: rows of the weight a program, and warps that share them. Measured on an H200."""

    rows: int
    warps: int


_OF_NORMED, _OF_GATED, _OF_ADDED = _Tiles(4, 16), _Tiles(2, 8), _Tiles(1, 4)


def _of_bytes(tiles: _Tiles) -> _Tiles:
    """Return the tiles of a weight of one byte a number: more rows for fewer threads, which widen what they read.

    Measured for the first of the products alone: 16.5 µs, of a floor of 12.
    """
    return _Tiles(2 * tiles.rows, max(2, tiles.warps // 4))


def _normed(row: Tensor, norm: Tensor, eps: float, weight: Joined) -> Tensor:
    """Return a row's RMS norm times a weight, [1, 1, N].

    Args:
        row: [1, 1, K].
        norm: [K].
        eps: of the norm.
        weight: [N, K], and a bias or none.
    """
    made = row.new_empty((1, 1, len(weight[0])))
    _launch(_OF_NORMED, row, weight, made, norm=norm, eps=eps)
    return made


def _gated(row: Tensor, norm: Tensor, eps: float, weight: Joined) -> Tensor:
    """Return silu(gate) * up of a row's RMS norm, [1, 1, N]; `weight` is [2 N, K], the gate's rows first."""
    made = row.new_empty((1, 1, len(weight[0]) // 2))
    _launch(_OF_GATED, row, weight, made, norm=norm, eps=eps, gated=True)
    return made


def _added(row: Tensor, weight: Joined, residual: Tensor) -> Tensor:
    """Return residual + row times a weight, [1, 1, N]."""
    made = torch.empty_like(residual)
    _launch(_OF_ADDED, row, weight, made, residual=residual)
    return made


def _launch(
    tiles: _Tiles,
    row: Tensor,
    joined: Joined,
    made: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    gated: bool = False,
) -> None:
    weight, bias = joined
    stored, scales = numbers_and_scales(weight)
    tiles = _of_bytes(tiles) if stored.element_size() == 1 else tiles
    size, width = made.shape[-1], weight.shape[1]
    columns = min(_BLOCK_COLUMNS, _next_power(width))
    # Fewer columns leave fewer threads with work.
    warps = max(1, min(tiles.warps, tiles.rows * columns // 256))
    _row_product[(-(-size // tiles.rows),)](
        row,
        stored,
        row if scales is None else scales,
        row if norm is None else norm,
        row if bias is None else bias,
        row if residual is None else residual,
        made,
        size,
        eps,
        width=width,
        width_power=_next_power(width),
        has_scales=scales is not None,
        has_norm=norm is not None,
        has_bias=bias is not None,
        has_residual=residual is not None,
        gated=gated,
        block_rows=tiles.rows,
        block_columns=columns,
        num_warps=warps,
    )


def _next_power(number: int) -> int:
    return 1 << (number - 1).bit_length()


@triton.jit  # type: ignore[untyped-decorator]
def _rounded_norm(read, scale, factor, kind: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a norm's numbers, rounded where the stock norm rounds."""
    return ((read * scale).to(kind).to(tl.float32) * factor).to(kind).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _row_product(  # type: ignore[no-untyped-def]
    row,
    weight,
    scales,
    norm,
    bias,
    residual,
    made,
    size,
    eps,
    width: tl.constexpr,
    width_power: tl.constexpr,
    has_scales: tl.constexpr,
    has_norm: tl.constexpr,
    has_bias: tl.constexpr,
    has_residual: tl.constexpr,
    gated: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
):
    """Write `block_rows` values of one row's product; see `row_products`."""
    kind = made.dtype.element_ty
    rows = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    is_row = rows < size
    scale = 1.0
    if has_norm:
        every = tl.arange(0, width_power)
        whole = tl.load(row + every, mask=every < width, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(whole * whole) / width + eps)
    sums = tl.zeros((block_rows, block_columns), dtype=tl.float32)
    ups = tl.zeros((block_rows, block_columns), dtype=tl.float32)
    for first in range(0, width, block_columns):
        columns = first + tl.arange(0, block_columns)
        is_column = columns < width
        read = tl.load(row + columns, mask=is_column, other=0.0).to(tl.float32)
        if has_norm:
            factor = tl.load(norm + columns, mask=is_column, other=0.0).to(tl.float32)
            read = _rounded_norm(read, scale, factor, kind)
        # Offsets of a large weight do not fit 32 bits.
        places = rows.to(tl.int64)[:, None] * width + columns[None, :]
        inside = is_row[:, None] & is_column[None, :]
        part = tl.load(weight + places, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
        sums += part * read[None, :]
        if gated:
            places = (rows + size).to(tl.int64)[:, None] * width + columns[None, :]
            part = tl.load(weight + places, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
            ups += part * read[None, :]
    value = tl.sum(sums, axis=1)
    if has_scales:
        value *= tl.load(scales + rows, mask=is_row, other=0.0).to(tl.float32)
    if has_bias:
        value += tl.load(bias + rows, mask=is_row, other=0.0).to(tl.float32)
    value = value.to(kind).to(tl.float32)
    if gated:
        up = tl.sum(ups, axis=1)
        if has_scales:
            up *= tl.load(scales + size + rows, mask=is_row, other=0.0).to(tl.float32)
        if has_bias:
            up += tl.load(bias + size + rows, mask=is_row, other=0.0).to(tl.float32)
        up = up.to(kind).to(tl.float32)
        value = (value / (1.0 + tl.exp(-value))).to(kind).to(tl.float32) * up
    if has_residual:
        value += tl.load(residual + rows, mask=is_row, other=0.0).to(tl.float32)
    tl.store(made + rows, value.to(kind), mask=is_row)


def _attend(joined: Tensor, reads: Reads, sizes: LayerSizes) -> Tensor:
    """Return what one token of each row reads; see `LayerKernels.attend`. The mask is [B, 1, 1, C]."""
    made = joined.new_empty((len(joined), 1, sizes.heads * sizes.head_width))
    *places, norms = reads
    query_norm, key_norm = norms or (joined, joined)
    _token_attention[(len(joined) * sizes.heads,)](
        joined,
        *places,
        query_norm,
        key_norm,
        made,
        reads.keys.shape[2],
        sizes.scaling,
        sizes.eps,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_width=sizes.head_width,
        has_norms=norms is not None,
        block=_BLOCK_KEYS,
        num_warps=8,
    )
    return made


@triton.jit  # type: ignore[untyped-decorator]
def _token_attention(  # type: ignore[no-untyped-def]
    joined,
    cosines,
    sines,
    mask,
    keys,
    values,
    slot,
    query_norm,
    key_norm,
    made,
    capacity,
    scaling,
    eps,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    head_width: tl.constexpr,
    has_norms: tl.constexpr,
    block: tl.constexpr,
):
    """Write what one head of one row reads, and where it is the first of its group, the row's new key and value."""
    kind = made.dtype.element_ty
    batch, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    shared = head // (heads // kv_heads)
    width = tl.arange(0, head_width)
    turned = (width + head_width // 2) % head_width
    sign = tl.where(width < head_width // 2, -1.0, 1.0)
    cosine = tl.load(cosines + batch * head_width + width).to(tl.float32)
    sine = tl.load(sines + batch * head_width + width).to(tl.float32) * sign
    query_at = joined + (batch * (heads + 2 * kv_heads) + head) * head_width
    key_at = joined + (batch * (heads + 2 * kv_heads) + heads + shared) * head_width
    value_at = key_at + kv_heads * head_width
    query, query_turned = tl.load(query_at + width).to(tl.float32), tl.load(query_at + turned).to(tl.float32)
    key, key_turned = tl.load(key_at + width).to(tl.float32), tl.load(key_at + turned).to(tl.float32)
    if has_norms:
        scale = tl.rsqrt(tl.sum(query * query) / head_width + eps)
        query = _rounded_norm(query, scale, tl.load(query_norm + width).to(tl.float32), kind)
        query_turned = _rounded_norm(query_turned, scale, tl.load(query_norm + turned).to(tl.float32), kind)
        scale = tl.rsqrt(tl.sum(key * key) / head_width + eps)
        key = _rounded_norm(key, scale, tl.load(key_norm + width).to(tl.float32), kind)
        key_turned = _rounded_norm(key_turned, scale, tl.load(key_norm + turned).to(tl.float32), kind)
    query = (query * cosine + query_turned * sine).to(kind).to(tl.float32)
    key = (key * cosine + key_turned * sine).to(kind)
    value = tl.load(value_at + width)
    at = tl.load(slot).to(tl.int32)
    row = (batch * kv_heads + shared).to(tl.int64) * capacity
    if head % (heads // kv_heads) == 0:
        tl.store(keys + (row + at) * head_width + width, key)
        tl.store(values + (row + at) * head_width + width, value)
    # The new column is not read back: another program may be the one that writes it.
    most = tl.sum(query * key.to(tl.float32)) * scaling + tl.load(mask + batch * capacity + at).to(tl.float32)
    total = 1.0
    read = value.to(tl.float32)
    for first in range(0, at, block):
        columns = first + tl.arange(0, block)
        is_written = columns < at
        places = (row + columns)[:, None] * head_width + width[None, :]
        held = tl.load(keys + places, mask=is_written[:, None], other=0.0).to(tl.float32)
        added = tl.load(mask + batch * capacity + columns, mask=is_written, other=0.0).to(tl.float32)
        scores = tl.where(is_written, tl.sum(held * query[None, :], axis=1) * scaling + added, -float("inf"))
        higher = tl.maximum(most, tl.max(scores))
        shares = tl.exp(scores - higher)
        shrink = tl.exp(most - higher)
        held = tl.load(values + places, mask=is_written[:, None], other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(shares)
        read = read * shrink + tl.sum(shares[:, None] * held, axis=0)
        most = higher
    tl.store(made + (batch * heads + head) * head_width + width, (read / total).to(kind))


ONE_ROW = LayerKernels(_normed, _attend, _added, _gated)
"""Of one row, on CUDA."""
