"""One decoder layer of a Llama of which each row runs only some groups of heads, with their slices of the MLP.

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

_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def check_splittable(block: nn.Module) -> None:
    """Refuse a layer whose weights cannot be sliced.

    Raises:
        UnsupportedModeError: for a projection that is not plain, is quantized, or has a bias.
    """
    for name in (*_PROJECTIONS, *_MLP):
        projection = block.get_submodule(name)
        if type(projection) is not nn.Linear or projection.bias is not None:
            raise UnsupportedModeError(
                f"{name} of this model's layers is a {type(projection).__name__}"
                f"{' with a bias' if getattr(projection, 'bias', None) is not None else ''}, which cannot be split "
                "into groups of heads: merge adapters into the weights first, or choose a scheduler of whole layers"
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
        inputs: what the layer reads beside them.
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

    def projected(linear: nn.Linear) -> Tensor:
        """Return each group's slice of a projection for the group's rows, [pairs, heads, S, head_dim]."""
        slices = linear.weight.chunk(len(rows), dim=0)
        of_pairs = torch.cat([F.linear(states, weight) for states, weight in zip(read, slices, strict=True)])
        return of_pairs.view(*of_pairs.shape[:2], -1, attention.head_dim).transpose(1, 2)

    pairs = torch.cat(tuple(rows))
    of_pairs = inputs.of_rows(pairs, len(normed))
    queries, keys = rotate(projected(attention.q_proj), projected(attention.k_proj), *of_pairs.position_embeddings)
    mixed = attend(attention, queries, keys, projected(attention.v_proj), of_pairs)
    outputs = attention.o_proj.weight.chunk(len(rows), dim=1)
    of_groups = torch.split(mixed, [len(of_group) for of_group in rows])
    return [F.linear(states, weight) for states, weight in zip(of_groups, outputs, strict=True)]


def _mlp(mlp: Any, normed: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
    """Return each group's part, [rows, S, D]."""
    slices = zip(
        rows,
        mlp.gate_proj.weight.chunk(len(rows), dim=0),
        mlp.up_proj.weight.chunk(len(rows), dim=0),
        mlp.down_proj.weight.chunk(len(rows), dim=1),
        strict=True,
    )
    parts = []
    for of_group, gate, up, down in slices:
        states = normed.index_select(0, of_group)
        parts.append(F.linear(mlp.act_fn(F.linear(states, gate)) * F.linear(states, up), down))
    return parts
