"""The stock model with layers, or groups of heads, physically taken out of it: what a schedule is compared with."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn


def truncated(base: Any, groups_run: Sequence[Sequence[int]], groups: int) -> Any:
    """Return a copy of a Llava that has, of each LLM layer, only the groups named; of a layer without any, nothing."""
    model = copy.deepcopy(base)
    llm = model.model.language_model
    left = nn.ModuleList()
    for layer, run in zip(llm.layers, groups_run, strict=True):
        if not run:
            continue
        if len(run) < groups:
            _cut_heads(layer, run, groups)
        layer.self_attn.layer_idx = len(left)
        left.append(layer)
    llm.layers = left
    # A cache has as many layers as the config says.
    llm.config.num_hidden_layers = model.config.text_config.num_hidden_layers = len(left)
    return model


def _cut_heads(layer: Any, run: Sequence[int], groups: int) -> None:
    attention, mlp = layer.self_attn, layer.mlp
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
        parts = linear.weight.data.chunk(groups, dim=0)
        linear.weight = nn.Parameter(_joined([parts[group] for group in run], 0))
    for linear in (attention.o_proj, mlp.down_proj):
        parts = linear.weight.data.chunk(groups, dim=1)
        linear.weight = nn.Parameter(_joined([parts[group] for group in run], 1))


def _joined(parts: list[Any], dim: int) -> Any:
    import torch

    return torch.cat(parts, dim=dim)
