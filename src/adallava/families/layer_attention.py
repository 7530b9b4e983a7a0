"""One layer's attention from a few places, recomputed: SDPA returns no attention weights."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.families.transformers_internals import rotate

_SOFTCAPPED = ("Gemma2Attention",)
"""They press logits to ±c by a tanh; others hold the name in their config and do not."""


def asked_attention(
    block: Any,
    hidden: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    samples: Tensor,
    places: Tensor,
    visible: Tensor,
) -> Tensor:
    """Return the attention of the asked tokens alone, [I, R, heads, S] float32, summing to 1 over what is visible.

    Keys are computed for all tokens, queries for the asked ones: R rows of the matrix, not S.

    Args:
        block: a decoder layer of one of the kinds that `decoder` knows.
        hidden: [B, S, D], the layer's input.
        position_embeddings: cosines and sines, [B, S, head width] each.
        samples: [I] int64, the sample of each group of asked tokens.
        places: [I, R] int64, their places in the sequence.
        visible: [I, R, S] bool, which tokens each may see; a token that may see none gets zeros.
    """
    attention = block.self_attn
    normed = block.input_layernorm(hidden)
    asked = normed[samples.unsqueeze(1), places]
    cosines, sines = (table.expand(len(hidden), -1, -1) for table in position_embeddings)
    keys = _rotated(_keys(attention, normed), cosines, sines)
    asked_tables = (table[samples.unsqueeze(1), places] for table in (cosines, sines))
    queries = _rotated(_queries(attention, asked), *asked_tables)
    # The heads of a group share their keys: [I, kv heads, group, R, head width].
    grouped = queries.view(len(queries), keys.shape[1], -1, *queries.shape[2:])
    logits = torch.einsum("igjrd,igsd->irgjs", grouped, keys.index_select(0, samples)).flatten(2, 3) * attention.scaling
    seen = visible.unsqueeze(2)
    shares: Tensor = _capped(attention, logits.float()).masked_fill(~seen, torch.finfo(torch.float32).min)
    return shares.softmax(dim=-1) * seen


def key_norms(block: Any, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
    """Return the L1 norm of each token's keys, turned by its position, over all heads, [B, S] float32.

    Args:
        block: as for `asked_attention`.
        hidden: [B, S, D], the layer's input.
        position_embeddings: as for `asked_attention`.
    """
    attention = block.self_attn
    cosines, sines = (table.expand(len(hidden), -1, -1) for table in position_embeddings)
    keys = _rotated(_keys(attention, block.input_layernorm(hidden)), cosines, sines)
    return keys.float().abs().sum(dim=(1, 3))


def _queries(attention: Any, states: Tensor) -> Tensor:
    """Return queries before they are turned, [B, heads, S, head width]."""
    joined = getattr(attention, "qkv_proj", None)
    width = attention.o_proj.weight.shape[1]
    flat = attention.q_proj(states) if joined is None else _slice(joined, states, 0, width)
    return _heads(attention, flat, "q_norm")


def _keys(attention: Any, states: Tensor) -> Tensor:
    """Return keys before they are turned, [B, kv heads, S, head width]."""
    joined = getattr(attention, "qkv_proj", None)
    if joined is None:
        return _heads(attention, attention.k_proj(states), "k_norm")
    # Queries first, then keys and as many values.
    first = attention.o_proj.weight.shape[1]
    last = first + (joined.weight.shape[0] - first) // 2
    return _heads(attention, _slice(joined, states, first, last), "k_norm")


def _slice(joined: Any, states: Tensor, first: int, last: int) -> Tensor:
    return F.linear(states, joined.weight[first:last], None if joined.bias is None else joined.bias[first:last])


def _heads(attention: Any, flat: Tensor, norm: str) -> Tensor:
    """Return states by heads; where a layer has a norm of its own for them, it is of each head."""
    heads = flat.view(*flat.shape[:-1], -1, attention.head_dim)
    of_heads = getattr(attention, norm, None)
    normed: Tensor = heads if of_heads is None else of_heads(heads)
    return normed.transpose(1, 2)


def _capped(attention: Any, logits: Tensor) -> Tensor:
    if type(attention).__name__ not in _SOFTCAPPED or attention.attn_logit_softcapping is None:
        return logits
    cap = float(attention.attn_logit_softcapping)
    return torch.tanh(logits / cap) * cap


def _rotated(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    return rotate(states, states, cosines, sines)[0]
