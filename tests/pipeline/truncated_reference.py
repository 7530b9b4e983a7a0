"""The stock model with layers, or groups of heads, physically taken out of it: what a schedule is compared with."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from stock_reference import llm_of
from torch import nn


def truncated(
    base: Any, groups_run: Sequence[Sequence[int]], groups: int, slices_run: Sequence[Sequence[int]] | None = None
) -> Any:
    """Return a copy of a Llava that has, of each LLM layer, only the groups named; of a layer without any, nothing.

    `slices_run` names the slices of each layer's MLP, where they are not those of the groups.
    """
    model = copy.deepcopy(base)
    llm = llm_of(model)
    left, types = nn.ModuleList(), []
    kinds = iter(getattr(llm.config, "layer_types", None) or [])
    for layer, run, slices in zip(llm.layers, groups_run, slices_run or groups_run, strict=True):
        kind = next(kinds, None)
        if not run:
            continue
        types.append(kind)
        if len(run) < groups:
            _cut_heads(layer, run, groups)
            _cut_mlp(layer, slices, groups)
        layer.self_attn.layer_idx = len(left)
        left.append(layer)
    llm.layers = left
    # A cache has as many layers as the config says.
    llm.config.num_hidden_layers = model.config.text_config.num_hidden_layers = len(left)
    if None not in types:
        llm.config.layer_types = model.config.text_config.layer_types = types
    return model


def _cut_heads(layer: Any, run: Sequence[int], groups: int) -> None:
    attention = layer.self_attn
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
        _keep(linear, run, groups, 0)
    _keep(attention.o_proj, run, groups, 1)


def _cut_mlp(layer: Any, run: Sequence[int], groups: int) -> None:
    _keep(layer.mlp.gate_proj, run, groups, 0)
    _keep(layer.mlp.up_proj, run, groups, 0)
    _keep(layer.mlp.down_proj, run, groups, 1)


def _keep(linear: Any, run: Sequence[int], groups: int, dim: int) -> None:
    parts = linear.weight.data.chunk(groups, dim=dim)
    linear.weight = nn.Parameter(torch.cat([parts[group] for group in run], dim=dim))
    if dim == 0 and linear.bias is not None:
        biases = linear.bias.data.chunk(groups)
        linear.bias = nn.Parameter(torch.cat([biases[group] for group in run]))
