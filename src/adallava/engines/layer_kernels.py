"""The four steps of a layer: as PyTorch runs them, for any number of tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.families.quantization import (
    LEAST,
    MOST_IN_FP8,
    is_scaled_by_row,
    multiplies_in_fp8,
    numbers_and_scales,
)
from adallava.families.transformers_internals import rotate

Joined = tuple[Tensor, Tensor | None]
"""A product's weight and bias."""


@dataclass(frozen=True)
class LayerSizes:
    """What of a layer is not a tensor.

    Attributes:
        heads: query heads.
        kv_heads: of keys and values.
        head_width: of each.
        eps: of the norms.
        scaling: of the scores.
    """

    heads: int
    kv_heads: int
    head_width: int
    eps: float
    scaling: float


class Reads(NamedTuple):
    """What attention reads besides queries, keys and values.

    Attributes:
        cosines: [B, S, head width].
        sines: the same.
        mask: added to the scores, or None for causal attention.
        keys: [B, kv heads, C, head width], written in place.
        values: the same.
        slot: [1] the column that one token is written to; None for a prompt, which begins at column 0.
        norms: of queries and keys before they are turned, [head width] each; None for layers without.
    """

    cosines: Tensor
    sines: Tensor
    mask: Tensor | None
    keys: Tensor
    values: Tensor
    slot: Tensor | None
    norms: tuple[Tensor, Tensor] | None = None


class LayerKernels(NamedTuple):
    """How the steps are run.

    Attributes:
        normed: the norm of hidden states, times a weight: queries, keys and values, one after the other.
        attend: turns and keeps them, and returns what the queries read, [B, S, heads * head width].
        added: a product with a weight, to which a residual is added.
        gated: the norm of hidden states, times two weights: the first through SiLU, times the second.
    """

    normed: Callable[[Tensor, Tensor, float, Joined], Tensor]
    attend: Callable[[Tensor, Reads, LayerSizes], Tensor]
    added: Callable[[Tensor, Joined, Tensor], Tensor]
    gated: Callable[[Tensor, Tensor, float, Joined], Tensor]


def one_row_kernels(weights: Sequence[Tensor], sizes: LayerSizes) -> LayerKernels | None:
    """Return what runs one token of one row, for weights of this kind and place; None where there is nothing better.

    They need the compiler that comes with PyTorch for CUDA, heads whose width is a power of two, and weights that are
    as they are, or quantized with nothing but a scale a row.
    """
    is_power = sizes.head_width & (sizes.head_width - 1) == 0
    on_cuda = all(weight.device.type == "cuda" for weight in weights)
    if not on_cuda or not is_power or find_spec("triton") is None or not all(map(is_scaled_by_row, weights)):
        return None
    from adallava.engines.token_kernels import ONE_ROW

    return ONE_ROW


def kernels_for(weights: Sequence[Tensor]) -> LayerKernels:
    """Return what runs any number of tokens, for weights of this kind."""
    return _IN_FP8 if all(map(multiplies_in_fp8, weights)) else PLAIN


def _by_pytorch(product: Callable[[Tensor, Joined], Tensor]) -> LayerKernels:
    """Return the steps around a way to multiply."""

    def normed(hidden: Tensor, norm: Tensor, eps: float, weight: Joined) -> Tensor:
        """Return a product of normed states."""
        return product(_rms_norm(hidden, norm, eps), weight)

    def gated(hidden: Tensor, norm: Tensor, eps: float, weight: Joined) -> Tensor:
        """Return the gated products of normed states, [B, S, MLP width]."""
        gate, up = product(_rms_norm(hidden, norm, eps), weight).chunk(2, dim=-1)
        return F.silu(gate) * up

    def added(hidden: Tensor, weight: Joined, residual: Tensor) -> Tensor:
        """Return a product, added to the residual."""
        return residual + product(hidden, weight)

    return LayerKernels(normed, _attend, added, gated)


def _product(hidden: Tensor, weight: Joined) -> Tensor:
    return F.linear(hidden, *weight)


def _fp8_product(hidden: Tensor, weight: Joined) -> Tensor:
    """Return the same of a weight that multiplies in float8, with the scales of tokens and rows outside of the product.

    With them inside, a prefill of 144 tokens took longer than in bfloat16 (6.3 ms against 5.9 on an H200, torch 2.11).
    Compiled, what is outside is part of the steps around it.
    """
    stored, bias = weight
    numbers, scales = numbers_and_scales(stored)
    assert scales is not None
    tokens = hidden.reshape(-1, hidden.shape[-1])
    # Rounded where torchao rounds: before it is widened.
    token_scales = (tokens.abs().amax(dim=-1, keepdim=True).clamp(min=LEAST) / MOST_IN_FP8).float()
    rounded = (tokens.float() / token_scales).clamp(-MOST_IN_FP8, MOST_IN_FP8).to(numbers.dtype)
    one = torch.ones((), dtype=torch.float32, device=hidden.device)
    made = torch._scaled_mm(rounded, numbers.t(), one, one, out_dtype=hidden.dtype, use_fast_accum=True)
    made = (made.float() * token_scales * scales.t()).to(hidden.dtype).view(*hidden.shape[:-1], -1)
    return made if bias is None else made + bias


def _rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return Llama's RMS norm."""
    wide = hidden.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(hidden.dtype)


def _attend(joined: Tensor, reads: Reads, sizes: LayerSizes) -> Tensor:
    batch_size, length, _ = joined.shape
    widths = [sizes.heads * sizes.head_width, *[sizes.kv_heads * sizes.head_width] * 2]
    split = joined.split(widths, dim=-1)  # type: ignore[no-untyped-call]
    query, key, value = (part.view(batch_size, length, -1, sizes.head_width).transpose(1, 2) for part in split)
    if reads.norms is not None:
        query, key = (_rms_norm(part, norm, sizes.eps) for part, norm in zip((query, key), reads.norms, strict=True))
    query, key = rotate(query, key, reads.cosines, reads.sines)
    if reads.slot is None:
        reads.keys[:, :, :length].copy_(key)
        reads.values[:, :, :length].copy_(value)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=reads.mask, is_causal=reads.mask is None, scale=sizes.scaling,
            enable_gqa=sizes.heads != sizes.kv_heads,
        )  # fmt: skip
    else:
        reads.keys.index_copy_(2, reads.slot, key)
        reads.values.index_copy_(2, reads.slot, value)
        mixed = _one_token(query, reads, sizes)
    return mixed.transpose(1, 2).reshape(batch_size, length, -1)


def _one_token(query: Tensor, reads: Reads, sizes: LayerSizes) -> Tensor:
    """Return what one token of each row reads, [B, heads, 1, head width]; heads of a group share their keys."""
    batch_size, group = len(query), sizes.heads // sizes.kv_heads
    grouped = query.view(batch_size, sizes.kv_heads, group, sizes.head_width)
    mask = None if reads.mask is None else reads.mask.expand(-1, -1, group, -1)
    mixed = F.scaled_dot_product_attention(grouped, reads.keys, reads.values, attn_mask=mask, scale=sizes.scaling)
    return mixed.reshape(batch_size, sizes.heads, 1, sizes.head_width)


PLAIN = _by_pytorch(_product)
"""By PyTorch, with any weights."""

_IN_FP8 = _by_pytorch(_fp8_product)
