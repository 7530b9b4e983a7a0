"""What a tower of native resolution works out from its pictures' grids: made on the host, where the grids are.

Left to itself the tower reads the grids back from the device, and in SDPA the lengths of its windows once a layer: each
time the host waits for all that was launched, and no graph can capture it. transformers lets callers give the same
tensors by name (its `vision_utils`, since 5.17).
"""

from typing import Any

import torch
from torch import Tensor

from adallava.families.transformers_internals import attention_of, grid_functions

_READS_LENGTHS_ON_HOST = ("eager", "sdpa")
"""Kinds of attention for which a tower cuts its patches into windows one by one; others read lengths on the device."""


def tower_arguments(visual: Any, grids: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Return what a Qwen-VL tower would make of its grids, by the names under which it takes them.

    Args:
        visual: the stock tower.
        grids: [I, 3] int64 of frames, rows and columns of patches, on the host.
        device: of the tower.

    Returns:
        Places of patches, and what turns a table of positions into theirs, on the device; where windows end, on the
        host if the tower's attention reads it there.
    """
    vision_utils = grid_functions()
    merge = visual.spatial_merge_size
    ends = {"cu_seqlens": vision_utils.get_vision_cu_seqlens(grids)}
    made = {"position_ids": vision_utils.get_vision_position_ids(grids, merge)}
    if hasattr(visual, "fullatt_block_indexes"):
        made["window_index"], ends["cu_window_seqlens"] = vision_utils.get_vision_window_index(
            grids, spatial_merge_size=merge, window_size=visual.window_size, patch_size=visual.patch_size
        )
    if hasattr(visual, "num_grid_per_side"):
        made["interp_indices"], made["interp_weights"] = vision_utils.get_vision_interpolation_indices_and_weights(
            grids,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=merge,
        )
    if attention_of(visual.config) not in _READS_LENGTHS_ON_HOST:
        made |= ends
        ends = {}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in made.items()} | ends
