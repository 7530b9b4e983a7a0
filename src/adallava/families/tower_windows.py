"""Attention within windows of a tower: all windows of one length at once.

The stock tower of Qwen2.5-VL runs its attention once a window, hundreds of times a picture, each for 64 patches at
most: a GPU is then busy with launches. A window's own arithmetic is the same alone and among others.
"""

import copy
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.families.transformers_internals import ROTARY_TABLES, rotate_patches


class _Windows:
    """Which patches lie in one window: the rows of each length, [windows, length], and how to undo their order, [S]."""

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
        self.rows = [one.to(device, non_blocking=True) for one in rows]
        self.back = torch.cat([one.flatten() for one in rows]).argsort().to(device, non_blocking=True)


class _WindowedAttention(nn.Module):
    """Stands where a layer's attention is."""

    def __init__(self, attention: nn.Module, windows: _Windows) -> None:
        super().__init__()
        self.attention, self._windows = attention, windows

    def forward(self, hidden_states: Tensor, **beside: Any) -> Tensor:
        """Return what the attention puts out for patches [S, C], with their `position_embeddings`."""
        attention: Any = self.attention
        joined = attention.qkv(hidden_states).unflatten(1, (3, attention.num_heads, -1))
        queries, keys = rotate_patches(joined[:, 0], joined[:, 1], *beside[ROTARY_TABLES])
        parts = []
        for rows in self._windows.rows:
            query, key, value = (one[rows].transpose(1, 2) for one in (queries, keys, joined[:, 2]))
            attended = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
            parts.append(attended.transpose(1, 2).flatten(0, 1))
        in_windows = torch.cat(parts).flatten(1)
        projected: Tensor = attention.proj(in_windows[self._windows.back])
        return projected


def windowed_blocks(visual: Any, windowed: Collection[int], ends: Tensor, device: torch.device) -> list[nn.Module]:
    """Return the tower's layers, those that look within windows as copies that share all but how attention is run.

    Args:
        visual: the stock tower, with SDPA.
        windowed: those layers.
        ends: [windows + 1], where each window begins and the last ends, on the host.
        device: of the tower.
    """
    windows = _Windows(ends, device)
    blocks = list(visual.blocks)
    for index in windowed:
        blocks[index] = copy.copy(block := blocks[index])
        blocks[index]._modules = {**block._modules, "attn": _WindowedAttention(block.attn, windows)}
    return blocks
