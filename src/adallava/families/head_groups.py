"""One decoder layer of a Llama, where each row runs only some groups of heads, with their slices of the MLP.

A group is a run of whole key-value heads, the query heads that read them, and as large a share of the MLP's neurons.
What a layer adds to the hidden states is a sum over its groups, so that a layer without a group is that sum without
one term. Each group's slice of the weights is a view, multiplied with the rows that run it alone; attention of all
(row, group) pairs is one call, and the pairs take the place of the batch in the layer's cache.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from adallava.errors import UnsupportedModeError
from adallava.families.layer_inputs import LayerInputs
from adallava.families.transformers_internals import attend, rotate

_READING = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
"""Sliced with their biases."""

_WRITING = ("self_attn.o_proj", "mlp.down_proj")
"""Their bias belongs to no group."""

_NORMS_BEHIND = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


def check_splittable(block: nn.Module) -> None:
    """Refuse a layer that is not a sum over groups of heads, or whose weights cannot be sliced.

    Raises:
        UnsupportedModeError: for a norm of the whole sum, or a projection that is missing, quantized, not plain, or
            adds a bias.
    """
    for name in _NORMS_BEHIND:
        if hasattr(block, name):
            raise UnsupportedModeError(
                f"this model's layers have a {name}: what they add is no sum over groups of heads, which are therefore "
                "not run alone: choose a scheduler of whole layers"
            )
    parts = dict(block.named_modules())
    for name in (*_READING, *_WRITING):
        projection = parts.get(name)
        with_bias = name in _WRITING and getattr(projection, "bias", None) is not None
        if projection is None:
            raise UnsupportedModeError(
                f"this model's layers have no {name}, whose weights could be split into groups of heads: choose a "
                "scheduler of whole layers"
            )
        if type(projection) is not nn.Linear or with_bias:
            raise UnsupportedModeError(
                f"{name} of this model's layers is a {type(projection).__name__}{' with a bias' if with_bias else ''}, "
                "which cannot be split into groups of heads: merge adapters into the weights first, or choose a "
                "scheduler of whole layers"
            )
        if is_traceable_wrapper_subclass(projection.weight):
            raise UnsupportedModeError(
                f"{name} of this model's layers is quantized, and cannot be split into groups of heads: choose a "
                "scheduler of whole layers"
            )


def run_groups(
    block: Any,
    hidden: Tensor,
    inputs: LayerInputs,
    rows: Sequence[Tensor],
    gates: Tensor | None = None,
    mlp_rows: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return what the layer passes on, [B, S, D].

    Args:
        block: the stock layer.
        hidden: [B, S, D].
        inputs: what the layer reads besides them.
        rows: for each group, the rows that run it, int64, ascending.
        gates: [B, groups], what each group's part is multiplied by; None = 1.
        mlp_rows: for each group, the rows that run its slice of the MLP; None = those that run its heads.
    """
    normed = block.input_layernorm(hidden)
    attended = _attention(block.self_attn, normed, inputs, rows)
    hidden = _added(hidden, attended, rows, gates)
    normed = block.post_attention_layernorm(hidden)
    mlp_rows = rows if mlp_rows is None else mlp_rows
    return _added(hidden, _mlp(block.mlp, normed, mlp_rows), mlp_rows, gates)


def _added(hidden: Tensor, parts: Sequence[Tensor], rows: Sequence[Tensor], gates: Tensor | None) -> Tensor:
    for group, (part, of_group) in enumerate(zip(parts, rows, strict=True)):
        if gates is not None:
            part = part * gates[of_group, group].view(-1, 1, 1).to(part.dtype)
        hidden = hidden.index_add(0, of_group, part.to(hidden.dtype))
    return hidden


def _attention(attention: Any, normed: Tensor, inputs: LayerInputs, rows: Sequence[Tensor]) -> list[Tensor]:
    """Return each group's part, [rows, S, D]."""
    read = [normed.index_select(0, of_group) for of_group in rows]

    def projected(linear: nn.Linear, norm: str | None = None) -> Tensor:
        """Return each group's slice of a projection for the group's rows, [pairs, heads, S, head_dim]."""
        slices = zip(read, *_sliced(linear, len(rows)), strict=True)
        of_pairs = torch.cat([F.linear(states, weight, bias) for states, weight, bias in slices])
        heads = of_pairs.view(*of_pairs.shape[:2], -1, attention.head_dim)
        of_heads = None if norm is None else getattr(attention, norm, None)
        return (heads if of_heads is None else of_heads(heads)).transpose(1, 2)

    pairs = torch.cat(tuple(rows))
    of_pairs = inputs.of_rows(pairs, len(normed))
    queries, keys = projected(attention.q_proj, "q_norm"), projected(attention.k_proj, "k_norm")
    queries, keys = rotate(queries, keys, *of_pairs.position_embeddings)
    mixed = attend(attention, queries, keys, projected(attention.v_proj), of_pairs)
    outputs = attention.o_proj.weight.chunk(len(rows), dim=1)
    of_groups = torch.split(mixed, [len(of_group) for of_group in rows])
    return [F.linear(states, weight) for states, weight in zip(of_groups, outputs, strict=True)]


def _mlp(mlp: Any, normed: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
    """Return each group's part, [rows, S, D]."""
    slices = zip(
        rows,
        zip(*_sliced(mlp.gate_proj, len(rows)), strict=True),
        zip(*_sliced(mlp.up_proj, len(rows)), strict=True),
        mlp.down_proj.weight.chunk(len(rows), dim=1),
        strict=True,
    )
    parts = []
    for of_group, gate, up, down in slices:
        states = normed.index_select(0, of_group)
        parts.append(F.linear(mlp.act_fn(F.linear(states, *gate)) * F.linear(states, *up), down))
    return parts


def _sliced(linear: nn.Linear, groups: int) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    """Return each group's rows of a projection's weight, and of its bias."""
    biases = (None,) * groups if linear.bias is None else linear.bias.chunk(groups)
    return linear.weight.chunk(groups, dim=0), biases
