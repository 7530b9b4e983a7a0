"""One layer's attention from a few places, recomputed: SDPA returns no attention weights."""

from typing import Any

import torch
from torch import Tensor

from adallava.families.transformers_internals import rotate


def attention_shares(llm: Any, layer: int, hidden: Tensor, position_ids: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    """Return where some queries look in one layer of a Llama, [R, heads, S], rows of the last dimension summing to 1.

    Args:
        llm: the `LlamaModel`.
        layer: index of the layer.
        hidden: [B, S, D], that layer's input.
        position_ids: [B, S].
        mask: [B, S, S] bool, who may see whom.
        rows: [R, 2] int64, (sample, place) of each query.
    """
    samples, places = rows.unbind(dim=1)
    position_embeddings = llm.rotary_emb(hidden, position_ids)
    visible = mask[samples, places].unsqueeze(1)
    shares = asked_attention(llm.layers[layer], hidden, position_embeddings, samples, places.unsqueeze(1), visible)
    return shares.squeeze(1)


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
        block: a decoder layer of a Llama or one built like it.
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
    keys = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    keys = _rotated(keys, cosines, sines)
    queries = attention.q_proj(asked).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    queries = _rotated(queries, cosines[samples.unsqueeze(1), places], sines[samples.unsqueeze(1), places])
    # The heads of a group share their keys: [I, kv heads, group, R, head width].
    grouped = queries.view(len(queries), keys.shape[1], -1, *queries.shape[2:])
    logits = torch.einsum("igjrd,igsd->irgjs", grouped, keys.index_select(0, samples)).flatten(2, 3) * attention.scaling
    seen = visible.unsqueeze(2)
    shares: Tensor = logits.float().masked_fill(~seen, torch.finfo(torch.float32).min).softmax(dim=-1)
    return shares * seen


def _rotated(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    return rotate(states, states, cosines, sines)[0]
