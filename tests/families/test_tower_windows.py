"""Windows of a tower at once: what the stock tower gives, to the bit, for pictures whose edges cut windows off."""

import copy

import pytest
import torch
from tiny_qwen import tiny_qwen_base

from adallava.families.native_grids import tower_arguments
from adallava.families.tower_windows import layers_with

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_windows_together_are_the_stock_towers(dtype: torch.dtype) -> None:
    visual = tiny_qwen_base("qwen2_5_vl", dtype=dtype).model.visual
    grids = torch.tensor([[1, 10, 14], [1, 4, 6], [1, 8, 8]])
    patches = torch.randn(10 * 14 + 4 * 6 + 8 * 8, 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    given = tower_arguments(visual, grids, CPU)
    lengths = given["cu_window_seqlens"].diff().tolist()
    # Windows are of 4 x 4 patches: 10 x 14 has 2 x 3 whole ones, 3 + 2 at its edges and one in the corner.
    assert sorted(lengths, reverse=True) == [16] * 6 + [16] * 1 + [16] * 4 + [8] * 5 + [8] * 1 + [4] * 1
    blocks = layers_with(visual, dict.fromkeys((0, 2), given["cu_window_seqlens"]), CPU)
    twin = copy.copy(visual)
    twin._modules = {**visual._modules, "blocks": torch.nn.ModuleList(blocks)}
    assert torch.equal(
        twin(patches, grid_thw=grids, **given).pooler_output, visual(patches, grid_thw=grids).pooler_output
    )
    assert blocks[1] is visual.blocks[1]
    assert visual.blocks[0].attn is not blocks[0].attn, "the stock model keeps its own"
