"""The small steps of a tower's layers, each in one kernel: see `families/tower_kernels.py`, which says what they do.

Images come in every size, and these take any number of patches without being compiled again. torch.compile would do as
well, but it steps aside wherever something else looks on, as it does where a stage is captured.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from adallava.families.tower_kernels import TowerKernels

_BLOCK = 1024
"""Numbers that a program reads, where they do not depend on each other."""


def _arranged(joined: Tensor, cosines: Tensor, sines: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    patches, _, heads, width = joined.shape
    joined, cosines, sines = joined.contiguous(), cosines.contiguous(), sines.contiguous()
    made = [joined.new_empty((patches, heads, width)) for _ in range(3)]
    half = width // 2
    _arrange[(patches,)](
        joined,
        cosines,
        sines,
        joined if order is None else order,
        *made,
        heads,
        half,
        order is not None,
        triton.next_power_of_2(heads),
        triton.next_power_of_2(half),
    )
    return made[0], made[1], made[2]


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    made = torch.empty_like(gate)
    count = gate.numel()
    _gate[(triton.cdiv(count, _BLOCK),)](gate, up, made, count, _BLOCK)
    return made


def _rms_normed(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    hidden = hidden.contiguous()
    made = torch.empty_like(hidden)
    width = hidden.shape[-1]
    _norm[(hidden.numel() // width,)](hidden, weight, made, width, eps, triton.next_power_of_2(width))
    return made


PATCH_KERNELS = TowerKernels(_arranged, _gated, _rms_normed)
"""For a tower on a CUDA device."""


@triton.jit  # type: ignore[untyped-decorator]
def _arrange(  # type: ignore[no-untyped-def]
    joined,
    cosines,
    sines,
    order,
    queries,
    keys,
    values,
    heads,
    half,
    ordered: tl.constexpr,
    block_heads: tl.constexpr,
    block_half: tl.constexpr,
):
    """Turn and move one patch: its first half by `a cos - b sin`, its second by `b cos + a sin`."""
    at = tl.program_id(0).to(tl.int64)
    patch = tl.load(order + at) if ordered else at
    head, column = tl.arange(0, block_heads)[:, None], tl.arange(0, block_half)[None, :]
    inside = (head < heads) & (column < half)
    within = head * 2 * half + column
    size = heads * 2 * half
    of_table = patch * 2 * half + column
    real = column < half
    first_cosine = tl.load(cosines + of_table, real, 0.0).to(tl.float32)
    second_cosine = tl.load(cosines + of_table + half, real, 0.0).to(tl.float32)
    first_sine = tl.load(sines + of_table, real, 0.0).to(tl.float32)
    second_sine = tl.load(sines + of_table + half, real, 0.0).to(tl.float32)
    for part in tl.static_range(2):
        read = joined + (3 * patch + part) * size + within
        written = (queries if part == 0 else keys) + at * size + within
        first, second = tl.load(read, inside, 0.0).to(tl.float32), tl.load(read + half, inside, 0.0).to(tl.float32)
        kind = joined.dtype.element_ty
        tl.store(written, (first * first_cosine - second * first_sine).to(kind), inside)
        tl.store(written + half, (second * second_cosine + first * second_sine).to(kind), inside)
    read, written = joined + (3 * patch + 2) * size + within, values + at * size + within
    tl.store(written, tl.load(read, inside), inside)
    tl.store(written + half, tl.load(read + half, inside), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _gate(gate, up, made, count, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """SiLU in float32, rounded, and then the product: as PyTorch's two steps."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    kind = gate.dtype.element_ty
    read = tl.load(gate + at, inside, 0.0).to(tl.float32)
    passed = (read * tl.sigmoid(read)).to(kind).to(tl.float32)
    tl.store(made + at, (passed * tl.load(up + at, inside, 0.0).to(tl.float32)).to(kind), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _norm(hidden, weight, made, width, eps, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """One patch: its norm in float32, rounded, times the weight."""
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, block)
    inside = column < width
    kind = hidden.dtype.element_ty
    read = tl.load(hidden + row + column, inside, 0.0).to(tl.float32)
    normed = (read * tl.rsqrt(tl.sum(read * read) / width + eps)).to(kind).to(tl.float32)
    scale = tl.load(weight + column, inside, 0.0).to(tl.float32)
    tl.store(made + row + column, (normed * scale).to(kind), inside)
