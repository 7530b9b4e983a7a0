"""One layer's attention from a few places, recomputed: SDPA returns no attention weights."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


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
    block = llm.layers[layer]
    attention = block.self_attn
    normed = block.input_layernorm(hidden)
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    queries = attention.q_proj(normed).view(shape).transpose(1, 2)
    keys = attention.k_proj(normed).view(shape).transpose(1, 2)
    queries, keys = apply_rotary_pos_emb(queries, keys, *llm.rotary_emb(normed, position_ids))
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    samples, places = rows.unbind(dim=1)
    asked = queries[samples, :, places]
    logits = torch.einsum("rhd,rhsd->rhs", asked, keys[samples]) * attention.scaling
    shares: Tensor = logits.masked_fill(~mask[samples, places].unsqueeze(1), float("-inf")).softmax(dim=-1)
    return shares
