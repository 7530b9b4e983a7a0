"""Attention within windows of a tower: all windows of one length at once.

The stock tower of Qwen2.5-VL runs its attention once a window, hundreds of times a picture, each for 64 patches at
most: a GPU is then busy with launches. A window's own arithmetic is the same alone and among others.
"""

import copy
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.families.tower_kernels import TowerKernels, with_kernels
from adallava.families.transformers_internals import ROTARY_TABLES


class _Windows:
    """Which patches lie in one window: windows sorted by length.

    Attributes:
        order: [S] int64, of patches, window after window; None = as they are.
        back: [S] int64, undoes it.
        groups: (windows, length) of each length, in this order.
    """

    def __init__(self, ends: Tensor, device: torch.device) -> None:
        """Sort windows by length.

        Args:
            ends: [windows + 1], where each begins and the last ends, on the host.
            device: of the patches.
        """
        by_length: dict[int, list[int]] = {}
        for first, end in pairwise(ends.tolist()):
            by_length.setdefault(end - first, []).append(first)
        rows = [torch.tensor(firsts)[:, None] + torch.arange(length) for length, firsts in by_length.items()]
        order = torch.cat([one.flatten() for one in rows])
        self.groups = [(len(one), one.shape[1]) for one in rows]
        self.order: Tensor | None = None
        self.back: Tensor | None = None
        if len(rows) > 1:
            self.order = order.to(device, non_blocking=True)
            self.back = order.argsort().to(device, non_blocking=True)


class _WindowedAttention(nn.Module):
    """Stands where a layer's attention is."""

    def __init__(self, attention: nn.Module, windows: _Windows, kernels: TowerKernels) -> None:
        super().__init__()
        self.attention, self._windows, self._kernels = attention, windows, kernels

    def forward(self, hidden_states: Tensor, **beside: Any) -> Tensor:
        """Return what the attention puts out for patches [S, C], with their `position_embeddings`."""
        attention: Any = self.attention
        windows = self._windows
        joined = attention.qkv(hidden_states).unflatten(1, (3, attention.num_heads, -1))
        rows = self._kernels.arranged(joined, *beside[ROTARY_TABLES], windows.order)
        sizes = [count * length for count, length in windows.groups]
        parts = []
        for group, *some in zip(windows.groups, *(torch.split(row, sizes) for row in rows), strict=True):
            query, key, value = (row.unflatten(0, group).transpose(1, 2) for row in some)
            attended = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
            parts.append(attended.transpose(1, 2).flatten(0, 1))
        in_windows = torch.cat(parts).flatten(1)
        projected: Tensor = attention.proj(in_windows if windows.back is None else in_windows[windows.back])
        return projected


def layers_with(
    visual: Any, windowed: Mapping[int, Tensor], device: torch.device, kernels: TowerKernels | None = None
) -> list[nn.Module]:
    """Return the tower's layers: copies, where they run in another way, that share all weights.

    Args:
        visual: the stock tower, with SDPA.
        windowed: of layers whose windows run at once, where each window begins and the last ends, [windows + 1], on
            the host.
        device: of the tower.
        kernels: of all layers' small steps; None = as they are.
    """
    known: dict[int, _Windows] = {}
    blocks = list(visual.blocks)
    for index, block in enumerate(visual.blocks):
        parts = {} if kernels is None else with_kernels(block, kernels)
        if index in windowed:
            ends = windowed[index]
            windows = known.get(id(ends)) or known.setdefault(id(ends), _Windows(ends, device))
            parts["attn"] = _WindowedAttention(block.attn, windows, kernels or TowerKernels())
        if parts:
            blocks[index] = copy.copy(block)
            blocks[index]._modules = {**block._modules, **parts}
    return blocks
